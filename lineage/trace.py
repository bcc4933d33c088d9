"""Where a number came from: everything upstream of a target, down to raw sources."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache, partial
from typing import Any

from lineage.contents import Recorded
from lineage.declared import frozen_stages
from lineage.errors import Unreadable
from lineage.graph import Graph
from lineage.lockfile import lock_stages, stage_texts
from lineage.manifests import Environment, is_manifest, manifest_of
from lineage.model import Commit, File, Frozen, Gap, Kind, Pin, Run
from lineage.origins import Origin, Origins
from lineage.pins import Owners
from lineage.repository import Repository
from lineage.seeds import is_seed, seeds_of
from lineage.states import Committed, State, open_state
from lineage.targets import Target, find_target, unlisted

ENVIRONMENT_FILES = re.compile(
    r"(requirements[\w.-]*\.(txt|lock|in)|[\w.-]+\.lock|pylock[\w.-]*\.toml|conda-lock\.yml|environment\.ya?ml"
    r"|Pipfile\.lock|pyproject\.toml)"
)


class Role(StrEnum):
    """What an input is to its run."""

    ARTIFACT = "artifact"
    """Another run made it."""
    CODE = "code"
    """Git keeps it."""
    EXTERNAL = "external"
    """It lies outside the project."""
    UNPINNED = "unpinned"
    """Neither a run made it nor git keeps it."""
    LOST = "lost"
    """A run made it, and no record of that run is here."""


class Input(Frozen):
    """Something that a run read."""

    file: File
    role: Role
    blob: str | None = None
    """Of code: git's id of what was read; None where git has other bytes."""
    producers: tuple[str, ...] = ()
    """The names of the steps that made it."""


class Parameter(Frozen):
    """A parameter as the run recorded it."""

    file: str
    key: str
    value: Any
    seed: bool
    """Whether randomness comes from it."""


class Step(Frozen):
    """One run of the closure."""

    name: str
    """What tells it from all others: its address, of a former run with a commit, `train (0d46eb42e8)`."""
    address: str
    """What DVC calls it."""
    past: str | None
    """The oldest commit that has it; None of a run that the revision has itself."""
    kind: Kind
    folder: str
    command: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    seeds: tuple[str, ...]
    """`key = value` of all that seeds it, in parameters and on its command line."""
    inputs: tuple[Input, ...]
    outputs: tuple[File, ...]
    environment: Environment | None
    """As its manifest has it."""
    pins: tuple[Pin, ...]
    frozen: bool
    """Whether dvc.yaml keeps its outputs, whatever becomes of what it reads: that may have moved on since."""
    recorded: Commit | None
    """The commit that first held this record; None where none holds it, or history is cut off."""


class Trace(Frozen):
    """The whole upstream closure of a target."""

    target: Target
    revision: str
    """The name that was asked for."""
    commit: Commit | None
    """Of the workspace: the one that is checked out."""
    steps: tuple[Step, ...]
    """What is read before what reads it."""
    environment: dict[str, str]
    """Environment files of the revision -> git blob id."""
    pins: tuple[Pin, ...]
    """The raw sources of all steps."""
    gaps: tuple[Gap, ...]
    """What could not be read."""


def trace(repository: Repository, target: str, revision: str | None = None) -> Trace:
    """Everything upstream of a target.

    Args:
        target: an artifact's path, a number (`PATH:KEY`), a stage, or (part of) a hash.
        revision: a commit, branch, tag, experiment; None for the workspace.

    Raises:
        AuditError: the revision or the target isn't there.
    """
    state = open_state(repository, revision)
    graph, contents = Graph(state), Recorded(state)
    found = find_target(target, graph, contents)
    recorded = Recording(repository, state)
    origins = Origins(graph, recorded.commit)
    roots, doubts = _roots(found, origins)
    doubts += _unlisted(found, graph, contents)
    closure = origins.upstream(roots)
    frozen, unread = _frozen(state)
    owners = cache(lambda graph: Owners(graph.runs.values()))
    steps = [step(origin, origins, recorded, owners(origin.graph), name in frozen) for name, origin in closure.items()]
    told = [*graph.unread, *graph.disputed(closure), *unread, *recorded.gaps()]
    gaps = [*told, *doubts, *_doubts(closure, origins), *_missing_manifests(closure)]
    return Trace(
        target=found.model_copy(update={"runs": tuple(root.name for root in roots)}),
        revision=state.name,
        commit=repository.commit(state.commit) if state.commit else None,
        steps=tuple(steps),
        environment=environment_files(state),
        pins=_merged(steps),
        gaps=tuple(gaps),
    )


