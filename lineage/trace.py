"""Where a number came from: everything upstream of a target, down to raw sources."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from lineage.contents import Contents
from lineage.declared import frozen_stages
from lineage.graph import Graph
from lineage.lockfile import Unreadable, lock_stages, stage_texts
from lineage.manifests import Environment, is_manifest, manifest_of
from lineage.model import Commit, File, Frozen, Gap, Kind, Pin, Run
from lineage.pins import own_pins
from lineage.repository import Repository
from lineage.seeds import is_seed, seeds_of
from lineage.states import State, open_state
from lineage.targets import Target, find_target

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


class Input(Frozen):
    """Something that a run read."""

    file: File
    role: Role
    blob: str | None = None
    """Git's id of it in the revision."""
    producers: tuple[str, ...] = ()


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
    graph, contents = Graph(state), Contents(state)
    found = find_target(target, graph, contents)
    names = graph.upstream(found.runs)
    recorded = Recording(repository, state)
    frozen, unread = _frozen(state)
    steps = [step(graph.runs[name], graph, contents, recorded, name in frozen) for name in names]
    gaps = [*graph.gaps, *unread, *recorded.gaps(), *_missing_manifests(names, graph, contents)]
    return Trace(
        target=found,
        revision=state.name,
        commit=repository.commit(state.commit) if state.commit else None,
        steps=tuple(steps),
        environment=environment_files(state),
        pins=_merged(steps),
        gaps=tuple(gaps),
    )


def _frozen(state: State) -> tuple[frozenset[str], list[Gap]]:
    said = frozen_stages(state)
    what = "it is unknown which stages are frozen"
    return said.frozen(), [Gap(where=path, what=f"{why}: {what}") for path, why in said.unread.items()]


def step(run: Run, graph: Graph, contents: Contents, recorded: "Recording", frozen: bool) -> Step:
    """A run with all that is known of it."""
    manifest = manifest_of(run, contents)
    parameters = tuple(Parameter(file=f, key=k, value=v, seed=is_seed(k)) for f, k, v in run.settings())
    return Step(
        name=run.name,
        kind=run.kind,
        folder=run.folder,
        command=run.command,
        parameters=parameters,
        seeds=tuple(seeds_of(run)),
        inputs=tuple(_input(file, graph) for file in run.inputs),
        outputs=run.outputs,
        environment=manifest.environment if manifest is not None else None,
        pins=tuple(own_pins(run, manifest, graph.runs.values())),
        frozen=frozen,
        recorded=recorded.of(run),
    )


def _input(file: File, graph: Graph) -> Input:
    producers = tuple(dict.fromkeys(run.name for run, _ in graph.producers(file.path)))
    blob = graph.state.blob(file.path)
    if producers:
        return Input(file=file, role=Role.ARTIFACT, producers=producers)
    if file.is_external:
        return Input(file=file, role=Role.EXTERNAL)
    kept = blob is not None or bool(graph.state.committed_under(file.path))
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


def _missing_manifests(names: Sequence[str], graph: Graph, contents: Contents) -> Iterator[Gap]:
    for name in names:
        for file in graph.runs[name].outputs:
            if is_manifest(file.path) and contents.read(file) is None:
                yield Gap(where=file.path, what="neither here nor in the cache: the run's environment is unknown")


class Recording:
    """When a run's record came into history: the oldest commit in a row that has it as it is.

    Args:
        state: where to start; the commit, or the workspace on its commit.
    """

    def __init__(self, repository: Repository, state: State) -> None:
        self._repository = repository
        self._state = state
        self._texts: dict[str, Mapping[str, Any]] = {}
        self._blobs: dict[str, list[tuple[str, str | None]]] = {}

    def of(self, run: Run) -> Commit | None:
        """The commit that first held a run's record; None where none does."""
        data = self._state.read(run.file)
        if data is None:
            return None
        record, first = self._record(data, run), None
        for commit, blob in self._history(run.file):
            if blob is None or self._record_in(blob, run) != record:
                break
            first = commit
        else:
            if self._repository.is_shallow:  # older commits, which are not here, may have held it before
                return None
        return self._repository.commit(first) if first is not None else None

    def gaps(self) -> list[Gap]:
        """Where history is cut off."""
        if not self._repository.is_shallow:
            return []
        return [Gap(where="git", what="this clone is shallow: older commits are not here (git fetch --unshallow)")]

    def _history(self, file: str) -> list[tuple[str, str | None]]:
        """(Commit, blob of a file in it), newest first."""
        if file not in self._blobs:
            start, path = self._state.history_of(file)
            commits = self._repository.history(start) if start is not None else ()
            self._blobs[file] = [(commit, self._repository.blob(commit, path)) for commit in commits]
        return self._blobs[file]

    def _record_in(self, blob: str, run: Run) -> Any:
        key = blob if run.kind is Kind.STAGE else f"{blob} {run.name}"  # equal .dvc files of two folders are one blob
        if key not in self._texts:
            self._texts[key] = _records(self._repository.git[blob].read_raw(), run)
        return self._texts[key].get(run.name.rpartition(":")[2])

    def _record(self, data: bytes, run: Run) -> Any:
        return _records(data, run).get(run.name.rpartition(":")[2])


def _records(data: bytes, run: Run) -> Mapping[str, Any]:
    """What a file of DVC's says of each run: its text where that is enough, which is fast."""
    if run.kind is not Kind.STAGE:
        return {run.name: data}
    texts = stage_texts(data)
    try:
        return texts if texts is not None else lock_stages(data)
    except Unreadable:
        return {}
