"""Structures of small problems: one operation, or two in a row; which are for training and which are new.

What is new also does something new: a behaviour is what a program returns for a fixed battery of arguments. Knows no
names and no sentences' wording.
"""

import builtins
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from textwrap import indent
from typing import Any

from scoring.micro.operations import OPERATIONS, Kind, Operation, Slot
from scoring.micro.words import CONSTANTS

_ENTRY = "f"
_ARGUMENTS = ("x", "y")
BETWEEN = "r"
"""What a solution calls the result of its first operation."""
FORMS = math.lcm(*(len(operation.codes) for operation in OPERATIONS))
"""Ways to write a solution."""
_DRAWS = 8
"""Choices of constants for each of which a pair of operations has to do something of its own."""

Behaviour = tuple[str, ...]
"""Results as text."""


@dataclass(frozen=True)
class Structure:
    """One operation, or one after another.

    Args:
        outer: gives the result.
        inner: is done first, on the arguments; None if there is one operation only.
    """

    outer: Operation
    inner: Operation | None = None

    @property
    def name(self) -> str:
        """Such as `total(keep_even)`."""
        return self.outer.name if self.inner is None else f"{self.outer.name}({self.inner.name})"

    @property
    def takes(self) -> tuple[Kind, ...]:
        """Kinds of the arguments."""
        return self.outer.takes if self.inner is None else self.inner.takes

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What its constants are drawn from: the inner operation's first."""
        return self.outer.slots if self.inner is None else self.inner.slots + self.outer.slots

    def parts(self) -> tuple[Operation, ...]:
        """The operations in the order in which they are done."""
        return (self.outer,) if self.inner is None else (self.inner, self.outer)

    def solution(self, entry_point: str, arguments: Sequence[str], constants: Sequence[str], form: int = 0) -> str:
        """A solution, by default the reference: a whole function.

        Args:
            entry_point: its name.
            arguments: names of its arguments.
            constants: as they stand in the code.
            form: which of its codes an operation has, counted round; by default the first.
        """
        lines, given = "", tuple(arguments)
        if self.inner is not None:
            taken = len(self.inner.slots)
            lines = f"{BETWEEN} = {filled(_code(self.inner, form), given, constants[:taken])}\n"
            given, constants = (BETWEEN,), constants[taken:]
        code = filled(_code(self.outer, form), given, constants)
        lines += f"return {code}" if self.outer.is_expression else code
        return f"def {entry_point}({', '.join(arguments)}):\n{indent(lines, '    ')}"


@dataclass(frozen=True)
class Structures:
    """Structures that training knows, and those that it doesn't.

    Args:
        behaviours: of the known ones, with any constants.
    """

    known: tuple[Structure, ...]
    new: tuple[Structure, ...]
    behaviours: frozenset[Behaviour]


def filled(template: str, arguments: Sequence[str], constants: Sequence[str]) -> str:
    """An operation's code or phrase with its arguments' names and its constants."""
    return template.format(**dict(zip("xy", arguments, strict=False)), **dict(zip("cd", constants, strict=False)))


def _code(operation: Operation, form: int) -> str:
    return operation.codes[form % len(operation.codes)]


def function_of(solution: str, entry_point: str) -> Callable[..., Any]:
    """The function that a solution made here defines."""
    namespace: dict[str, Any] = {}
    builtins.exec(solution, namespace)
    function: Callable[..., Any] = namespace[entry_point]
    return function