def _roots(found: Target, origins: Origins) -> tuple[list[Origin], list[Gap]]:
    """The runs that made a target; of one that a run has read those that made what it read."""
    graph, path = origins.graph, found.path
    own = [origins.of(name) for name in found.runs]
    if path is None or found.hash is None or (path in graph.made and graph.made[path][1].hash == found.hash):
        return own, []
    for run in graph.runs.values():
        for file in run.inputs:
            if (file.path, file.hash) == (path, found.hash):
                made = origins.makers(origins.of(run.name), file)
                return [*made.origins], [Gap(where=path, what=made.gap)] if made.gap is not None else []
    return own, []


def _unlisted(found: Target, graph: Graph, contents: Recorded) -> list[Gap]:
    """What is not known of a target in a folder whose list isn't here."""
    folder = unlisted(found.path, graph, contents) if found.path is not None and found.hash is None else None
    what = "the list of its folder's files is not here: whether it is one of them, and which bytes it has, is unknown"
    return [] if folder is None else [Gap(where=str(found.path), what=what)]


def _doubts(closure: Mapping[str, Origin], origins: Origins) -> Iterator[Gap]:
    """What is not known of who made what."""
    for reader in closure.values():
        for file in reader.run.inputs:
            if (gap := origins.makers(reader, file).gap) is not None:
                yield Gap(where=file.path, what=gap)
    order = {name: number for number, name in enumerate(closure)}
    for reader in closure.values():
        for maker in origins.above(reader):
            if order[maker] > order[reader.name]:
                what = f"it read what {maker} made, which came of what it made: no runs can have been in a circle"
                yield Gap(where=reader.name, what=what)


def _frozen(state: State) -> tuple[frozenset[str], list[Gap]]:
    said = frozen_stages(state)
    what = "it is unknown which stages are frozen"
    return said.frozen(), [Gap(where=path, what=f"{why}: {what}") for path, why in said.unread.items()]


def step(origin: Origin, origins: Origins, recorded: "Recording", owners: Owners, frozen: bool) -> Step:
    """A run with all that is known of it."""
    run, past = origin.run, origin.past
    manifest = manifest_of(run, origin.contents)
    parameters = tuple(Parameter(file=f, key=k, value=v, seed=is_seed(k)) for f, k, v in run.settings())
    return Step(
        name=origin.name,
        address=run.name,
        past=past,
        kind=run.kind,
        folder=run.folder,
        command=run.command,
        parameters=parameters,
        seeds=tuple(seeds_of(run)),
        inputs=tuple(_input(file, origin, origins, recorded) for file in run.inputs),
        outputs=run.outputs,
        environment=manifest.environment if manifest is not None else None,
        pins=tuple(pin.model_copy(update={"runs": (origin.name,)}) for pin in owners.pins(run, manifest)),
        frozen=frozen,
        recorded=recorded.of(run) if past is None else origin.graph.state.repository.commit(past),
    )


def _input(file: File, reader: Origin, origins: Origins, recorded: "Recording") -> Input:
    makers = origins.makers(reader, file)
    if makers.origins:
        return Input(file=file, role=Role.ARTIFACT, producers=tuple(origin.name for origin in makers.origins))
    if makers.is_made:
        return Input(file=file, role=Role.LOST)
    if file.is_external:
        return Input(file=file, role=Role.EXTERNAL)
    blob = recorded.blob(file, reader)
    kept = blob is not None or recorded.keeps(file.path, reader)
    return Input(file=file, role=Role.CODE if kept else Role.UNPINNED, blob=blob)


def environment_files(state: State) -> dict[str, str]:
    """Environment locks at the top of a revision, and of the project's folder -> git blob id."""
    found: dict[str, str] = {}
    for folder in dict.fromkeys(["", state.repository.folder]):
        names = [n for n in state.committed_names(folder) if ENVIRONMENT_FILES.fullmatch(n) and n != "dvc.lock"]
        paths = [f"{folder}/{name}" if folder else name for name in names]
        found.update({path: blob for path in paths if (blob := state.blob(path)) is not None})
    return found


