"""The record of one state: its runs, joined by the paths that they make and read. Hashes nothing."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Any

from lineage.declared import Declarations, declared_in, declared_stages, pipeline_file
from lineage.errors import Unreadable
from lineage.lockfile import data_run, lock_run, lock_stages, resolve
from lineage.model import File, Gap, Kind, Run
from lineage.states import State
from lineage.yaml12 import load

_Made = tuple[Run, File]
"""A run, and an output of it."""
_runs: dict[tuple[str, str, str, str, int], tuple[Any, Run]] = {}
"""Revisions share most entries of their locks: each is made a run once, and kept, so that its id stays its own."""
_files: dict[tuple[Any, ...], tuple[Run, ...] | Unreadable] = {}
"""A file of DVC's, by its path and content -> its runs: revisions share most files, too."""
_folders: dict[str | None, dict[str, str]] = {}
"""A dvc.yaml's content, by git's id -> stage, or all instances of one -> its `wdir` as written."""
_names: dict[str | None, frozenset[str] | None] = {}
"""The same -> its stages, each standing for all its instances; None where it can't be read."""


@dataclass(frozen=True, slots=True)
class Link:
    """An input of a run, and an output that it is, lies in, or contains."""

    consumer: Run
    input: File
    producer: Run
    output: File

    @property
    def whole(self) -> bool:
        """Whether input and output are the same path."""
        return self.input.path == self.output.path


class _Layout:
    """Where outputs lie; most revisions have the same."""

    def __init__(self, outputs: frozenset[str]) -> None:
        self._outputs = outputs
        self._known: dict[str, tuple[str, ...]] = {}

    def outputs_at(self, path: str) -> tuple[str, ...]:
        """The outputs that a path is, lies in, or contains."""
        if path not in self._known:
            self._known[path] = self._search(path)
        return self._known[path]

    def _search(self, path: str) -> tuple[str, ...]:
        for place in (path, *folders_above(path)):
            if place in self._outputs:
                return (place,)
        return tuple(sorted(output for output in self._outputs if output.startswith(path + "/")))

    @cached_property
    def nested(self) -> list[tuple[str, str]]:
        """(An output, one that lies in it); of several that it lies in the innermost."""
        inside = ((path, folders_above(path)) for path in sorted(self._outputs))
        around = ((path, next((f for f in folders if f in self._outputs), None)) for path, folders in inside)
        return [(folder, path) for path, folder in around if folder is not None]


@cache
def _layout_of(outputs: frozenset[str]) -> _Layout:
    return _Layout(outputs)


def folders_above(path: str) -> Iterator[str]:
    """The folders that a path lies in."""
    while (parent := posixpath.dirname(path)) not in ("", path):
        yield parent
        path = parent


class Reader:
    """Reads the runs of a state's DVC files.

    Args:
        state: a commit, an experiment, or the workspace.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.gaps: list[Gap] = []
        """What could not be read."""

    def runs(self, path: str) -> tuple[Run, ...]:
        """The runs of a dvc.lock or `.dvc` file; none of what is no such, or isn't here."""
        found = () if path.endswith("dvc.yaml") else self._file(path)
        if isinstance(found, Unreadable):
            self.gaps.append(Gap(where=path, what=str(found)))
            return ()
        return found

    def _file(self, path: str) -> tuple[Run, ...] | Unreadable:
        """The runs of a dvc.lock or `.dvc` file, or why it can't be read."""
        project = self.state.repository.folder
        folders = {} if path.endswith(".dvc") else self._folders(pipeline_file(path))
        key = (path, project, self.state.identity(path), *folders.items())
        if key not in _files:
            if (data := self.state.read(path)) is None:
                return ()
            try:
                made = [data_run(data, path, project)] if path.endswith(".dvc") else _lock(path, project, data, folders)
                _files[key] = tuple(made)
            except Unreadable as error:
                _files[key] = error
        return _files[key]

    def _folders(self, path: str) -> dict[str, str]:
        """Stage, or all instances of one -> its `wdir` in a dvc.yaml; dvc.lock doesn't say it."""
        content = self.state.identity(path)
        if content not in _folders:
            _folders[content] = working_folders(self.state.read(path) or b"")
        found = _folders[content]
        return self._resolved_folders(path) if any("${" in folder for folder in found.values()) else found

    def _resolved_folders(self, path: str) -> dict[str, str]:
        try:
            return {stage.stage: stage.folder for stage in declared_in(self.state, path)}
        except Unreadable as error:
            self.gaps.append(Gap(where=path, what=f"a wdir is a template, so that paths are unknown: {error}"))
            return {}


