"""Verdicts on generated programs by EvalPlus's rules, compared here, outside the process that ran the program.

Extraction and the rules' constants are EvalPlus's own (evalplus 0.3.1: `sanitize`, `eval.unsafe_execute`). Knows no
files and no models.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, combinations
from typing import Any, Protocol

import numpy as np
from evalplus.eval import is_floats
from evalplus.eval._special_oracle import (
    MBPP_OUTPUT_NOT_NONE_TASKS,
    MBPP_OUTPUT_SET_EQ_TASKS,
    _digit_distance_nums,
    _poly,
    _surface_Area,
)

from scoring import plain_data
from scoring.sandbox import Answer, Outcome, Program, Record, Sandbox

FLOAT_ATOL = 1e-6
"""EvalPlus's tolerance where a problem has none and floats are expected."""
FLOAT_RTOL = 1e-07


class CodeProblem(Protocol):
    """What scoring needs of a problem; `scoring.problems.Problem` is one.

    Inputs and expected values are `plain_data` encodings, one a call.
    """

    @property
    def task_id(self) -> str:
        """Its name; the part before the slash says whose special rules apply."""

    @property
    def entry_point(self) -> str:
        """The function that is called."""

    @property
    def base_input(self) -> Sequence[Any]:
        """Arguments of each call."""

    @property
    def plus_input(self) -> Sequence[Any]:
        """Arguments of each call that EvalPlus adds."""

    @property
    def base_expected(self) -> Sequence[Any]:
        """The reference solution's outputs."""

    @property
    def plus_expected(self) -> Sequence[Any]:
        """The reference solution's outputs."""

    @property
    def atol(self) -> float:
        """Absolute tolerance."""

    @property
    def check(self) -> str | None:
        """Source of a `check(candidate)` that takes the place of base inputs."""


class Verdict(StrEnum):
    """What became of an answer; only PASS is right."""

    PASS = "pass"
    FAIL = "fail"
    """A wrong output."""
    ERROR = "error"
    """An exception, or no such function."""
    TIMEOUT = "timeout"
    LIMIT = "limit"
    """Too much memory or output, or outputs that are too costly to look at."""


@dataclass(frozen=True)
class Judged:
    """A verdict and, for people, the input and reason that decided it."""

    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Score:
    """The verdicts on one solution; None for a part that the problem doesn't have."""

    base: Judged | None
    plus: Judged | None


class _Rules(StrEnum):
    """Whose special oracles apply."""

    NONE = ""
    HUMANEVAL = "HumanEval"
    MBPP = "Mbpp"

    @classmethod
    def of(cls, task_id: str) -> "_Rules":
        owner = task_id.split("/")[0]
        return cls(owner) if owner in (cls.HUMANEVAL, cls.MBPP) else cls.NONE


def extract(text: str, entry_point: str, most_lines: int) -> str:
    """The program in an answer: EvalPlus's `sanitize`, which keeps the longest run of lines that parses.

    Args:
        text: the answer from its beginning, with what it was begun with.
        entry_point: the function that the program must have; what it doesn't use is left out.
        most_lines: lines that are looked at, because `sanitize` tries every pair of them; blank lines, which an
            undertrained model writes without end, go first.
    """
    from evalplus import sanitize as evalplus  # brings pandas along

    evalplus.code_extract = _longest_program
    if text.count("\n") >= most_lines:
        text = "\n".join([line for line in text.split("\n") if line.strip()][:most_lines])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the parser thinks of generated code
        try:
            return str(evalplus.sanitize(text, entry_point))
        except Exception:  # whatever it stumbles on in hostile text, such as a null byte
            return text


def _longest_program(text: str) -> str:
    """What EvalPlus's `code_extract` gives, which tries every pair of lines: here the longest run comes first."""
    from evalplus.syncheck import syntax_check

    lines = text.split("\n")
    filled = [0, *accumulate(bool(line.strip()) for line in lines)]
    runs = [(first, last + 1) for first, last in combinations(range(len(lines)), 2)]
    for first, end in sorted(runs, key=lambda run: filled[run[0]] - filled[run[1]]):  # of the same length as they were
        if filled[end] > filled[first] and syntax_check(part := "\n".join(lines[first:end])):
            return part
    return lines[0]


def score(problem: CodeProblem, solution: str, sandbox: Sandbox) -> Score:
    """Run a solution and judge it.

    Args:
        solution: the whole program.

    Raises:
        InputError: the sandbox can't be had here.
    """
    if problem.check is not None:
        return Score(check(problem.check, problem.entry_point, solution, sandbox), None)
    base = _part(problem, problem.base_input, problem.base_expected, solution, sandbox)
    return Score(base, _part(problem, problem.plus_input, problem.plus_expected, solution, sandbox))


def check(oracle: str, entry_point: str, solution: str, sandbox: Sandbox) -> Judged:
    """The verdict of an oracle, which calls the solution from a process of its own."""
    outcome = sandbox.check(Program(solution, entry_point, ()), oracle)
    if outcome.passed:
        return Judged(Verdict.PASS)
    if outcome.trouble is None:
        return Judged(Verdict.FAIL, outcome.detail)
    return Judged(Verdict(outcome.trouble.answer.value), outcome.trouble.detail)