def _merged(steps: Sequence[Step]) -> tuple[Pin, ...]:
    merged: dict[tuple[str, str, str | None], Pin] = {}
    for pin in (pin for each in steps for pin in each.pins):
        key = (pin.where, pin.source, pin.revision)
        before = merged[key].runs if key in merged else ()
        merged[key] = pin.model_copy(update={"runs": (*before, *pin.runs)})
    return tuple(merged.values())


def _missing_manifests(closure: Mapping[str, Origin]) -> Iterator[Gap]:
    for origin in closure.values():
        for file in origin.run.outputs:
            if is_manifest(file.path) and origin.contents.read(file) is None:
                what = f"what {origin.name} wrote is neither here nor in the cache: its environment is unknown"
                yield Gap(where=file.path, what=what)


class Recording:
    """When a run's record came into history: the oldest commit in a row that has it as it is.

    Args:
        state: where to start; the commit, or the workspace on its commit.
    """

    def __init__(self, repository: Repository, state: State) -> None:
        self._repository = repository
        self._state = state
        self._texts: dict[str, Mapping[str, Any]] = {}
        self._here: dict[str, Mapping[str, Any]] = {}
        self._blobs: dict[str, list[tuple[str, str | None]]] = {}

    def of(self, run: Run) -> Commit | None:
        """The commit that first held a run's record; None where none does."""
        if (record := self._record(run)) is None:
            return None
        first = None
        for commit, blob in self._history(run.file):
            if blob is None or self._record_in(blob, run) != record:
                break
            first = commit
        else:
            if self._repository.is_shallow:  # older commits, which are not here, may have held it before
                return None
        return self._repository.commit(first) if first is not None else None

    def commit(self, run: Run) -> str | None:
        """The id of that commit."""
        found = self.of(run)
        return None if found is None else found.id

    def keeps(self, path: str, reader: Origin) -> bool:
        """Whether git keeps something at a path that a run read, or did when the run was recorded: it may be gone."""
        if reader.graph.state.keeps(path):
            return True
        then = self.commit(reader.run) if reader.past is None else None
        return then is not None and Committed(self._repository, then[:10], then).keeps(path)

    def blob(self, file: File, reader: Origin) -> str | None:
        """Git's id of a file that a run read, in its own commit or an older one; None where git has other bytes."""
        contents, here = reader.contents, reader.graph.state.blob(file.path)
        if file.hash is None or file.is_folder or file.is_external:
            return None
        blobs = dict.fromkeys([here, *(blob for _, blob in self._history(file.path))])
        return next((b for b in blobs if b is not None and contents.blob_hash(b, file.algorithm) == file.hash), None)

    def gaps(self) -> list[Gap]:
        """Where history is cut off."""
        if not self._repository.is_shallow:
            return []
        return [Gap(where="git", what="this clone is shallow: older commits are not here (git fetch --unshallow)")]

    def _history(self, file: str) -> list[tuple[str, str | None]]:
        """(Commit, blob of a file in it), newest first."""
        if file not in self._blobs:
            start, paths = self._state.history_of(file)
            commits = self._repository.history(start) if start is not None else ()
            blobs = ((commit, map(partial(self._repository.blob, commit), paths)) for commit in commits)
            self._blobs[file] = [(commit, next(filter(None, found), None)) for commit, found in blobs]
        return self._blobs[file]

    def _record_in(self, blob: str, run: Run) -> Any:
        key = f"{blob} {run.file}"  # equal .dvc files of two folders are one blob, as is the archive of a record
        if key not in self._texts:
            data = self._state.in_history(self._repository.git[blob].read_raw(), run.file)
            self._texts[key] = _records(data, run)
        return self._texts[key].get(run.name.rpartition(":")[2])

    def _record(self, run: Run) -> Any:
        if run.file not in self._here:
            data = self._state.read(run.file)
            self._here[run.file] = _records(data, run) if data is not None else {}
        return self._here[run.file].get(run.name.rpartition(":")[2])


def _records(data: bytes, run: Run) -> Mapping[str, Any]:
    """What a file of DVC's says of each run: its text where that is enough, which is fast."""
    if run.kind is not Kind.STAGE:
        return {run.name: data}
    texts = stage_texts(data)
    try:
        return texts if texts is not None else lock_stages(data)
    except Unreadable:
        return {}