class Graph:
    """All runs of a state.

    Args:
        state: a commit, an experiment, or the workspace.
        runs: what its files say, where they were read before.
    """

    def __init__(self, state: State, runs: Iterable[Run] | None = None) -> None:
        self.state = state
        reader = Reader(state)
        found = (run for path in state.dvc_files() for run in reader.runs(path)) if runs is None else runs
        self.runs: dict[str, Run] = {run.name: run for run in found}
        self._instances: dict[str, frozenset[str] | None] = {}
        """A dvc.yaml -> all stages that it comes to; None where it can't be read."""
        self.unread: tuple[Gap, ...] = (*state.gaps, *_undated(state), *reader.gaps)

    @property
    def gaps(self) -> list[Gap]:
        """What could not be read, and of what it isn't known which run made it."""
        return [*self.unread, *self.disputed(self.runs)]

    def disputed(self, names: Iterable[str]) -> list[Gap]:
        """The outputs of these runs that another stage of dvc.yaml says that it made."""
        asked = frozenset(names)
        return [_refused(pair) for pair in self._outputs[1] if any(run.name in asked for run, _ in pair)]

    @property
    def made(self) -> dict[str, _Made]:
        """Path -> the run and the output that it is; not of a left-over run where another makes it."""
        return self._outputs[0]

    @cached_property
    def _outputs(self) -> tuple[dict[str, _Made], list[tuple[_Made, _Made]]]:
        at: dict[str, list[_Made]] = {}
        for run in self.runs.values():
            for file in run.outputs:
                at.setdefault(file.path, []).append((run, file))
        overlaps = [(path, path) for path, alike in at.items() if len(alike) > 1] + _layout_of(frozenset(at)).nested
        current = {path: [made for made in at[path] if self.is_current(made[0])] for path in {*chain(*overlaps)}}
        pairs = [pair for outer, inner in overlaps if (pair := _two(current[outer], current[inner])) is not None]
        for path, other in (*overlaps, *((inner, outer) for outer, inner in overlaps)):
            if current[other]:  # a left-over run has lost what another makes now
                at[path] = current[path]
        made = {path: alike[-1] for path, alike in at.items() if alike}
        return made, pairs if not self.unread else []

    @cached_property
    def declared(self) -> Declarations:
        """What the dvc.yaml files say now."""
        return declared_stages(self.state)

    def is_current(self, run: Run) -> bool:
        """Whether dvc.yaml has a run's stage still, as far as it can be read; DVC keeps the run if not."""
        if run.kind is not Kind.STAGE:
            return True
        path, name = pipeline_file(run.file), run.name.rpartition(":")[2]
        content = self.state.identity(path)
        if content not in _names:
            _names[content] = stage_names(self.state.read(path) or b"")
        written = _names[content]
        if written is not None and name.partition("@")[0] not in written:
            return False  # whatever the templates say, which take a while
        if "@" in name and path not in self._instances:
            try:
                self._instances[path] = frozenset(stage.name for stage in declared_in(self.state, path))
            except Unreadable:
                self._instances[path] = None
        known = self._instances[path] if "@" in name else None
        return known is None or run.name in known

    def producers(self, path: str) -> list[tuple[Run, File]]:
        """The outputs that a path is, lies in, or contains."""
        return [self.made[output] for output in self._layout.outputs_at(path)]

    @cached_property
    def _layout(self) -> _Layout:
        return _layout_of(frozenset(self.made))

    def links(self, run: Run) -> list[Link]:
        """What a run reads that other runs make."""
        return [
            Link(run, file, producer, output)
            for file in run.inputs
            for producer, output in self.producers(file.path)
            if producer.name != run.name
        ]

    def own_inputs(self, run: Run) -> list[File]:
        """What a run reads that no run makes: code, tracked data, external files."""
        return [file for file in run.inputs if not self.producers(file.path)]

    def upstream(self, names: Iterable[str]) -> list[str]:
        """These runs and all that they depend on, what is read before what reads it."""
        ordered: dict[str, None] = {}
        waiting: set[str] = set()

        def visit(name: str) -> None:
            stack: list[tuple[str, Iterator[str]]] = [(name, self._above(name))]
            waiting.add(name)
            while stack:
                current, above = stack[-1]
                following = next((n for n in above if n not in ordered and n not in waiting), None)
                if following is None:
                    stack.pop()
                    ordered[current] = None
                else:
                    waiting.add(following)
                    stack.append((following, self._above(following)))

        for name in names:
            if name not in ordered:
                visit(name)
        return [*ordered]

    def _above(self, name: str) -> Iterator[str]:
        return iter(sorted({link.producer.name for link in self.links(self.runs[name])}))

    def stages(self) -> list[Run]:
        """The runs that a command made."""
        return [run for run in self.runs.values() if run.kind is Kind.STAGE]


