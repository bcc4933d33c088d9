"""What every source of problems gives: drafts, which are problems that nobody has run, and how each was made."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scoring import plain_data
from scoring.problems import Problem

WHERE = "params.yaml: code.problem_sets"
_BOUNDS = plain_data.Bounds(size=2**30, nesting=100)
"""Of one call's arguments, which are trusted."""


class How(StrEnum):
    """How a problem was made from its source's record."""

    AS_IS = "as_is"
    """The record has inputs, or an answer."""
    RECORDED = "recorded_inputs"
    """Inputs are those that the record's check tries, and outputs are compared by EvalPlus's rules."""
    ORACLE = "oracle"
    """The record's check is kept."""
    LEFT_OUT = "left_out"
    """The reference fails its own tests here: nobody can be asked."""


@dataclass(frozen=True)
class Draft:
    """A problem without expected outputs.

    Args:
        problem: the problem.
        how: it was made.
        why: in words, where there was a choice.
    """

    problem: Problem
    how: How
    why: str = ""


def encoded(arguments: Any) -> Any:
    """The encoding of one call's arguments, which are trusted.

    Raises:
        plain_data.NotPlain: they are no plain data.
    """
    return plain_data.encode(list(arguments), _BOUNDS).data
