"""EvalPlus's own verdict beside ours, on the same problem and solution."""

from collections.abc import Sequence
from typing import Any

from evalplus.eval import PASS, untrusted_check

from scoring import code_scoring, plain_data
from scoring.code_scoring import Judged
from scoring.sandbox import Sandbox
from tests.scoring.sandboxes import TestProblem

BOUNDS = plain_data.Bounds(size=2**30, nesting=100)


def problem(task_id: str, entry_point: str, inputs: Sequence[Any], expected: Sequence[Any], atol: float) -> TestProblem:
    """A problem from plain values."""
    return TestProblem(
        task_id=task_id,
        entry_point=entry_point,
        base_input=[encoded(arguments) for arguments in inputs],
        base_expected=[encoded(value) for value in expected],
        atol=atol,
    )


def encoded(value: object) -> Any:
    """The encoding of a trusted value."""
    return plain_data.encode(value, BOUNDS).data


def decoded(data: Any) -> Any:
    """A trusted value."""
    return plain_data.decode(data, BOUNDS)


def evalplus_passes(problem: TestProblem, solution: str, seconds: float) -> bool:
    """What EvalPlus 0.3.1 says; it runs the solution in a forked process of its own."""
    dataset = {"HumanEval": "humaneval", "Mbpp": "mbpp"}.get(problem.task_id.split("/")[0], "local")
    inputs = [decoded(data) for data in problem.base_input]
    wanted = [decoded(data) for data in problem.base_expected]
    times = [seconds / 4] * len(inputs)
    status, _ = untrusted_check(
        dataset,
        solution,
        inputs,
        problem.entry_point,
        wanted,
        problem.atol,
        times,
        fast_check=True,
        min_time_limit=seconds,
    )
    return bool(status == PASS)


def ours(problem: TestProblem, solution: str, sandbox: Sandbox) -> Judged:
    """What we say."""
    base = code_scoring.score(problem, solution, sandbox).base
    assert base is not None
    return base
