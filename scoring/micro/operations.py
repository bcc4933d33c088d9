"""The operations that small problems are made of: what each takes and gives, its code, and how English says it.

A catalogue without logic; it knows no names of functions, no tests and no split. No two operations have the same code,
even with their constants replaced, so that what is held out is not taught under another name.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an argument or a result is."""

    INT = "int"
    TEXT = "text"
    INTS = "ints"
    WORDS = "words"
    TRUTH = "truth"


class Slot(StrEnum):
    """What a constant is drawn from."""

    NUMBER = "number"
    """A whole number, for values."""
    COUNT = "count"
    """A small whole number, for lengths."""
    LETTER = "letter"
    SNIPPET = "snippet"
    """A short text."""


@dataclass(frozen=True)
class Operation:
    """One operation.

    Args:
        name: of the operation; part of a structure's name.
        takes: kinds of its arguments, which code and phrases call {x} and {y}.
        gives: kind of its result.
        code: an expression, or statements that return; constants are {c} and {d}.
        phrases: noun phrases that say what it gives. Each says the same.
        slots: what its constants are drawn from, in the order c, d.
        also: other code that does the same: one may be taught in place of `code`.
    """

    name: str
    takes: tuple[Kind, ...]
    gives: Kind
    code: str
    phrases: tuple[str, ...]
    slots: tuple[Slot, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """All code that does it."""
        return (self.code, *self.also)

    @property
    def is_expression(self) -> bool:
        """Whether its result can be the argument of another operation."""
        return "return " not in self.code


_INT, _TEXT, _INTS, _WORDS = (Kind.INT,), (Kind.TEXT,), (Kind.INTS,), (Kind.WORDS,)
_NUMBER, _COUNT, _LETTER, _SNIPPET = (Slot.NUMBER,), (Slot.COUNT,), (Slot.LETTER,), (Slot.SNIPPET,)

_ARITHMETIC = (
    Operation(
        "add",
        _INT,
        Kind.INT,
        "{x} + {c}",
        ("{x} plus {c}", "the sum of {x} and {c}", "{x} increased by {c}", "{c} more than {x}"),
        _NUMBER,
    ),
    Operation(
        "subtract",
        _INT,
        Kind.INT,
        "{x} - {c}",
        ("{x} minus {c}", "{x} decreased by {c}", "{x} reduced by {c}", "{c} less than {x}"),
        _NUMBER,
    ),
    Operation(
        "multiply",
        _INT,
        Kind.INT,
        "{x} * {c}",
        ("{x} times {c}", "the product of {x} and {c}", "{x} multiplied by {c}", "{c} times {x}"),
        _NUMBER,
    ),
    Operation(
        "divide",
        _INT,
        Kind.INT,
        "{x} // {c}",
        (
            "{x} divided by {c}, rounded down",
            "the floor of {x} divided by {c}",
            "{x} floor divided by {c}",
            "{x} over {c}, rounded down",
        ),
        _NUMBER,
    ),
    Operation(
        "remainder",
        _INT,
        Kind.INT,
        "{x} % {c}",
        (
            "{x} modulo {c}",
            "the remainder of {x} divided by {c}",
            "the remainder of {x} modulo {c}",
            "the remainder when {x} is divided by {c}",
        ),
        _NUMBER,
    ),
    Operation(
        "square",
        _INT,
        Kind.INT,
        "{x} * {x}",
        ("the square of {x}", "{x} squared", "{x} times itself", "{x} multiplied by itself"),
    ),
    Operation(
        "distance",
        _INT,
        Kind.INT,
        "abs({x} - {c})",
        (
            "the distance between {x} and {c}",
            "the absolute difference of {x} and {c}",
            "the absolute distance from {x} to {c}",
            "the absolute difference between {x} and {c}",
        ),
        _NUMBER,
        also=("abs({c} - {x})",),
    ),
    Operation(
        "larger",
        _INT,
        Kind.INT,
        "max({x}, {c})",
        (
            "the larger of {x} and {c}",
            "the maximum of {x} and {c}",
            "the greater of {x} and {c}",
            "the larger number of {x} and {c}",
        ),
        _NUMBER,
        also=("max({c}, {x})",),
    ),
    Operation(
        "smaller",
        _INT,
        Kind.INT,
        "min({x}, {c})",
        (
            "the smaller of {x} and {c}",
            "the minimum of {x} and {c}",
            "the lesser of {x} and {c}",
            "the smaller number of {x} and {c}",
        ),
        _NUMBER,
        also=("min({c}, {x})",),
    ),
    Operation(
        "sum_of_two",
        (Kind.INT, Kind.INT),
        Kind.INT,
        "{x} + {y}",
        ("{x} plus {y}", "the sum of {x} and {y}", "{x} added to {y}", "{x} and {y} added together"),
    ),
    Operation(
        "product_of_two",
        (Kind.INT, Kind.INT),
        Kind.INT,
        "{x} * {y}",
        ("{x} times {y}", "the product of {x} and {y}", "{x} multiplied by {y}", "{x} and {y} multiplied together"),
    ),
    Operation(
        "weighted_sum",
        (Kind.INT, Kind.INT),
        Kind.INT,
        "{x} + {c} * {y}",
        (
            "{x} plus {c} times {y}",
            "the sum of {x} and {c} times {y}",
            "{x} increased by {c} times {y}",
            "{c} times {y} added to {x}",
        ),
        _NUMBER,
    ),
)

_CONDITIONS = (
    Operation(
        "greater",
        _INT,
        Kind.TRUTH,
        "{x} > {c}",
        (
            "whether {x} is greater than {c}",
            "whether {x} is more than {c}",
            "whether {x} is above {c}",
            "True if {x} is greater than {c}, else False",
        ),
        _NUMBER,
        also=("{c} < {x}",),
    ),
    Operation(
        "at_least",
        _INT,
        Kind.TRUTH,
        "{x} >= {c}",
        (
            "whether {x} is at least {c}",
            "whether {x} is {c} or more",
            "True if {x} is at least {c}, else False",
            "whether {x} is greater than or equal to {c}",
        ),
        _NUMBER,
    ),
    Operation(
        "below",
        _INT,
        Kind.TRUTH,
        "{x} < {c}",
        (
            "whether {x} is less than {c}",
            "whether {x} is below {c}",
            "whether {x} is smaller than {c}",
            "True if {x} is less than {c}, else False",
        ),
        _NUMBER,
    ),
    Operation(
        "divisible",
        _INT,
        Kind.TRUTH,
        "{x} % {c} == 0",
        (
            "whether {x} is divisible by {c}",
            "whether {x} is a multiple of {c}",
            "whether {c} divides {x}",
            "True if {x} is divisible by {c}, else False",
        ),
        _NUMBER,
    ),
    Operation(
        "label",
        _INT,
        Kind.TEXT,
        'if {x} > {c}:\n    return "high"\nreturn "low"',
        (
            'the string "high" if {x} is greater than {c}, otherwise "low"',
            '"high" if {x} is more than {c}, else "low"',
            '"high" when {x} is above {c} and "low" otherwise',
            '"high" if {x} is above {c}, otherwise "low"',
        ),
        _NUMBER,
        also=('if {x} <= {c}:\n    return "low"\nreturn "high"',),
    ),
    Operation(
        "step",
        _INT,
        Kind.INT,
        "if {x} < {c}:\n    return {x} + {d}\nreturn {x} - {d}",
        (
            "{x} plus {d} if {x} is less than {c}, otherwise {x} minus {d}",
            "{x} plus {d} if {x} is below {c}, else {x} minus {d}",
            "{x} increased by {d} when {x} is below {c}, otherwise {x} decreased by {d}",
            "{x} increased by {d} if {x} is less than {c}, else {x} decreased by {d}",
        ),
        (Slot.NUMBER, Slot.NUMBER),
        also=("if {x} >= {c}:\n    return {x} - {d}\nreturn {x} + {d}",),
    ),
    Operation(
        "halve_even",
        _INT,
        Kind.INT,
        "if {x} % 2 == 0:\n    return {x} // 2\nreturn {x} * {c}",
        (
            "half of {x} if {x} is even, otherwise {x} times {c}",
            "half of {x} if it is even, else {x} multiplied by {c}",
            "{x} halved when {x} is even, otherwise {x} times {c}",
            "half of {x} when {x} is even, else {x} times {c}",
        ),
        _NUMBER,
        also=("if {x} % 2 == 1:\n    return {x} * {c}\nreturn {x} // 2",),
    ),
)

_TEXTS = (
    Operation(
        "upper",
        _TEXT,
        Kind.TEXT,
        "{x}.upper()",
        ("{x} in upper case", "{x} in capital letters", "the upper case of {x}", "{x} with all letters in upper case"),
    ),
    Operation(
        "reverse",
        _TEXT,
        Kind.TEXT,
        "{x}[::-1]",
        ("{x} reversed", "the reverse of {x}", "{x} in reverse", "{x} read in reverse"),
    ),
    Operation(
        "append",
        _TEXT,
        Kind.TEXT,
        '{x} + "{c}"',
        (
            '{x} followed by "{c}"',
            '{x} with "{c}" at the end',
            '{x} with "{c}" added at the end',
            '{x} and then "{c}" at the end',
        ),
        _SNIPPET,
    ),
    Operation(
        "prepend",
        _TEXT,
        Kind.TEXT,
        '"{c}" + {x}',
        (
            '"{c}" followed by {x}',
            '{x} with "{c}" in front',
            '{x} with "{c}" added in front',
            '{x} with "{c}" put in front',
        ),
        _SNIPPET,
    ),
    Operation(
        "repeat",
        _TEXT,
        Kind.TEXT,
        '({x} + "{c}") * {d}',
        (
            '{x} followed by "{c}", repeated {d} times',
            '{x} with "{c}" at the end, repeated {d} times',
            '{d} copies of {x} followed by "{c}"',
            '{d} copies of {x} with "{c}" at the end',
        ),
        (Slot.SNIPPET, Slot.COUNT),
    ),
    Operation(
        "tail",
        _TEXT,
        Kind.TEXT,
        "{x}[-{c}:]",
        (
            "the last {c} characters of {x}",
            "the last {c} letters of {x}",
            "{x} cut to its last {c} characters",
            "only the last {c} characters of {x}",
        ),
        _COUNT,
    ),
    Operation(
        "replace",
        _TEXT,
        Kind.TEXT,
        '{x}.replace("{c}", "{d}")',
        (
            '{x} with every "{c}" replaced by "{d}"',
            '{x} with each "{c}" changed to "{d}"',
            '{x} with all "{c}" replaced by "{d}"',
            '{x} with "{d}" in place of every "{c}"',
        ),
        (Slot.LETTER, Slot.LETTER),
    ),
    Operation(
        "count_letter",
        _TEXT,
        Kind.INT,
        '{x}.count("{c}")',
        (
            'how many times "{c}" occurs in {x}',
            'the number of "{c}" in {x}',
            'how many "{c}" there are in {x}',
            'how often "{c}" occurs in {x}',
        ),
        _LETTER,
    ),
    Operation(
        "length",
        _TEXT,
        Kind.INT,
        "len({x})",
        (
            "the length of {x}",
            "how many characters {x} has",
            "the number of characters in {x}",
            "how many characters are in {x}",
        ),
    ),
    Operation(
        "starts_with",
        _TEXT,
        Kind.TRUTH,
        '{x}.startswith("{c}")',
        (
            'whether {x} starts with "{c}"',
            'whether {x} begins with "{c}"',
            'True if {x} starts with "{c}", else False',
            'True if {x} begins with "{c}", else False',
        ),
        _SNIPPET,
    ),
    Operation(
        "holds_letter",
        _TEXT,
        Kind.TRUTH,
        '"{c}" in {x}',
        (
            'whether {x} contains "{c}"',
            'whether "{c}" is in {x}',
            'True if {x} contains "{c}", else False',
            'True if "{c}" is in {x}, else False',
        ),
        _LETTER,
    ),
    Operation(
        "longer_than",
        _TEXT,
        Kind.TRUTH,
        "len({x}) > {c}",
        (
            "whether {x} has more than {c} characters",
            "whether {x} is longer than {c} characters",
            "True if {x} has more than {c} characters, else False",
            "whether the length of {x} is more than {c}",
        ),
        _COUNT,
    ),
    Operation(
        "words",
        _TEXT,
        Kind.WORDS,
        "{x}.split()",
        ("the words of {x}", "the list of words in {x}", "{x} split into words", "all words in {x}"),
    ),
)

_NUMBERS = (
    Operation(
        "total",
        _INTS,
        Kind.INT,
        "sum({x})",
        ("the sum of {x}", "the total of {x}", "the sum of all numbers in {x}", "the total of all numbers in {x}"),
    ),
    Operation(
        "largest",
        _INTS,
        Kind.INT,
        "max({x})",
        (
            "the largest number in {x}",
            "the maximum of {x}",
            "the largest element of {x}",
            "the maximum number in {x}",
        ),
    ),
    Operation(
        "smallest",
        _INTS,
        Kind.INT,
        "min({x})",
        (
            "the smallest number in {x}",
            "the minimum of {x}",
            "the smallest element of {x}",
            "the minimum number in {x}",
        ),
    ),
    Operation(
        "last",
        _INTS,
        Kind.INT,
        "{x}[-1]",
        ("the last number in {x}", "the last element of {x}", "the final number in {x}", "the last item of {x}"),
    ),
    Operation(
        "ascending",
        _INTS,
        Kind.INTS,
        "sorted({x})",
        ("{x} sorted", "{x} in ascending order", "{x} sorted in ascending order", "the sorted list of {x}"),
    ),
    Operation(
        "descending",
        _INTS,
        Kind.INTS,
        "sorted({x}, reverse=True)",
        (
            "{x} in descending order",
            "{x} sorted in descending order",
            "{x} sorted from largest to smallest",
            "the list of {x} in descending order",
        ),
    ),
    Operation(
        "add_to_each",
        _INTS,
        Kind.INTS,
        "[v + {c} for v in {x}]",
        (
            "{x} with {c} added to each number",
            "{x} with every number increased by {c}",
            "each number of {x} plus {c}",
            "{x} with {c} added to every number",
        ),
        _NUMBER,
        also=("[{c} + v for v in {x}]",),
    ),
    Operation(
        "multiply_each",
        _INTS,
        Kind.INTS,
        "[v * {c} for v in {x}]",
        (
            "{x} with each number multiplied by {c}",
            "{x} with every number times {c}",
            "each number of {x} times {c}",
            "{x} with every number multiplied by {c}",
        ),
        _NUMBER,
        also=("[{c} * v for v in {x}]",),
    ),
    Operation(
        "keep_above",
        _INTS,
        Kind.INTS,
        "[v for v in {x} if v > {c}]",
        (
            "the numbers in {x} greater than {c}",
            "the numbers of {x} that are above {c}",
            "all numbers in {x} above {c}",
            "all numbers in {x} greater than {c}",
        ),
        _NUMBER,
    ),
    Operation(
        "keep_even",
        _INTS,
        Kind.INTS,
        "[v for v in {x} if v % 2 == 0]",
        (
            "the even numbers in {x}",
            "the numbers of {x} that are even",
            "all even numbers in {x}",
            "only the even numbers of {x}",
        ),
    ),
    Operation(
        "take",
        _INTS,
        Kind.INTS,
        "{x}[:{c}]",
        (
            "the first {c} numbers of {x}",
            "the first {c} elements of {x}",
            "only the first {c} numbers of {x}",
            "only the first {c} elements of {x}",
        ),
        _COUNT,
    ),
    Operation(
        "holds_number",
        _INTS,
        Kind.TRUTH,
        "{c} in {x}",
        (
            "whether {x} contains {c}",
            "whether {c} is in {x}",
            "True if {x} contains {c}, else False",
            "True if {c} is in {x}, else False",
        ),
        _NUMBER,
    ),
    Operation(
        "all_above",
        _INTS,
        Kind.TRUTH,
        "all(v > {c} for v in {x})",
        (
            "whether all numbers in {x} are greater than {c}",
            "whether every number in {x} is above {c}",
            "True if all numbers in {x} are above {c}, else False",
            "whether all numbers in {x} are above {c}",
        ),
        _NUMBER,
    ),
    Operation(
        "product",
        _INTS,
        Kind.INT,
        "out = 1\nfor v in {x}:\n    out *= v\nreturn out",
        (
            "the product of {x}",
            "the product of all numbers in {x}",
            "all numbers in {x} multiplied together",
            "the product of every number in {x}",
        ),
    ),
    Operation(
        "sum_above",
        _INTS,
        Kind.INT,
        "out = 0\nfor v in {x}:\n    if v > {c}:\n        out += v\nreturn out",
        (
            "the sum of the numbers in {x} greater than {c}",
            "the sum of all numbers in {x} above {c}",
            "the total of the numbers in {x} above {c}",
            "the sum of the numbers in {x} above {c}",
        ),
        _NUMBER,
    ),
    Operation(
        "count_at_least",
        _INTS,
        Kind.INT,
        "out = 0\nfor v in {x}:\n    if v >= {c}:\n        out += 1\nreturn out",
        (
            "how many numbers in {x} are at least {c}",
            "the number of elements of {x} that are at least {c}",
            "how many numbers in {x} are {c} or more",
            "how many elements of {x} are at least {c}",
        ),
        _NUMBER,
    ),
)

_WORD_LISTS = (
    Operation(
        "join",
        _WORDS,
        Kind.TEXT,
        '"{c}".join({x})',
        (
            'the words of {x} joined by "{c}"',
            '{x} joined with "{c}"',
            '{x} joined by "{c}"',
            'the words in {x} joined with "{c}"',
        ),
        _SNIPPET,
    ),
    Operation(
        "longest",
        _WORDS,
        Kind.TEXT,
        "max({x}, key=len)",
        (
            "the longest word in {x}",
            "the longest of {x}",
            "the first longest word in {x}",
            "the longest string in {x}",
        ),
    ),
    Operation(
        "keep_longer",
        _WORDS,
        Kind.WORDS,
        "[v for v in {x} if len(v) > {c}]",
        (
            "the words in {x} longer than {c} letters",
            "all words in {x} with more than {c} letters",
            "the words of {x} with more than {c} letters",
            "all words in {x} longer than {c} letters",
        ),
        _COUNT,
    ),
)

OPERATIONS = _ARITHMETIC + _CONDITIONS + _TEXTS + _NUMBERS + _WORD_LISTS
"""The whole catalogue; names are distinct, and so is what they do."""
