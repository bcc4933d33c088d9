"""Findings as a person reads them: those that say the same but for hashes stand together, with their number."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DIGEST = re.compile(r"\b[0-9a-f]{32,64}(\.dir)?\b")
SHOWN = 12
"""Places of a group, and rows, that are printed."""
NAMED = 4
"""Runs that a line names."""


@dataclass(frozen=True)
class Said:
    """One finding."""

    kind: str
    """Such as `cache corrupt`."""
    where: str
    what: str
    run: str | None = None


def grouped(findings: Iterable[Said]) -> Iterator[str]:
    """Lines: what was found, and under it where, the first places of many."""
    groups: dict[tuple[str, str], list[Said]] = {}
    for said in findings:
        groups.setdefault((said.kind, DIGEST.sub("…", said.what)), []).append(said)
    last = ""
    for (kind, pattern), group in groups.items():
        runs: dict[str, list[str]] = {}
        for said in group:
            runs.setdefault(said.where, []).extend([said.run] if said.run else [])
        places = [f"{where} ({listed(found)})" if found else where for where, found in runs.items()]
        what = group[0].what if len({said.what for said in group}) == 1 else pattern
        if len(places) == 1:
            head = f"{kind}: {places[0]}"
            yield from () if head == last else (head,)
            last = head
            yield from (f"  {said}" for said in dict.fromkeys(said.what for said in group))
        else:
            yield f"{kind}, {len(group):,} times: {what}"
            yield from (f"  {line}" for line in shortened(places))


def shortened(lines: list[str], most: int = SHOWN) -> list[str]:
    """The first lines of many, and how many more there are."""
    rest = len(lines) - most
    return [*lines[:most], f"and {rest:,} more (--json has them)"] if rest > 0 else lines


def listed(names: Iterable[str], most: int = NAMED) -> str:
    """Names in a line, the first of many, each once."""
    found = [*dict.fromkeys(names)]
    rest = len(found) - most
    return ", ".join(found[:most]) + (f" and {rest:,} more" if rest > 0 else "")
