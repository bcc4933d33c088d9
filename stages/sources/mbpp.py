"""The original MBPP: a text, a program, and asserts, which become a check that calls the candidate."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from scoring.problems import Problem
from softmask.errors import InputError
from stages.params.code.problem_sets import MbppSetParams
from stages.sources.code_problems import WHERE, Draft, How
from stages.sources.records import Record, file_records, hub_records, text_of


def mbpp_problems(name: str, params: MbppSetParams) -> list[Draft]:
    """The problems in the order of their ids.

    Args:
        name: of the set.

    Raises:
        InputError: the source can't be read, lacks one of the ids, or a record is damaged.
    """
    where = f"{WHERE}.settings.{name}.mbpp"
    drafts: dict[int, Draft] = {}
    for place, record in _records(params, where):
        number = record.get("task_id")
        if type(number) is not int:
            raise InputError(f"the field 'task_id' has {number!r}", where=place, expected="a whole number")
        if params.first <= number <= params.last:
            drafts[number] = _draft(name, number, record, place, params)
    missing = [number for number in range(params.first, params.last + 1) if number not in drafts]
    if missing:
        raise InputError(
            f"the source lacks {len(missing)} of the task ids {params.first} to {params.last}, first {missing[0]}",
            where=where,
            todo="Check split, first and last",
        )
    return [drafts[number] for number in sorted(drafts)]


def _records(params: MbppSetParams, where: str) -> Iterator[Record]:
    if params.hub is not None:
        return hub_records(params.hub, where)
    return file_records(Path(str(params.file)), where)


def _draft(name: str, number: int, record: Mapping[str, Any], where: str, params: MbppSetParams) -> Draft:
    text, code = text_of(record, "text", where).strip(), text_of(record, "code", where).replace("\r\n", "\n")
    tests = record.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise InputError("the field 'test_list' has no asserts", where=where, expected="a list of texts")
    try:
        entry_point = entry_point_of(code, tests)
        check = check_of(code, str(record.get("test_setup_code") or ""), tests, entry_point)
    except SyntaxError as error:
        raise InputError(f"no Python: {error.msg} in {error.text!r}", where=where) from None
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, a lone surrogate; nested too deeply
        raise InputError(f"no Python: {error or 'nested too deeply'}", where=where) from None
    problem = Problem(
        set=name,
        task_id=f"Mbpp/{number}",
        kind="code",
        request=params.request.replace("{tests}", "\n".join(tests)).replace("{text}", text),
        prompt=f'"""\n{text}\n{tests[0]}\n"""\n',
        entry_point=entry_point,
        canonical_solution=code,
        check=check,
    )
    return Draft(problem, How.ORACLE, "has asserts")


def entry_point_of(code: str, tests: list[str]) -> str:
    """The function of the program that the asserts call.

    Raises:
        SyntaxError: program or asserts are no Python, or they call none of its functions.
    """
    defined = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
                return node.func.id
    raise SyntaxError("the asserts call no function of the program", (None, None, None, tests[0]))


def check_of(code: str, setup: str, tests: list[str], entry_point: str) -> str:
    """The source of a `check(candidate)`; the program comes along for the modules and classes that asserts name."""
    asserts = "\n".join(ast.unparse(ast.parse(test)) for test in tests)
    body = indent(f"global {entry_point}\n{entry_point} = candidate\n{asserts}", "    ")
    return "\n".join((code, setup.replace("\r\n", "\n"), f"def check(candidate):\n{body}\n"))
