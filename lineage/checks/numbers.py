"""Do the files that one run wrote say the same numbers? One that was changed, with its hashes, differs from the others.

Where another file states the same number is learned from its neighbours: if `lm.a.ppl` and `lm.b.ppl` are, digit by
digit, what stands at `rows.*.ppl` beside the words `a` and `b`, then `lm.c.ppl` is what stands there beside `c`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from lineage.checks.case import Case
from lineage.manifests import is_manifest
from lineage.model import Fault, File, Finding, Run

TABLES = (".csv", ".tsv")
READABLE = (".json", ".yaml", ".yml", ".toml", *TABLES)
LARGEST = 1_000_000
"""Bytes of a file that is read."""
MOST = 50
"""Such files of one run; those of more are single records, not tables of one study."""
FIELDS = 50
"""Entries of a mapping whose words name it."""
TELLING = 8
"""Digits of a number that no other is by chance."""
ALIKE = 2
"""Neighbours that have to stand at a place, at least, and more than stand elsewhere."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_Path = tuple[str | int, ...]
_Place = tuple[tuple[str | None, ...], frozenset[str]]
"""A path with None where its name stands and for places in lists; other names that stand beside it."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a file."""

    path: _Path
    """Keys and places in lists."""
    names: frozenset[str]
    """Its keys, and the words and whole numbers beside it and beside what it lies in."""
    value: str
    """As the file has it."""
    digits: str
    """The same, but for rounding in the last places of a double."""

    @property
    def key(self) -> str:
        """Where it is, as a person writes it."""
        return ".".join(map(str, self.path))

    @property
    def is_telling(self) -> bool:
        """Whether it has so many digits that no other number is the same by chance."""
        return sum(c.isdigit() for c in self.digits.partition("e")[0].strip("-0.")) >= TELLING


class Numbers:
    """The numbers of a file.

    Args:
        content: what the file says.
    """

    def __init__(self, content: Any) -> None:
        self.families: dict[tuple[_Path, _Path], dict[str, Number]] = defaultdict(dict)
        """What is before and after a name in a path -> name -> the number there."""
        self.same: dict[str, list[Number]] = defaultdict(list)
        self._named: dict[tuple[tuple[str | None, ...], str], list[Number]] = defaultdict(list)
        """A path as a place has it, and a name that stands there."""
        for number in _numbers(content):
            self.same[number.digits].append(number)
            for word in number.names:
                self._named[_shape(number.path), word].append(number)
            for place, name in enumerate(number.path[:-1]):
                if isinstance(name, str):
                    self.families[number.path[:place], number.path[place + 1 :]][name] = number

    def at(self, place: _Place, name: str) -> Number | None:
        """The number at a place beside a name; None where there is none, or are several."""
        shape, beside = place
        found = [n for n in self._named.get((_renamed(shape, "", name), name), ()) if beside <= n.names]
        return found[0] if len({number.digits for number in found}) == 1 else None


def check_numbers(case: Case) -> Iterator[Finding]:
    """The numbers in each run's JSON, YAML, TOML and tables, against those of its other such files."""
    for run in case.runs:
        files = [file for output in run.outputs for file in _files(case, output)]
        if 1 < len(files) <= MOST:
            yield from _of_run(case, run, files)


def _of_run(case: Case, run: Run, files: list[File]) -> Iterator[Finding]:
    read = {file.path: Numbers(case.contents.value(file)) for file in files}
    told: set[tuple[str, str]] = set()
    for a, b in permutations(read, 2):
        for one, other in disagreements(read[a], read[b]):
            if (a, one.key) not in told:
                what = f"{one.key} is {one.value}, {b} says {other.value} ({other.key})"
                yield Finding(fault=Fault.NUMBERS, run=run.name, path=a, what=what)
            told |= {(a, one.key), (b, other.key)}


def _files(case: Case, output: File) -> Iterator[File]:
    if output.size is None or output.size > LARGEST or output.is_external:
        return
    for file in case.contents.files(output):
        if file.path.endswith(READABLE) and not is_manifest(file.path):
            yield file


def disagreements(a: Numbers, b: Numbers) -> Iterator[tuple[Number, Number]]:
    """Numbers of a file, and what another one says in their places."""
    for (before, after), family in a.families.items():
        unknown = [name for name, number in family.items() if not any(name in n.names for n in b.same[number.digits])]
        if not unknown or len(family) - len(unknown) < ALIKE:
            continue
        beside = frozenset(part for part in (*before, *after) if isinstance(part, str))
        for place, known in _places(family, beside, b).items():
            others = {name: b.at(place, name) for name in family.keys() - known}
            differing = {name: other for name, other in others.items() if other is not None}
            if len(known) >= ALIKE and len(known) > len(differing):
                yield from ((family[name], differing[name]) for name in unknown if name in differing)


def _places(family: Mapping[str, Number], beside: frozenset[str], b: Numbers) -> dict[_Place, set[str]]:
    """Where the numbers of a family stand in another file -> the names of those that stand there."""
    found: dict[_Place, set[str]] = defaultdict(set)
    for name, number in family.items():
        for same in b.same[number.digits] if number.is_telling else ():
            if name in same.names:
                found[_renamed(_shape(same.path), name, ""), beside & same.names].add(name)
    return found


def _shape(path: _Path) -> tuple[str | None, ...]:
    return tuple(part if isinstance(part, str) else None for part in path)


def _renamed(shape: tuple[str | None, ...], old: str, new: str) -> tuple[str | None, ...]:
    return tuple(new if part == old else part for part in shape)


def _numbers(value: Any, path: _Path = (), names: frozenset[str] = frozenset()) -> Iterator[Number]:
    if isinstance(value, dict):
        words = [str(each) for each in value.values() if isinstance(each, str | int)] if len(value) <= FIELDS else []
        beside = names.union(words)
        for key, inner in value.items():
            yield from _numbers(inner, (*path, str(key)), beside | {str(key)})
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _numbers(inner, (*path, place), names)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and NUMBER.fullmatch(str(value)):
        number = float(str(value))  # a whole number may be larger than any double
        if math.isfinite(number):
            yield Number(path, names, str(value), f"{number:.12g}")
