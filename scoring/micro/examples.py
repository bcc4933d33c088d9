"""The inputs that a small problem is tested with: those that tell its reference from wrong programs close to it.

Knows no wording. The reference and the wrong programs are made here and trusted.
"""

import ast
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from scoring.micro.operations import Kind, Slot
from scoring.micro.structures import BETWEEN, function_of

Arguments = tuple[Any, ...]
_RAISES = "raises"
_NUMBERS = range(-20, 46)
"""In lists."""
_ALONE = range(-40, 121)
_TOGETHER = range(-12, 25)
_FILLERS = ("stone", "tree", "Rain", "noise at sea", "a", "onto", "arise", "test rest", "nest", "Oat")
_LETTERS = "aeiostrnxyz"


@dataclass(frozen=True)
class Examples:
    """Arguments of each call, few and more; a correct program passes all."""

    base: tuple[Arguments, ...]
    plus: tuple[Arguments, ...]


def examples_for(
    solution: str,
    entry_point: str,
    takes: Sequence[Kind],
    constants: Mapping[Slot, Sequence[str]],
    base: int,
    plus: int,
) -> Examples | None:
    """Choose inputs; the same arguments give the same ones.

    Args:
        solution: the reference.
        entry_point: its function.
        takes: kinds of its arguments.
        constants: those in the solution, so that inputs lie on both sides of each and on it.
        base, plus: how many inputs of each part, at most.

    Returns:
        None if the reference gives the same result for all inputs: nothing is asked of such a program.
    """
    choice = random.Random(f"{solution} examples")
    function = function_of(solution, entry_point)
    pool = [given for given in _pool(takes, constants, choice) if _result(function, given) != _RAISES]
    results = [_result(function, given) for given in pool]
    if len(set(results)) < 2:
        return None
    chosen = _varied(results, base)
    for wrong in mutants(solution):
        telling = _telling(function_of(wrong, entry_point), pool, results)
        if telling and not telling & set(chosen):
            chosen.append(min(telling))
    rest = [place for place in range(len(pool)) if place not in set(chosen)]
    chosen += rest[: max(0, base + plus - len(chosen))]
    return Examples(tuple(pool[i] for i in chosen[:base]), tuple(pool[i] for i in chosen[base:]))


def _varied(results: Sequence[str], count: int) -> list[int]:
    """The first inputs of distinct results, then any."""
    first = {result: place for place, result in reversed(list(enumerate(results)))}
    distinct = sorted(first.values())
    return (distinct + [place for place in range(len(results)) if place not in set(distinct)])[:count]


def _telling(wrong: Callable[..., Any], pool: Sequence[Arguments], results: Sequence[str]) -> set[int]:
    """The inputs for which a wrong program gives another result."""
    return {
        place
        for place, (given, result) in enumerate(zip(pool, results, strict=True))
        if _result(wrong, given) != result
    }


def _result(function: Callable[..., Any], given: Arguments) -> str:
    """What a program returns, as text; no operation changes its arguments."""
    try:
        return repr(function(*given))
    except Exception:  # a wrong program may raise anything
        return _RAISES


# Inputs


def _pool(takes: Sequence[Kind], constants: Mapping[Slot, Sequence[str]], choice: random.Random) -> Iterator[Arguments]:
    """Distinct inputs in random order, those at the edges among them."""
    pools = [_OF_KIND[kind](constants, choice) for kind in takes]
    if len(takes) > 1:
        pools = [choice.sample(_TOGETHER, 20) for _ in takes]  # every operation on two arguments takes numbers
    inputs = {repr(given): given for given in product(*pools)}
    shuffled = [inputs[key] for key in sorted(inputs)]
    choice.shuffle(shuffled)
    return iter(shuffled)


def _numbers(constants: Mapping[Slot, Sequence[str]]) -> list[int]:
    return [int(text) for slot in (Slot.NUMBER, Slot.COUNT) for text in constants.get(slot, ())]


def _snippets(constants: Mapping[Slot, Sequence[str]]) -> list[str]:
    return [text for slot in (Slot.LETTER, Slot.SNIPPET) for text in constants.get(slot, ())]


def _ints(constants: Mapping[Slot, Sequence[str]], choice: random.Random) -> list[Any]:
    return list(_ALONE)


