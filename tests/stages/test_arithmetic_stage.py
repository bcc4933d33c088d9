"""The arithmetic stage: its records, its counts, and what params can't ask for."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.files import read_lines
from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from scoring.math_scoring import MathOutcome, MathScorer, MathSettings
from softmask.errors import InputError
from stages.arithmetic import Params, run
from stages.params.code.arithmetic import ArithmeticParams

VALUES: dict[str, Any] = {
    "seed": 3,
    "train": 40,
    "test": 12,
    "operations": ["add", "subtract", "multiply", "add_subtract"],
    "largest": 12,
    "largest_factor": 6,
    "largest_step": 5,
    "held_out": 0.2,
    "plain": 0.5,
}
FIELDS = ("set", "task_id", "kind", "request", "answer", "canonical_solution")


def params(**changes: Any) -> Params:
    return Params(arithmetic=validate(ArithmeticParams, {**VALUES, **changes}, "params.yaml"))


def make(folder: Path) -> Context[Params]:
    names = ("train", "test")
    outputs = {**{name: folder / f"{name}.jsonl" for name in names}, "manifest": folder / "manifest.json"}
    context = Context(params(), {}, outputs, {}, Checkpoints(folder / "store", "key"))
    run(context)
    return context


def test_records_are_math_problems_with_their_own_ids(tmp_path: Path) -> None:
    context = make(tmp_path)
    rows = [row for name in ("train", "test") for row in read_lines(context.outputs[name], FIELDS)]
    assert len(rows) == 52 and {row["kind"] for row in rows} == {"math"}
    assert len({row["task_id"] for row in rows}) == len({row["request"] for row in rows}) == 52
    assert sum(context.counts["train"].values()) == 40 and sum(context.counts["test"].values()) == 12


def test_the_worked_answers_are_right_by_the_real_scorer(tmp_path: Path) -> None:
    settings = MathSettings(float_rounding=6, numeric_precision=15, step_seconds=5, total_seconds=20, memory_mib=1024)
    with MathScorer(settings) as scorer:
        for row in read_lines(make(tmp_path).outputs["test"], FIELDS):
            assert scorer.outcome(row["answer"], row["canonical_solution"]) is MathOutcome.PASS
            assert scorer.outcome(str(int(row["answer"]) + 1), row["canonical_solution"]) is MathOutcome.FAIL


def test_the_same_params_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name).outputs["train"] for name in ("a", "b"))
    assert path_hash(first) == path_hash(second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": 10**6}, r"test 1000000 is more than the \d+ distinct problems"),
        ({"train": 10**7}, r"train 10000000 is more than the \d+ distinct problems"),
        ({"operations": ["add", "add"]}, "names one twice"),
        ({"operations": []}, "operations"),
        ({"operations": ["divide"]}, "'divide' is wrong"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_impossible_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        params(**changes)
