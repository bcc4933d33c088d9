"""HumanEval through the real stages: all 164 reference solutions pass, and 164 broken ones fail."""

from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from artifacts.files import read_json, read_lines, write_lines
from runner.section import validate
from runner.stage import Context
from scoring.problems import Problem, read_problems
from stages import code_score, problems
from stages.params.code.scoring import ScoringParams
from tests.stages.tiny_problems import SANDBOX, WHEEL, context, problem_set, problems_context

pytestmark = pytest.mark.slow
SCORING: dict[str, Any] = {
    "extraction_lines": 200,
    "batch_size": 82,
    "workers": 2,
    "sandbox": SANDBOX,
    "math": {
        "float_rounding": 6,
        "numeric_precision": 15,
        "step_seconds": 5,
        "total_seconds": 30,
        "memory_mib": 1024,
    },
}
BROKEN = """def {name}(*arguments):
{reference}
    right = {name}(*arguments)
    if isinstance(right, bool):
        return not right
    if isinstance(right, (int, float)):
        return right + 1
    if isinstance(right, str):
        return right + "?"
    if isinstance(right, (list, tuple)):
        return [*right, None] if isinstance(right, list) else (*right, None)
    return 0 if right is None else None
"""
"""Gives another output than the reference, of the same type."""


def answer(problem: Problem, cell: str) -> dict[str, Any]:
    """A row of samples.jsonl: the program in a sentence and a code block, as models write it."""
    program = problem.reference
    if cell == "broken":
        program = BROKEN.format(name=problem.entry_point, reference=indent(problem.reference, "    "))
    return {
        "set": problem.set,
        "task_id": problem.task_id,
        "cell": cell,
        "text": f"Here is the function:\n```python\n{program}\n```\nIt works.",
        "tokens": 1,
        "forwards": 1,
        "positions": 1,
    }


def test_all_reference_solutions_pass_and_all_broken_ones_fail(tmp_path: Path) -> None:
    made = problems_context(tmp_path, {"humaneval": problem_set("wheel", WHEEL)})
    problems.run(made)
    asked = read_problems(made.outputs["problems"] / "humaneval.jsonl")
    params = code_score.Params(sets=["humaneval"], scoring=validate(ScoringParams, SCORING, "params.yaml"))
    scoring = context(code_score.STAGE, params, tmp_path)
    axes = {"family": "human", "model": "reference"}
    inputs = {name: Path(str(path).format(**axes)) for name, path in scoring.inputs.items()}
    outputs = {name: Path(str(path).format(**axes)) for name, path in scoring.outputs.items()}
    write_lines(inputs["samples"], [answer(problem, cell) for cell in ("reference", "broken") for problem in asked])
    code_score.run(Context(params, inputs, outputs, axes, scoring.checkpoints))
    verdicts = read_lines(outputs["verdicts"], ("task_id", "cell", "base", "plus"))
    wrong = [row for row in verdicts if (row["cell"] == "reference") != (row["base"] == "pass")]
    assert len(verdicts) == 328 and wrong == []
    cells = {cell["cell"]: cell for cell in read_json(outputs["metrics"])["cells"]}
    assert cells["reference"]["pass_base"] == 1 and cells["broken"]["pass_base"] == 0
    assert cells["reference"]["problems"] == cells["broken"]["problems"] == 164
