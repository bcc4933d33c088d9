"""The pools that a small problem's names, constants and sentences are drawn from, and how each is split in two.

Knows no operation. What is held out of a pool is never drawn for training.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from scoring.micro.operations import Kind, Slot

T = TypeVar("T")

_VERBS = ("get", "find", "make", "calc", "build", "show", "give", "solve")
_NOUNS = ("value", "result", "answer", "number", "item", "output", "data", "part", "score", "thing")
FUNCTIONS = tuple(f"{verb}_{noun}" for verb in _VERBS for noun in _NOUNS)
ARGUMENTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.INT: ("n", "x", "k", "m", "y", "num", "val"),
    Kind.TEXT: ("s", "text", "word", "line", "name", "msg"),
    Kind.INTS: ("xs", "nums", "items", "values", "seq", "data"),
    Kind.WORDS: ("words", "texts", "names", "lines", "parts"),
}
"""None of these is a word that the operations' code uses: v, out, r and Python's own."""
CONSTANTS: Mapping[Slot, tuple[str, ...]] = {
    # one token each: a small model learns soon to copy them
    Slot.NUMBER: tuple(map(str, range(2, 10))),
    Slot.COUNT: tuple(map(str, range(2, 10))),
    Slot.LETTER: tuple("aeiostrn"),
    Slot.SNIPPET: tuple("BDFGHKMX"),
}
SENTENCES = (
    "Write a function {signature} that returns {what}.",
    "Write a Python function {signature} returning {what}.",
    "Implement {signature} so that it returns {what}.",
    "Define {signature}. It should return {what}.",
    "Create a function {signature} that returns {what}.",
)
COMPOSED = (
    "Write a function {signature} that computes {first}, then returns {what}.",
    "Write a Python function {signature}: compute {first}, return {what}.",
    "Implement {signature}: compute {first}, then return {what}.",
    "Define {signature}: compute {first} and return {what}.",
    "Create a function {signature} computing {first}, then returning {what}.",
)
"""For two operations; `{what}` is said of RESULT."""
RESULT = "the result"


@dataclass(frozen=True)
class Pool(Generic[T]):
    """Values for training, and those that are held out of it."""

    known: tuple[T, ...]
    held: tuple[T, ...]

    def draw(self, choice: random.Random, held: bool) -> T:
        """A value of one side."""
        return choice.choice(self.held if held else self.known)


def split(values: Sequence[T], share: float, choice: random.Random) -> Pool[T]:
    """Hold out a share of the values, but never all and never none of them."""
    count = min(max(1, round(share * len(values))), len(values) - 1)
    held = set(choice.sample(range(len(values)), count))
    known = tuple(value for place, value in enumerate(values) if place not in held)
    return Pool(known, tuple(value for place, value in enumerate(values) if place in held))