def choose(
    seed: int, known_pairs: int, new_pairs: int, new_singles: int, admits: Callable[[Structure], bool]
) -> Structures:
    """Split the catalogue and put operations together, by chance.

    Args:
        admits: whether a pair may be taken.
        known_pairs: structures of two operations in training.
        new_pairs: those of two operations that training knows one by one.
        new_singles: operations that training doesn't know at all.

    Raises:
        ValueError: the catalogue has not so many operations or pairs.
    """
    choice = random.Random(f"{seed} structures")
    if not 0 <= new_singles < len(OPERATIONS):
        raise ValueError(f"there are {len(OPERATIONS)} operations; {new_singles} new ones leave none to know")
    held = set(choice.sample(range(len(OPERATIONS)), new_singles))
    known = [operation for place, operation in enumerate(OPERATIONS) if place not in held]
    admitted = [pair for pair in candidates(known) if admits(pair)]
    pairs = _distinct_pairs(admitted, known_pairs + new_pairs, choice)
    structures = (*map(Structure, known), *pairs[:known_pairs])
    return Structures(
        known=structures,
        new=(*pairs[known_pairs:], *(Structure(OPERATIONS[place]) for place in sorted(held))),
        behaviours=frozenset(shown for structure in structures for shown in _behaviours(structure)),
    )


def candidates(parts: Sequence[Operation]) -> list[Structure]:
    """All pairs where one operation's result is what the other takes."""
    return [
        Structure(outer, inner)
        for inner in parts
        for outer in parts
        if inner.is_expression and outer.takes == (inner.gives,) and inner is not outer
    ]


def _distinct_pairs(admitted: Sequence[Structure], count: int, choice: random.Random) -> list[Structure]:
    """Pairs that do something which neither one operation nor another pair does."""
    if count > len(admitted):
        raise ValueError(f"there are {len(admitted)} pairs of operations, not {count}")
    seen = {shown for single in map(Structure, OPERATIONS) for shown in _behaviours(single)}
    pairs: list[Structure] = []
    for candidate in choice.sample(admitted, len(admitted)):
        if len(pairs) == count:
            break
        own = list(_behaviours(candidate))
        tried = choice.sample(own, min(_DRAWS, len(own)))
        if all(shown not in seen and len(set(shown)) > 1 for shown in tried):
            pairs.append(candidate)
            seen.update(own)
    if len(pairs) < count:
        raise ValueError(f"there are {len(pairs)} pairs of operations that do something of their own, not {count}")
    return pairs


def _behaviours(structure: Structure) -> Iterator[Behaviour]:
    """What the structure does with each choice of constants."""
    arguments = _ARGUMENTS[: len(structure.takes)]
    for constants in constants_of(structure.slots):
        yield behaviour(structure.solution(_ENTRY, arguments, constants), _ENTRY, structure.takes)


def behaviour(solution: str, entry_point: str, takes: Sequence[Kind]) -> Behaviour:
    """What a solution does with arguments of these kinds."""
    function = function_of(solution, entry_point)
    return tuple(_result(function, values) for values in _battery(takes))


def constants_of(slots: Sequence[Slot]) -> Iterator[tuple[str, ...]]:
    """All choices of constants; two from the same slot differ."""
    for constants in product(*(CONSTANTS[slot] for slot in slots)):
        if len(set(zip(slots, constants, strict=True))) == len(slots):
            yield constants


def _result(function: Callable[..., Any], values: Iterable[Any]) -> str:
    try:
        return repr(function(*values))
    except (ValueError, IndexError):  # such as the maximum of nothing
        return "raises"


_BATTERY: Mapping[Kind, tuple[Any, ...]] = {
    Kind.INT: (-9, -1, 0, 1, 3, 7, 8, 12, 17, 19, 25, 40),
    Kind.TEXT: ("", "a", "Rain", "a-b ok!", "stone tree", "oooo aa nn", "BaD py", "the sailors arrive at noon"),
    Kind.INTS: ([], [4], [3, 9, 1], [20, -2, 7, 7], [12, 5, 18, 11, 2, 6], [-8, -3], [15, 10, 15, 14, 13, 19, 21]),
    Kind.WORDS: ([], ["a"], ["tree", "on", "stone"], ["ab", "cd", "a-b"], ["sailors", "at", "noon", "arrive", "here"]),
}


def _battery(kinds: Sequence[Kind]) -> Iterator[tuple[Any, ...]]:
    for values in product(*(_BATTERY[kind] for kind in kinds)):
        yield tuple(list(value) if isinstance(value, list) else value for value in values)