def program(problem: CodeProblem, source: str, inputs: Sequence[Any]) -> Program:
    """A solution as the sandbox runs it: one process for a part's inputs, as EvalPlus does."""
    collect = _Rules.of(problem.task_id) is _Rules.MBPP and problem.entry_point in MBPP_OUTPUT_SET_EQ_TASKS
    return Program(source, problem.entry_point, tuple(inputs), collect)


def expected(problem: CodeProblem, source: str, inputs: Sequence[Any], sandbox: Sandbox) -> list[Any]:
    """The encoded outputs of a reference solution, as `base_expected` and `plus_expected` want them.

    Raises:
        ValueError: it gives no plain output for some input; says which.
        InputError: the sandbox can't be had here.
    """
    outcome = sandbox.run(Program(source, problem.entry_point, tuple(inputs)))
    not_none = _only_not_none(problem)
    for number, record in enumerate(outcome.records):
        if not (record.answer is Answer.VALUE or (record.answer is Answer.OPAQUE and not_none)):
            raise ValueError(f"input {number}: {record.answer.value} {record.detail}".rstrip())
    if not_none:
        return [record.answer is Answer.OPAQUE or record.value is not None for record in outcome.records]
    return [record.data for record in outcome.records]


def judge(problem: CodeProblem, inputs: Sequence[Any], wanted: Sequence[Any], outcome: Outcome) -> Judged:
    """The verdict on the outputs of `program`: the first input that isn't right decides.

    Args:
        inputs: arguments of each call, encoded.
        wanted: expected outputs, encoded.
    """
    comparison = _Comparison(problem)
    for number, record in enumerate(outcome.records):
        if record.answer not in (Answer.VALUE, Answer.OPAQUE):
            return Judged(Verdict(record.answer.value), f"input {number}: {record.detail}")
        if not comparison.right(_trusted(inputs[number]), record, _trusted(wanted[number])):
            return Judged(Verdict.FAIL, f"input {number}")
    return Judged(Verdict.PASS)


def _part(
    problem: CodeProblem, inputs: Sequence[Any], wanted: Sequence[Any], solution: str, sandbox: Sandbox
) -> Judged | None:
    if not inputs:
        return None
    return judge(problem, inputs, wanted, sandbox.run(program(problem, solution, inputs)))


def _trusted(data: Any) -> Any:
    return plain_data.decode(data, plain_data.Bounds(size=2**40, nesting=200))


def _only_not_none(problem: CodeProblem) -> bool:
    return _Rules.of(problem.task_id) is _Rules.MBPP and problem.entry_point in MBPP_OUTPUT_NOT_NONE_TASKS


class _Opaque:
    """An output that is no plain data: equal to nothing, and not None."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False


class _Comparison:
    """EvalPlus's comparison (`unsafe_execute`), line by line, of values that run no code."""

    def __init__(self, problem: CodeProblem) -> None:
        self._rules, self._entry_point = _Rules.of(problem.task_id), problem.entry_point
        self._atol = problem.atol
        """Of this part from here on: the first floats that are expected raise it."""

    def right(self, arguments: Any, record: Record, wanted: Any) -> bool:
        """Whether an output is the expected one. `arguments` are fresh, whatever the program has done to its own."""
        output = record.value if record.answer is Answer.VALUE else _Opaque()
        try:
            if self._rules is _Rules.HUMANEVAL and self._entry_point == "find_zero":
                # as in EvalPlus after 0.3.1, which forgets to count this problem's inputs and fails every program
                return bool(abs(_poly(*arguments, output)) <= self._atol)
            exact = self._equal(arguments, output, wanted)
            if self._atol == 0 and is_floats(wanted):
                self._atol = FLOAT_ATOL
            if exact or self._atol == 0:
                return exact
            return record.exact and self._close(output, wanted)
        except Exception:  # the output's type or size doesn't fit: EvalPlus lets that fail, too
            return False

    def _equal(self, arguments: Any, output: Any, wanted: Any) -> bool:
        exact = bool(output == wanted)
        if self._rules is not _Rules.MBPP:
            return exact
        if self._entry_point in MBPP_OUTPUT_SET_EQ_TASKS:
            return bool(output == set(wanted))
        if self._entry_point in MBPP_OUTPUT_NOT_NONE_TASKS:
            return bool(output == wanted if isinstance(output, bool) else wanted == (output is not None))
        if self._entry_point == "are_equivalent":
            return True
        if self._entry_point == "sum_div":
            return bool(exact or output == 0)
        if self._entry_point == "surface_Area":
            return bool(exact or abs(output - _surface_Area(*arguments)) <= self._atol)
        if self._entry_point == "digit_distance_nums":
            return bool(exact or output == _digit_distance_nums(*arguments))
        return exact

    def _close(self, output: Any, wanted: Any) -> bool:
        if type(output) is not type(wanted) or not (_numeric(output) and _numeric(wanted)):
            return False
        if isinstance(wanted, list | tuple) and len(output) != len(wanted):
            return False
        return bool(np.allclose(output, wanted, rtol=FLOAT_RTOL, atol=self._atol))


def _numeric(value: Any) -> bool:
    """Numbers, or lists of them: what `np.allclose` can compare. Text is kept from it: arrays of it can be huge."""
    if isinstance(value, list | tuple):
        return all(map(_numeric, value))
    return isinstance(value, int | float | complex)