def _two(one: Sequence[_Made], other: Sequence[_Made]) -> tuple[_Made, _Made] | None:
    """An output of each that two runs make; None where there are none."""
    first = next(iter(one), None)
    second = next((made for made in other if first is not None and made[0] is not first[0]), None)
    return (first, second) if first is not None and second is not None else None


def _refused(overlap: tuple[_Made, _Made]) -> Gap:
    (one, output), (other, file) = overlap
    what = f"{one.name} makes {output.path}, and {other.name} {file.path}: who made it isn't known"
    return Gap(where=file.path, what=what)


def _undated(state: State) -> Iterator[Gap]:
    if state.commit is not None and not state.repository.commit(state.commit).time:
        yield Gap(where=f"commit {state.commit}", what="no calendar has its time")


def _lock(path: str, project: str, data: bytes, folders: Mapping[str, str]) -> Iterator[Run]:
    own = posixpath.dirname(path)
    for name, entry in lock_stages(data).items():
        folder = resolve(folders.get(name) or folders.get(name.split("@")[0]) or ".", own)
        known = (name, path, folder, project, id(entry))
        if known not in _runs:
            _runs[known] = entry, lock_run(name, entry, path, folder, project)
        yield _runs[known][1]


def working_folders(data: bytes) -> dict[str, str]:
    """Stage, or all instances of one -> its `wdir` as a dvc.yaml writes it; none where it can't be read."""
    found: dict[str, str] = {}
    for name, stage in (_stages(data) or {}).items() if b"wdir" in data else ():
        body = stage.get("do", stage) if isinstance(stage, dict) else None
        folder = body.get("wdir") if isinstance(body, dict) else None
        if isinstance(folder, str):
            found[name] = folder
    return found


def stage_names(data: bytes) -> frozenset[str] | None:
    """The stages that a dvc.yaml writes; None where it can't be read."""
    stages = _stages(data)
    return None if stages is None else frozenset(stages)


def _stages(data: bytes) -> dict[str, Any] | None:
    try:
        parsed = load(data)
    except Unreadable:
        return None
    stages = parsed.get("stages") if isinstance(parsed, dict) else None
    return {str(name): stage for name, stage in stages.items()} if isinstance(stages, dict) else {}
