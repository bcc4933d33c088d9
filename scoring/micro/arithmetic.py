"""Small arithmetic problems: a request, the number that answers it, and a worked response. Knows no files.

An ordered pair (or triple) of operands belongs to training or to the test, in every wording and in both orders of a
commutative operation, so that no tested sum stands in training in other words.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Lena", "Max")
THINGS = ("apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pens", "shells", "stamps")

Operands = tuple[int, ...]


class Operation(StrEnum):
    """What is asked for."""

    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    ADD_SUBTRACT = "add_subtract"
    """Two steps: a + b - c."""


@dataclass(frozen=True)
class Ranges:
    """How large operands get; all of them start at 2, so that nobody has "1 apples".

    Args:
        largest: of sums and differences.
        largest_factor: of products.
        largest_step: of each number in two steps.
    """

    largest: int
    largest_factor: int
    largest_step: int


@dataclass(frozen=True)
class Recipe:
    """Which problems there can be.

    Args:
        seed: of the split and of the choice.
        operations: what is asked for; problems are dealt evenly over them.
        ranges: how large operands get.
        held_out: share of each operation's operands that only the test asks for.
        plain: share of problems that are worded as a formula, as far as there are so many; the others are stories.
    """

    seed: int
    operations: tuple[Operation, ...]
    ranges: Ranges
    held_out: float
    plain: float


@dataclass(frozen=True)
class Exercise:
    """One problem.

    Args:
        operation: what is asked for.
        operands: in the order in which the request names them.
        request: what the user asks, in English.
        answer: the number, as text.
        response: the worked answer that a model is taught.
    """

    operation: Operation
    operands: Operands
    request: str
    answer: str
    response: str


@dataclass(frozen=True)
class ArithmeticSets:
    """Training and test problems; they share no operands of an operation."""

    train: tuple[Exercise, ...]
    test: tuple[Exercise, ...]


PLAIN: dict[Operation, tuple[str, ...]] = {
    Operation.ADD: ("What is {a} + {b}?", "Compute {a} + {b}.", "How much is {a} plus {b}?"),
    Operation.SUBTRACT: ("What is {a} - {b}?", "Compute {a} - {b}.", "How much is {a} minus {b}?"),
    Operation.MULTIPLY: ("What is {a} * {b}?", "Compute {a} * {b}.", "How much is {a} times {b}?"),
    Operation.ADD_SUBTRACT: ("What is {a} + {b} - {c}?", "Compute {a} + {b} - {c}."),
}
STORIES: dict[Operation, tuple[str, ...]] = {
    Operation.ADD: (
        "{name} has {a} {things} and buys {b} more. How many {things} does {name} have?",
        "{name} finds {a} {things} today and had {b} before. How many {things} are there now?",
    ),
    Operation.SUBTRACT: (
        "{name} has {a} {things} and gives away {b}. How many {things} are left?",
        "Of {a} {things}, {name} loses {b}. How many {things} remain?",
    ),
    Operation.MULTIPLY: (
        "{name} fills {a} boxes with {b} {things} each. How many {things} is that?",
        "{a} friends of {name} bring {b} {things} each. How many {things} do they bring?",
    ),
    Operation.ADD_SUBTRACT: ("{name} has {a} {things}, buys {b} more and gives away {c}. How many {things} are left?",),
}
"""Each story names every operand, the person and the thing, so that different choices are different texts."""


def capacity(recipe: Recipe) -> tuple[int, int]:
    """How many distinct problems a recipe has for the training set and for the test."""
    sizes = [
        [len(facts) * len(_wordings(operation)) for facts in _split(operation, recipe)]
        for operation in recipe.operations
    ]
    train, test = (min(side) * len(recipe.operations) for side in zip(*sizes, strict=True))
    return train, test


def generate(recipe: Recipe, train: int, test: int) -> ArithmeticSets:
    """Distinct problems in random order; the same arguments give the same sets.

    Args:
        recipe: which problems there can be.
        train, test: problems of each set.

    Raises:
        ValueError: there are not so many distinct problems; see `capacity`.
    """
    sides: tuple[list[Exercise], list[Exercise]] = ([], [])
    for number, operation in enumerate(recipe.operations):
        facts = _split(operation, recipe)
        for side, total in enumerate((train, test)):
            count = total // len(recipe.operations) + (number < total % len(recipe.operations))
            sides[side].extend(_choose(operation, facts[side], count, recipe, side))
    for side, exercises in enumerate(sides):
        random.Random(f"{recipe.seed} order {side}").shuffle(exercises)
    return ArithmeticSets(tuple(sides[0]), tuple(sides[1]))


def _split(operation: Operation, recipe: Recipe) -> tuple[list[Operands], list[Operands]]:
    """All operands of an operation, for training and for the test."""
    facts = _facts(operation, recipe.ranges)
    keys = sorted({_key(operation, operands) for operands in facts})
    random.Random(f"{recipe.seed} {operation} split").shuffle(keys)
    held = set(keys[: max(1, round(recipe.held_out * len(keys)))])
    test = [operands for operands in facts if _key(operation, operands) in held]
    return [operands for operands in facts if _key(operation, operands) not in held], test


def _key(operation: Operation, operands: Operands) -> Operands:
    """The same for operands that are one fact: 3 + 5 is 5 + 3."""
    if operation in (Operation.ADD, Operation.MULTIPLY):
        return tuple(sorted(operands))
    if operation is Operation.ADD_SUBTRACT:
        return (*sorted(operands[:2]), operands[2])
    return operands


def _facts(operation: Operation, ranges: Ranges) -> list[Operands]:
    if operation is Operation.MULTIPLY:
        return list(product(range(2, ranges.largest_factor + 1), repeat=2))
    if operation is Operation.ADD_SUBTRACT:
        steps = product(range(2, ranges.largest_step + 1), repeat=3)
        return [(a, b, c) for a, b, c in steps if a + b >= c]
    pairs = product(range(2, ranges.largest + 1), repeat=2)
    return [(a, b) for a, b in pairs if operation is Operation.ADD or a >= b]


def _wordings(operation: Operation) -> list[str]:
    """Every wording with its person and thing filled in, the plain ones first."""
    stories = (
        story.replace("{name}", name).replace("{things}", things)
        for story, name, things in product(STORIES[operation], NAMES, THINGS)
    )
    return [*PLAIN[operation], *stories]


def _choose(operation: Operation, facts: Sequence[Operands], count: int, recipe: Recipe, side: int) -> list[Exercise]:
    """`count` distinct problems: drawn from all pairs of a fact and a wording, so none can come twice."""
    wordings = _wordings(operation)
    plain = len(PLAIN[operation])
    plains = [(fact, wording) for fact in facts for wording in wordings[:plain]]
    stories = len(facts) * (len(wordings) - plain)
    if count > len(plains) + stories:
        raise ValueError(f"there are {len(plains) + stories} distinct problems of {operation}, not {count}")
    plainly = max(min(round(recipe.plain * count), len(plains)), count - stories)
    chooser = random.Random(f"{recipe.seed} {operation} {side}")
    chosen = chooser.sample(plains, plainly)
    for number in chooser.sample(range(stories), count - plainly):
        fact, wording = divmod(number, len(wordings) - plain)
        chosen.append((facts[fact], wordings[plain + wording]))
    return [_exercise(operation, fact, wording) for fact, wording in chosen]


def _exercise(operation: Operation, operands: Operands, wording: str) -> Exercise:
    a, b, c = (*operands, 0)[:3]
    request = wording.format(a=a, b=b, c=c)
    worked, answer = _WORKED[operation](a, b, c)
    return Exercise(operation, operands, request, str(answer), f"{worked}. The answer is {answer}.")


_WORKED: dict[Operation, Callable[[int, int, int], tuple[str, int]]] = {
    Operation.ADD: lambda a, b, c: (f"{a} + {b} = {a + b}", a + b),
    Operation.SUBTRACT: lambda a, b, c: (f"{a} - {b} = {a - b}", a - b),
    Operation.MULTIPLY: lambda a, b, c: (f"{a} * {b} = {a * b}", a * b),
    Operation.ADD_SUBTRACT: lambda a, b, c: (f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}", a + b - c),
}
