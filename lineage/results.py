"""The numbers that were measured on a target, each with the file and key that it comes from. Judges none of them.

A result is a number in a JSON or YAML output that git keeps, or whose name says that it holds metrics.
"""

import io
import math
import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lineage.agreement import is_metric
from lineage.contents import Contents, parsed
from lineage.graph import Graph
from lineage.hashing import stream_hash
from lineage.model import File, Frozen, Run
from lineage.repository import Repository
from lineage.states import State, open_state
from lineage.trace import Trace


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
    """The metrics files of a target's runs, and of runs downstream of them."""
    state = open_state(repository, traced.revision)
    graph, contents = Graph(state), Contents(state)
    names = set(traced.target.runs)
    above = {run.name: set(graph.upstream([run.name])) for run in graph.stages()}
    below = {name for name, upstream in above.items() if upstream & names}
    found = []
    for run in graph.stages():
        made = (each for file in run.outputs for each in _files(file, contents)) if run.name in below else ()
        results = [file for file in made if _is_result(file, state)]
        if results:
            own = run.name in names or _is_own(run, graph, names, above[run.name], below)
            found += [_read(run, file, contents, own) for file in results]
    return sorted(found, key=lambda each: (not each.own, each.path))


def numbers_in(value: Any, key: str = "") -> Iterator[tuple[str, int | float]]:
    """(Dotted key, value) of every finite number in nested mappings; what is in lists are series, as for DVC."""
    if isinstance(value, dict):
        for inner, below in value.items():
            yield from numbers_in(below, f"{key}.{inner}" if key else str(inner))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield key, value


def _files(file: File, contents: Contents) -> Iterator[File]:
    """An output, or the files of one that is a folder, as far as its list is here."""
    if not file.is_folder or file.is_external:
        yield file
        return
    for path, digest in (contents.listing(file) or {}).items():
        yield File(f"{file.path}/{path}", digest, file.algorithm)


def _is_result(file: File, state: State) -> bool:
    if file.is_external or file.is_folder or not is_metric(file.path):
        return False
    if "metrics" in posixpath.basename(file.path) or state.keeps(file.path):
        return True
    return state.is_workspace and not state.repository.git.path_is_ignored(file.path)


def _is_own(run: Run, graph: Graph, names: set[str], above: set[str], below: set[str]) -> bool:
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
    direct = {link.producer.name for link in graph.links(run)}
    gathered = Counter(_stage(name) for name in direct - set(graph.upstream(names)))
    if any(count > 1 for count in gathered.values()):
        return False
    return bool(direct & names) or {_key(name) for name in names} == {_key(name) for name in above & below - names}


def _stage(name: str) -> str:
    return name.partition("@")[0]


def _key(name: str) -> str:
    return name.partition("@")[2]


def _read(run: Run, file: File, contents: Contents, own: bool) -> Measured:
    data = contents.read(file)
    if data is not None and stream_hash(io.BytesIO(data), file.algorithm) != file.hash:
        data = None
    numbers = numbers_in(parsed(data, file.path)) if own else ()
    return Measured(
        path=file.path, run=run.name, hash=file.hash, numbers=tuple(numbers), own=own, readable=data is not None
    )
