"""The record of one state: its runs, joined by the paths that they make and read. Hashes nothing."""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from lineage.declared import declared_in
from lineage.errors import Unreadable
from lineage.lockfile import data_run, lock_run, lock_stages, resolve
from lineage.model import File, Gap, Kind, Run
from lineage.states import State
from lineage.yaml12 import load

_runs: dict[tuple[str, str, str, str, int], tuple[Any, Run]] = {}
"""Revisions share most entries of their locks: each is made a run once, and kept, so that its id stays its own."""


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
        parent = path
        while parent:
            if parent in self._outputs:
                return (parent,)
            parent = posixpath.dirname(parent) if parent != "/" else ""
        return tuple(sorted(output for output in self._outputs if output.startswith(path + "/")))


_layouts: dict[frozenset[str], _Layout] = {}


class Reader:
    """Reads the runs of a state's DVC files.

    Args:
        state: a commit, an experiment, or the workspace.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.gaps: list[Gap] = []
        """What could not be read."""

    def runs(self, path: str) -> Iterator[Run]:
        """The runs of a dvc.lock or `.dvc` file."""
        data = None if path.endswith("dvc.yaml") else self.state.read(path)
        if data is None:
            return
        try:
            if path.endswith(".dvc"):
                yield data_run(data, path, self.state.repository.folder)
            else:
                yield from self._lock(path, data)
        except Unreadable as error:
            self.gaps.append(Gap(where=path, what=str(error)))

    def _lock(self, path: str, data: bytes) -> Iterator[Run]:
        own, project = posixpath.dirname(path), self.state.repository.folder
        folders = self._folders(posixpath.join(own, "dvc.yaml"))
        for name, entry in lock_stages(data).items():
            folder = resolve(folders.get(name) or folders.get(name.split("@")[0]) or ".", own)
            known = (name, path, folder, project, id(entry))
            if known not in _runs:
                _runs[known] = entry, lock_run(name, entry, path, folder, project)
            yield _runs[known][1]

    def _folders(self, path: str) -> dict[str, str]:
        """Stage, or all instances of one -> its `wdir` in a dvc.yaml; dvc.lock doesn't say it."""
        found = working_folders(self.state.read(path) or b"")
        return self._resolved_folders(path) if found is None else dict(found)

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
        self.gaps: list[Gap] = [*state.gaps, *_undated(state), *reader.gaps]

    @cached_property
    def made(self) -> dict[str, tuple[Run, File]]:
        """Path -> the run and the output that it is."""
        return {file.path: (run, file) for run in self.runs.values() for file in run.outputs}

    def producers(self, path: str) -> list[tuple[Run, File]]:
        """The outputs that a path is, lies in, or contains."""
        return [self.made[output] for output in self._layout.outputs_at(path)]

    @cached_property
    def _layout(self) -> "_Layout":
        outputs = frozenset(self.made)
        return _layouts.setdefault(outputs, _Layout(outputs))

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


@cache
def working_folders(data: bytes) -> tuple[tuple[str, str], ...] | None:
    """(Stage, its `wdir`) as a dvc.yaml has them; None where one is a template."""
    if b"wdir" not in data:
        return ()
    found = []
    for name, stage in declared(data).items():
        body = stage.get("do", stage) if isinstance(stage, dict) else {}
        folder = body.get("wdir") if isinstance(body, dict) else None
        if isinstance(folder, str):
            found.append((name, folder))
    return None if any("${" in folder for _, folder in found) else tuple(found)


def _undated(state: State) -> Iterator[Gap]:
    if state.commit is not None and not state.repository.commit(state.commit).time:
        yield Gap(where=f"commit {state.commit}", what="no calendar has its time")


def declared(data: bytes) -> dict[str, Any]:
    """The stages of a dvc.yaml by name, as written; empty where it can't be read."""
    try:
        parsed = load(data)
    except Unreadable:
        return {}
    stages = parsed.get("stages") if isinstance(parsed, dict) else None
    return stages if isinstance(stages, dict) else {}
