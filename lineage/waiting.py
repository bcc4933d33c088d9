"""A stage that one side has run and the other only declares, such as a queued experiment: what it would read there."""

from collections.abc import Iterator
from typing import Any

from lineage.changes import Change, Effect, Entry, file_kind, parameter_kind
from lineage.checks.case import Case
from lineage.hashing import bytes_hash
from lineage.model import File
from lineage.values import ABSENT, differing, value_at


def waiting(recorded: Case, planned: Case, name: str) -> Iterator[Entry]:
    """What a run recorded against what lies in the files of the other side.

    Args:
        recorded: the side whose record has the run, which is the one before.
        planned: the side that declares it.
    """
    run = recorded.graph.runs[name]
    command = planned.command(name)
    if command != run.command:
        yield _entry(name, Change.COMMAND, "cmd", " && ".join(run.command), " && ".join(command))
    for file, key, value in run.settings():
        for inner, then, now in differing(value, value_at(planned.parameters(file), key), key):
            yield _entry(name, parameter_kind(inner), f"{file}: {inner}", then, now)
    for read in recorded.graph.own_inputs(run):
        now = planned.current_hash(read)
        if now != read.hash:
            kind, detail = file_kind(read.path, _bytes(recorded, read), planned.state.read(read.path))
            yield _entry(name, kind, read.path, read.hash, now, detail)


def _bytes(recorded: Case, read: File) -> bytes | None:
    """A file's bytes, if they are the ones that were recorded."""
    data = recorded.state.read(read.path)
    return data if data is not None and bytes_hash(data) == read.hash else None


def _entry(name: str, kind: Change, what: str, then: Any, now: Any, detail: str = "") -> Entry:
    before, after = (None if value is ABSENT else value for value in (then, now))
    return Entry(run=name, kind=kind, what=what, before=before, after=after, effect=Effect.NOT_RUN, detail=detail)
