"""Score one model's answers: run the programs in the sandbox, judge maths answers; needs no model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

from tqdm import tqdm

from artifacts.files import read_lines, write_json, write_lines
from artifacts.hashing import path_hash
from runner.stage import Context, Stage, StageParams
from scoring.code_scoring import Judged, Score, Verdict, extract, score
from scoring.math_scoring import MathScorer, MathSettings
from scoring.problems import Problem, read_problems
from scoring.sandbox import Sandbox
from softmask.errors import InputError
from stages.params.code.math import MathParams
from stages.params.code.scoring import ScoringParams
from stages.shared.sandboxes import Workers, sandboxes

FIELDS = ("set", "task_id", "cell", "text", "tokens", "forwards", "positions")
Row = dict[str, Any]


class Params(StageParams):
    """What verdicts depend on, beside answers and problems."""

    keys: ClassVar[Mapping[str, str]] = {"sets": "code.problem_sets.sets", "scoring": "code.scoring"}

    sets: list[str]
    """Problem sets."""
    scoring: ScoringParams


@dataclass(frozen=True)
class Task:
    """A solution to be judged; the same one is judged once, whatever cell it comes from."""

    problem: Problem
    solution: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same."""
        return (self.problem.set, self.problem.task_id, self.solution)


def run(context: Context[Params]) -> None:
    """Make verdicts.jsonl and metrics.json; each batch of answers is a unit that a killed run keeps.

    Raises:
        InputError: the sandbox can't be had here, or answers and problems are damaged or don't fit each other.
    """
    scoring, inputs = context.params.scoring, context.inputs
    files = {name: inputs["problems"] / f"{name}.jsonl" for name in context.params.sets}
    problems = {name: {problem.task_id: problem for problem in read_problems(file)} for name, file in files.items()}
    answers = read_lines(inputs["samples"], FIELDS)
    asked = [_problem(problems, answer, f"{inputs['samples']}, line {n}") for n, answer in enumerate(answers, start=1)]
    used = {answer["set"] for answer in answers}
    context.read.update({file.as_posix(): path_hash(file) for name, file in files.items() if name in used})
    checkpoints = context.checkpoints.bound_to(context.read)
    verdicts: list[Row] = []
    label = f"verdicts on {context.axes['family']}/{context.axes['model']}"
    with (
        sandboxes(scoring.sandbox, scoring.workers) as workers,
        MathScorer(_math_settings(scoring.math)) as maths,
        tqdm(total=len(answers), unit="answer", desc=label) as bar,
    ):
        scorer = Scorer(scoring, workers, maths)
        for start in range(0, len(answers), scoring.batch_size):
            batch = slice(start, start + scoring.batch_size)
            made = checkpoints.unit(f"{start}", partial(scorer.rows, answers[batch], asked[batch]))
            scorer.remember(made)
            verdicts += made
            bar.update(len(made))
    write_lines(context.outputs["verdicts"], verdicts)
    write_json(context.outputs["metrics"], {**_identity(context.axes), "cells": metrics(answers, verdicts)})
    programs = {(row["set"], row["task_id"], row["solution"]) for row in verdicts}
    context.counts.update({"answers": len(answers), "solutions": len(programs)})


@dataclass
class Scorer:
    """Judges answers; remembers what it has judged."""

    params: ScoringParams
    workers: Workers
    maths: MathScorer
    known: dict[tuple[str, str, str], Row] = field(default_factory=dict)

    def remember(self, rows: Iterable[Row]) -> None:
        """Verdicts that need not be made again."""
        for row in rows:
            verdict = {name: row[name] for name in ("base", "plus", "detail")}
            self.known[(row["set"], row["task_id"], row["solution"])] = verdict

    def rows(self, answers: Sequence[Row], problems: Sequence[Problem]) -> list[Row]:
        """The rows of verdicts.jsonl for some answers and the problem that each answers."""
        tasks = [Task(*pair) for pair in zip(problems, self._solutions(answers, problems), strict=True)]
        new = {task.key: task for task in tasks if task.key not in self.known}
        programs = [task for task in new.values() if task.problem.kind == "code"]
        for task, made in zip(programs, self.workers.map(_run, programs, _too_costly), strict=True):
            self.known[task.key] = _verdict(made)
        for task in new.values():
            if task.problem.kind == "math":
                self.known[task.key] = _verdict(self._calculate(task))
        return [
            {"set": answer["set"], "task_id": answer["task_id"], "cell": answer["cell"], "solution": task.solution}
            | self.known[task.key]
            for answer, task in zip(answers, tasks, strict=True)
        ]

    def _solutions(self, answers: Sequence[Row], problems: Sequence[Problem]) -> list[str]:
        """What is judged of each answer: a program, or the whole text of one to a maths problem."""
        texts = [str(answer.get("prefill", "") + answer["text"]) for answer in answers]
        asked = [(text, problem.entry_point) for text, problem in zip(texts, problems, strict=True)]
        extracted = self.workers.map(partial(_extract, self.params.extraction_lines), asked, lambda pair: pair[0])
        return list(extracted)

    def _calculate(self, task: Task) -> Score:
        return Score(Judged(Verdict(self.maths.outcome(str(task.problem.answer), task.solution).value)), None)


