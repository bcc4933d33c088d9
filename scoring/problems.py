"""The record of a problem: EvalPlus's fields, the expected outputs, and what maths problems need. Scores nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from softmask.errors import InputError


class Problem(BaseModel):
    """A problem that a model is asked to solve.

    Inputs and expected outputs are `plain_data` encodings. A problem of kind `code` has inputs or a `check`; one of
    kind `math` has an `answer`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    set: str
    """Problem set that it belongs to."""
    task_id: str
    """Its name, unique in its set. EvalPlus's special rules go by the part before the slash."""
    kind: Literal["code", "math"]
    request: str = Field(min_length=1)
    """What the user asks, in English."""
    prompt: str = ""
    """code: what EvalPlus's record begins the program with: signature and docstring, or a docstring alone."""
    entry_point: str = ""
    """code: the function that is called."""
    canonical_solution: str = ""
    """code: with `prompt` before it a right program, see `reference`; math: a worked answer, if there is one."""
    contract: str = ""
    """code: EvalPlus's assertions on inputs; kept, not used."""
    base_input: list[Any] = []
    """code: arguments of each call."""
    plus_input: list[Any] = []
    """code: arguments of each call that EvalPlus adds."""
    atol: float = 0.0
    """code: absolute tolerance of floats."""
    check: str | None = None
    """code: trusted source of a `check(candidate)` in place of `base_input`."""
    base_expected: list[Any] = []
    """code: the reference solution's outputs; empty in a record that isn't to be scored."""
    plus_expected: list[Any] = []
    """code: the reference solution's outputs."""
    answer: str | None = None
    """math: the right answer."""
    structure: str | None = None
    """Name of a micro problem's structure."""

    @property
    def reference(self) -> str:
        """The reference solution as a whole program."""
        return self.prompt + self.canonical_solution

    @property
    def signature(self) -> str:
        """`prompt` without the docstring of the function that is asked for, where that has lines of its own."""
        try:
            tree = ast.parse(f"{self.prompt}\n    pass\n")
        except SyntaxError:  # no function's beginning
            return self.prompt
        lines = self.prompt.splitlines(keepends=True)
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=self.entry_point, body=[ast.Expr(ast.Constant(str())) as doc, *_]):
                    if doc.end_lineno is not None and not lines[doc.lineno - 1][: doc.col_offset].strip():
                        return "".join(lines[: doc.lineno - 1] + lines[doc.end_lineno :])
        return self.prompt

    def texts(self) -> dict[str, str]:
        """What a template's placeholders stand for."""
        return {"request": self.request, "prompt": self.prompt, "signature": self.signature}

    def record(self) -> dict[str, Any]:
        """What is written: without the fields that are null."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "math":
            if not self.answer:
                raise ValueError("a problem of kind 'math' has no answer")
            return self
        if not self.entry_point:
            raise ValueError("a problem of kind 'code' has no entry_point")
        if (self.check is None) != bool(self.base_input):
            raise ValueError("a problem of kind 'code' has either base_input or a check")
        for part, inputs, outputs in (
            ("base", self.base_input, self.base_expected),
            ("plus", self.plus_input, self.plus_expected),
        ):
            if outputs and len(outputs) != len(inputs):
                raise ValueError(f"{len(outputs)} {part}_expected for {len(inputs)} {part}_input")
        return self


def read_problems(path: Path) -> list[Problem]:
    """The problems in a JSON lines file, in its order.

    Raises:
        InputError: the file is missing, empty, or a line is no problem or has a task_id for the second time; says
            which.
    """
    problems: dict[str, Problem] = {}
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        try:
            problem = Problem.model_validate_json(line)
        except ValidationError as error:
            raise InputError(_complaint(error), where=where, expected="a problem") from None
        if problem.task_id in problems:
            raise InputError(f"task_id {problem.task_id!r} is there twice", where=where)
        problems[problem.task_id] = problem
    if not problems:
        raise InputError("the file has no problem", where=str(path))
    return list(problems.values())


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
