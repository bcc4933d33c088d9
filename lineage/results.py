"""The numbers that were measured on a target, each with the file and key that it comes from. Judges none of them.

A result is a number in a JSON or YAML output that git keeps, or whose name says that it holds metrics.
"""

import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lineage.agreement import is_metric
from lineage.contents import Recorded, parsed
from lineage.graph import Graph
from lineage.model import File, Frozen, Run
from lineage.origins import Origins
from lineage.repository import Repository
from lineage.states import State, open_state
from lineage.trace import Trace

FORMER = re.compile(r" \([0-9a-f]{10}\)$")
"""What tells a former run from the state's own."""


class Measured(Frozen):
    """A metrics file of a run that made the target, or reads it."""

    path: str
    run: str
    hash: str | None
    numbers: tuple[tuple[str, int | float], ...]
    """(Dotted key, value). None of a file that compares the target with others."""
    own: bool
    """Whether it is about this target alone, as far as the runs' names and inputs say."""
    readable: bool
    """Whether the recorded bytes are here."""


def measured(repository: Repository, traced: Trace) -> list[Measured]:
    """The metrics files of a target's runs, and of runs downstream of them; a folder without its list may hold some."""
    state = open_state(repository, traced.revision)
    graph, contents = Graph(state), Recorded(state)
    origins = Origins(graph)
    names = set(traced.target.runs)
    below = _below(origins, names)
    found = []
    for run in graph.stages():
        made = (each for file in run.outputs for each in contents.files(file)) if run.name in below else ()
        results = [file for file in made if _is_result(file, state)]
        unlisted = [f for f in run.outputs if run.name in below and _is_unlisted(f, contents)]
        if results or unlisted:
            above = set(origins.upstream([origins.of(run.name)]))
            own = run.name in names or _is_own(run, origins, names, above, below)
            found += [_read(run, file, contents, own) for file in (*results, *(unlisted if own else []))]
    return sorted(found, key=lambda each: (not each.own, each.path))


def _below(origins: Origins, names: set[str]) -> set[str]:
    """Of a state's runs the target's, and all that read what they made, directly or not."""
    readers: dict[str, list[str]] = {}
    for reader in origins.upstream(origins.of(run.name) for run in origins.graph.stages()).values():
        for name in origins.above(reader):
            readers.setdefault(name, []).append(reader.name)
    found, waiting = set(names), [*names]
    while waiting:
        further = [reader for reader in readers.get(waiting.pop(), ()) if reader not in found]
        found.update(further)
        waiting += further
    return found & {*origins.graph.runs}


def numbers_in(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """(Dotted key, value) of every finite number in nested mappings; what is in lists are series, as for DVC."""
    if isinstance(value, dict):
        for inner, below in value.items():
            yield from numbers_in(below, f"{key}.{inner}" if key else str(inner))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield key, value


def _is_result(file: File, state: State) -> bool:
    if file.is_external or file.is_folder or not is_metric(file.path):
        return False
    if "metrics" in posixpath.basename(file.path) or state.keeps(file.path):
        return True
    return state.is_workspace and not state.repository.git.path_is_ignored(file.path)


def _is_unlisted(file: File, contents: Recorded) -> bool:
    return file.is_folder and not file.is_external and contents.listing(file) is None


def _is_own(run: Run, origins: Origins, names: set[str], above: set[str], below: set[str]) -> bool:
    """Whether a run is about the target alone.

    It reads no other instance of the target's stage, it doesn't gather several instances of any stage, and it reads the
    target itself, or has the target's instance key as all runs between them have.

    Args:
        names: the target's runs.
        above, below: the run and those upstream of it; the target's runs and those downstream of them.
    """
    stages = {_stage(name) for name in names}
    if any(_stage(name) in stages for name in above - names):
        return False
    direct = {*origins.above(origins.of(run.name))}
    further = {*origins.upstream(origins.of(name) for name in names if name in origins.graph.runs)}
    gathered = Counter(_stage(name) for name in direct - further)
    if any(count > 1 for count in gathered.values()):
        return False
    return bool(direct & names) or {_key(name) for name in names} == {_key(name) for name in above & below - names}


def _stage(name: str) -> str:
    return name.partition("@")[0]


def _key(name: str) -> str:
    return FORMER.sub("", name).partition("@")[2]


def _read(run: Run, file: File, contents: Recorded, own: bool) -> Measured:
    data = contents.read(file)
    numbers = numbers_in(parsed(data, file.path)) if own else ()
    return Measured(
        path=file.path, run=run.name, hash=file.hash, numbers=tuple(numbers), own=own, readable=data is not None
    )