def metrics(answers: Sequence[Row], verdicts: Sequence[Row]) -> list[Row]:
    """The row of metrics.json for each set at each cell, in the order of the answers."""
    cells: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
    for answer, verdict in zip(answers, verdicts, strict=True):
        cells.setdefault((answer["set"], answer["cell"]), []).append((answer, verdict))
    return [
        {
            "set": name,
            "cell": cell,
            "problems": len(rows),
            "pass_base": _share([verdict["base"] and verdict["base"] == Verdict.PASS for _, verdict in rows]),
            "pass_plus": _share([_passes_plus(verdict) for _, verdict in rows]),
            "empty_share": fmean(answer["tokens"] == 0 for answer, _ in rows),
            **{
                f"{count}_mean": fmean(answer[count] for answer, _ in rows)
                for count in ("forwards", "positions", "tokens")
            },
        }
        for (name, cell), rows in cells.items()
    ]


def _extract(most_lines: int, asked: tuple[str, str], sandbox: Sandbox) -> str:
    text, entry_point = asked
    return extract(text, entry_point, most_lines) if entry_point else text


def _run(task: Task, sandbox: Sandbox) -> Score:
    return score(task.problem, task.solution, sandbox)


def _too_costly(task: Task) -> Score:
    """For outputs that were made to cost time and memory, before anything is known of the plus tests."""
    judged = Judged(Verdict.LIMIT, "looking at its outputs took too long, or too much memory")
    return Score(judged, judged if task.problem.plus_input else None)


def _verdict(made: Score) -> Row:
    parts = {"base": made.base, "plus": made.plus}
    details = [f"{name}: {part.detail}" for name, part in parts.items() if part and part.verdict is not Verdict.PASS]
    return {name: part and part.verdict.value for name, part in parts.items()} | {"detail": "; ".join(details)}


def _passes_plus(verdict: Row) -> bool | None:
    """EvalPlus's rule: the plus tests take the base ones in. None where there are none."""
    return verdict["plus"] and verdict["plus"] == Verdict.PASS and verdict["base"] in (None, Verdict.PASS)


def _share(passes: Sequence[bool | None]) -> float | None:
    known = [passed for passed in passes if passed is not None]
    return fmean(known) if known else None


def _problem(problems: Mapping[str, Mapping[str, Problem]], answer: Row, where: str) -> Problem:
    name, task_id = answer["set"], answer["task_id"]
    if name not in problems:
        raise InputError(f"the set {name!r} is unknown", where=where, expected=f"one of {', '.join(problems)}")
    if task_id not in problems[name]:
        todo = "Make the answers again: dvc repro"
        raise InputError(f"the set {name!r} has no problem {task_id!r}", where=where, todo=todo)
    return problems[name][task_id]


def _identity(axes: Mapping[str, str]) -> Row:
    """Whose answers these are; an arm's model is named by the arm and the seed."""
    trained = re.fullmatch(r"(.+)-(\d{1,9})", axes["model"])
    arm, seed = (trained[1], int(trained[2])) if trained else (axes["model"], None)
    return {"family": axes["family"], "model": axes["model"], "arm": arm, "seed": seed}


def _math_settings(params: MathParams) -> MathSettings:
    return MathSettings(**params.model_dump())


STAGE = Stage(
    name="code_score",
    params=Params,
    run=run,
    axes=("family", "model"),
    collections=("problems",),
    inputs={
        "check": "data/check/valid.json",
        "problems": "data/code/problems",
        "samples": "data/code/samples/{family}/{model}/samples.jsonl",
    },
    outputs={
        "verdicts": "data/code/scores/{family}/{model}/verdicts.jsonl",
        "metrics": "data/code/scores/{family}/{model}/metrics.json",
        "manifest": "data/code/scores/{family}/{model}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
