"""Sets of maths problems: GSM8K, MATH-500 and others by the names of their fields, and the arithmetic made here."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoring.problems import Problem, read_problems
from softmask.errors import InputError
from stages.params.code.math_problems import MathFieldsParams, MathSetParams, MathSource
from stages.sources.code_problems import WHERE, Draft, How
from stages.sources.records import Record, file_records, hub_records, text_of


def math_problems(name: str, params: MathSetParams, arithmetic: Path) -> list[Draft]:
    """The problems of one set, in the source's order.

    Args:
        name: of the set.
        params: where they come from.
        arithmetic: the test problems that the stage `arithmetic` has made.

    Raises:
        InputError: the source can't be read, or has a record without question or answer.
    """
    if params.source is MathSource.ARITHMETIC:
        made = (problem.model_copy(update={"set": name}) for problem in read_problems(arithmetic))
        return [Draft(problem, How.AS_IS) for problem in made]
    assert params.fields is not None, "the params model asks for it"
    return [
        Draft(_problem(name, number, record, where, params.fields), How.AS_IS)
        for number, (where, record) in enumerate(_records(params))
    ]


def _records(params: MathSetParams) -> Iterator[Record]:
    if params.source is MathSource.FILE:
        return file_records(Path(str(params.file)), WHERE)
    assert params.hub is not None, "the params model asks for it"
    return hub_records(params.hub, WHERE)


def _problem(name: str, number: int, record: Mapping[str, Any], where: str, fields: MathFieldsParams) -> Problem:
    answer = text_of(record, fields.answer, where)
    if fields.answer_after is not None:
        _, found, answer = answer.rpartition(fields.answer_after)
        if not found:
            what = f"the field {fields.answer!r} has no {fields.answer_after!r}"
            raise InputError(what, where=where, expected="it before the answer")
    if not answer.strip():
        raise InputError(f"the field {fields.answer!r} has no answer", where=where, expected="a number or LaTeX")
    return Problem(
        set=name,
        task_id=f"{name}/{number}" if fields.task_id is None else text_of(record, fields.task_id, where),
        kind="math",
        request=text_of(record, fields.request, where).strip(),
        answer=answer.strip(),
    )
