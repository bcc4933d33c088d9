"""Answer problems with the nearest training example's solution: the baseline that shows what memorising alone gives."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from artifacts.files import write_lines
from artifacts.hashing import path_hash
from runner.stage import Context, Stage, StageParams
from scoring.problems import Problem, read_problems
from stages.params.code.math_problems import MathSource
from stages.params.code.nearest import NearestParams
from stages.params.code.problem_sets import ProblemSetParams, ProblemSource, ProblemsParams

CELL = "nearest"
_WORD = r"\w+|[^\w\s]"
_NAME = "f"


class Params(StageParams):
    """Which sets are answered, and what is near."""

    keys: ClassVar[Mapping[str, str]] = {"problems": "code.problem_sets", "nearest": "code.nearest"}

    problems: ProblemsParams
    nearest: NearestParams


@dataclass(frozen=True)
class Match:
    """The training example nearest to a problem, and the cosine between them."""

    example: Problem
    similarity: float


def run(context: Context[Params]) -> None:
    """Make samples.jsonl for the sets that are made here; other sets have no training examples.

    Raises:
        InputError: problems or training examples are missing or damaged.
    """
    params, inputs = context.params, context.inputs
    samples: list[dict[str, Any]] = []
    for name in params.problems.sets:
        side = _training(params.problems.settings[name])
        if side is None:
            continue
        file: Path = inputs["problems"] / f"{name}.jsonl"
        problems = read_problems(file)
        matches = nearest(problems, read_problems(inputs[side]), params.nearest)
        samples += [_sample(*pair) for pair in zip(problems, matches, strict=True)]
        context.read[file.as_posix()] = path_hash(file)
        context.counts[name] = {"mean_similarity": round(sum(match.similarity for match in matches) / len(matches), 6)}
    write_lines(context.outputs["samples"], samples)
    context.counts["samples"] = len(samples)


def _training(params: ProblemSetParams) -> str | None:
    """The input with a set's training examples."""
    if params.source is ProblemSource.MICRO:
        return "micro"
    if params.maths is not None and params.maths.source is MathSource.ARITHMETIC:
        return "arithmetic"
    return None


def nearest(problems: Sequence[Problem], examples: Sequence[Problem], params: NearestParams) -> list[Match]:
    """The example nearest to each problem; the first one of several that are as near."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to import

    vectorizer = TfidfVectorizer(
        token_pattern=_WORD,
        ngram_range=(params.shortest, params.longest),
        sublinear_tf=params.sublinear,
        lowercase=False,
    )
    known = vectorizer.fit_transform([_request(example, params) for example in examples])
    asked = vectorizer.transform([_request(problem, params) for problem in problems])
    cosines = (asked @ known.T).toarray()  # rows have length 1
    return [Match(examples[row.argmax()], round(float(row.max()), 6)) for row in cosines]


def _request(problem: Problem, params: NearestParams) -> str:
    return _renamed(problem.request, problem, _NAME) if params.hide_names else problem.request


def _renamed(text: str, problem: Problem, name: str) -> str:
    """A text of a problem with another name for its function."""
    return re.sub(rf"\b{re.escape(problem.entry_point)}\b", name, text) if problem.entry_point else text


def _sample(problem: Problem, match: Match) -> dict[str, Any]:
    """A row as a model's answer has it; its tokens are words, since there is no tokenizer."""
    text = _renamed(match.example.canonical_solution, match.example, problem.entry_point)
    return {
        "set": problem.set,
        "task_id": problem.task_id,
        "cell": CELL,
        "prompt_tokens": 0,
        "prefill": "",
        "text": text,
        "ids": [],
        "tokens": len(re.findall(_WORD, text)),
        "forwards": 0,
        "positions": 0,
        "ended": True,
        "example": match.example.task_id,
        "similarity": match.similarity,
    }


STAGE = Stage(
    name="nearest",
    params=Params,
    run=run,
    collections=("problems",),
    inputs={
        "check": "data/check/valid.json",
        "micro": "data/code/micro/train.jsonl",
        "arithmetic": "data/code/micro/arithmetic_train.jsonl",
        "problems": "data/code/problems",
    },
    outputs={
        "samples": "data/code/samples/nearest/train/samples.jsonl",
        "manifest": "data/code/samples/nearest/train/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