def _texts(constants: Mapping[Slot, Sequence[str]], choice: random.Random) -> list[Any]:
    texts = ["", *_FILLERS]
    for snippet in _snippets(constants):
        for filler in choice.sample(_FILLERS, 3):
            texts += [snippet, snippet + filler, filler + snippet, filler + snippet + filler + snippet]
    for number in _numbers(constants):
        texts += [_letters(choice, max(0, number + shift)) for shift in (-1, 0, 1, 2)]
    return [*texts, *(_letters(choice, length) for length in (3, 7, 12))]


def _int_lists(constants: Mapping[Slot, Sequence[str]], choice: random.Random) -> list[Any]:
    around = [number + shift for number in _numbers(constants) for shift in (-1, 0, 1)]
    lists: list[list[int]] = [[], [2, 2], [-5, 4, -1], *([number] for number in _NUMBERS)]
    for length in (2, 3, 3, 4, 5, 6, 8, 9):
        lists.append([choice.choice(_NUMBERS) for _ in range(length)])
        lists.append([choice.choice([*around, choice.choice(_NUMBERS)]) for _ in range(length)])
        lists.append([choice.choice(range(21, 40)) for _ in range(length)])
    for number in _NUMBERS:
        lists += [[number, choice.choice(_NUMBERS)], [number, number - choice.choice(range(1, 13))]]
    return lists


def _word_lists(constants: Mapping[Slot, Sequence[str]], choice: random.Random) -> list[Any]:
    lengths = [max(1, number + shift) for number in _numbers(constants) for shift in (-1, 0, 1)] or [2, 4, 5]
    lists: list[list[str]] = [[], ["a"], ["tie", "two", "a"], ["no", "tree", "rest"]]
    for count in (1, 2, 3, 4, 5):
        lists.append([_letters(choice, choice.choice(lengths)) for _ in range(count)])
        lists.append([_letters(choice, choice.choice(range(1, 9))) for _ in range(count)])
    return lists


def _letters(choice: random.Random, length: int) -> str:
    return "".join(choice.choice(_LETTERS) for _ in range(length))


_OF_KIND: Mapping[Kind, Callable[[Mapping[Slot, Sequence[str]], random.Random], list[Any]]] = {
    Kind.INT: _ints,
    Kind.TEXT: _texts,
    Kind.INTS: _int_lists,
    Kind.WORDS: _word_lists,
}


# Wrong programs

_SWAPS: Mapping[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mod, ast.Mult),
    ast.Mod: (ast.FloorDiv,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.In: (ast.NotIn,),
}
_NAMES: Mapping[str, tuple[str, ...]] = {"max": ("min",), "min": ("max",), "all": ("any",), "sum": ("len",)}


def mutants(solution: str) -> list[str]:
    """Programs that differ from a solution in one operator, name or constant, or leave an operation out."""
    count = sum(len(changes) for changes in _all_changes(ast.parse(solution)))
    return [_mutant(solution, number) for number in range(count)]


def _mutant(solution: str, number: int) -> str:
    tree = ast.parse(solution)
    changes = [change for of_node in _all_changes(tree) for change in of_node]
    changes[number]()
    return ast.unparse(tree)


def _all_changes(tree: ast.Module) -> list[list[Callable[[], None]]]:
    """What can be changed at each node."""
    nodes = list(ast.walk(tree))
    given = [node.arg for node in nodes if isinstance(node, ast.arg)]
    between = [BETWEEN] if any(isinstance(node, ast.Name) and node.id == BETWEEN for node in nodes) else []
    return [_changes(node, given, between) for node in nodes]


def _changes(node: ast.AST, given: Sequence[str], between: Sequence[str]) -> list[Callable[[], None]]:
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op):
            return [_setting(node, "op", kind()) for kind in _SWAPS.get(type(op), ())]
        case ast.Compare(ops=[op]):
            return [_setting(node, "ops", [kind()]) for kind in _SWAPS.get(type(op), ())]
        case ast.Name(id=name):
            return [_setting(node, "id", other) for other in _NAMES.get(name, ())]
        case ast.Assign(targets=[ast.Name(id=name)]) if name == BETWEEN:
            return [_setting(node, "value", ast.Name(argument)) for argument in given]
        case ast.Return():
            return [_setting(node, "value", ast.Name(name)) for name in (*given, *between)]
        case ast.Constant(value=bool(value)):
            return [_setting(node, "value", not value)]
        case ast.Constant(value=int(value)):
            return [_setting(node, "value", value + shift) for shift in (1, -1)]
        case ast.Constant(value=str(value)):
            return [_setting(node, "value", value + "?"), _setting(node, "value", "")]
    return []


def _setting(node: ast.AST, field: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(node, field, value)
