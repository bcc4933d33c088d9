"""A stage that one side has run and the other only declares, such as a queued experiment: what it would read there."""

from collections.abc import Iterator

from lineage.changes import Change, Effect, Entry, entered, file_kind, parameter_kind
from lineage.checks.case import Case
from lineage.model import File
from lineage.values import differing, value_at


def waiting(recorded: Case, planned: Case, name: str) -> Iterator[Entry]:
    """What a run recorded against what lies in the files of the other side.

    Args:
        recorded: the side whose record has the run, which is the one before.
        planned: the side that declares it.
    """
    run = recorded.graph.runs[name]
    command = planned.command(name)
    if command != run.command:
        yield entered(name, Change.COMMAND, "cmd", " && ".join(run.command), " && ".join(command), Effect.NOT_RUN)
    for file, key, value in run.settings():
        for inner, then, now in differing(value, value_at(planned.parameters(file), key), key):
            yield entered(name, parameter_kind(inner), f"{file}: {inner}", then, now, Effect.NOT_RUN)
    for read in recorded.graph.own_inputs(run):
        now = planned.current_hash(read)
        if now is None and (to := _elsewhere(recorded, planned, read)) is not None:
            yield entered(name, Change.MOVED, f"{read.path} -> {to}", read.hash, read.hash, Effect.NOT_RUN)
        elif now != read.hash:
            kind, detail = file_kind(
                read.path, recorded.recorded_bytes(read.path, read.hash), planned.state.read(read.path)
            )
            yield entered(name, kind, read.path, read.hash, now, Effect.NOT_RUN, detail)


def _elsewhere(recorded: Case, planned: Case, read: File) -> str | None:
    """Where the other side has the bytes that a run read, if they are those that its own commit has."""
    return planned.has_elsewhere(recorded.state.blob(read.path)) if recorded.current_hash(read) == read.hash else None
