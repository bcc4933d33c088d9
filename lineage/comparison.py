"""Two records, run by run: what is each run's own difference, what follows from above, what nothing explains.

Hashes nothing but small files that git keeps.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from lineage.changes import Change, Effect, Entry, entered, file_kind, package_changes, parameter_kind
from lineage.checks.case import Case
from lineage.graph import Graph
from lineage.manifests import is_manifest
from lineage.model import File, Frozen, Kind, Run
from lineage.trace import environment_files
from lineage.values import differing, value_at
from lineage.waiting import waiting

METRICS = (".json", ".yaml", ".yml", ".toml")


class Result(Frozen):
    """An output that differs."""

    run: str
    path: str
    before: str | None
    """Its hash."""
    after: str | None
    numbers: tuple[tuple[str, Any, Any], ...] = ()
    """Of metrics: (key, before, after) of what differs."""


class Comparison:
    """Two records, run by run. Hashes nothing but small files that git keeps.

    Args:
        suspected: runs of which something is wrong by itself, so that it isn't unexplained.
        contradicted: those of them whose manifest denies what dvc.lock says.
        recorded_only: whether to leave out what lies in the files and was not run since.
    """

    def __init__(
        self,
        before: Case,
        after: Case,
        suspected: frozenset[str] = frozenset(),
        contradicted: frozenset[str] = frozenset(),
        recorded_only: bool = False,
    ) -> None:
        self.before, self.after = before, after
        self.suspected, self.contradicted = suspected, contradicted
        self.sides = (before, after)
        self._recorded_only = recorded_only
        self.own: dict[str, list[Entry]] = {}
        names, both = dict.fromkeys((*before.names, *after.names)), {*before.names} & {*after.names}
        self.common = [n for n in names if n in both]
        self._only = [n for n in names if n not in both]
        for name in self.common:
            self.own[name] = [*self._own(before.graph.runs[name], after.graph.runs[name])]

    def entries(self) -> Iterator[Entry]:
        """Every difference, at the run where it enters."""
        for name in self._only:
            if name in self.after.names:
                yield from (entry.mirrored() for entry in self._one_sided(self.after, self.before, name))
            else:
                yield from self._one_sided(self.before, self.after, name)
        packages = [*self._environment()]
        told = {entry.what for own in self.own.values() for entry in own if entry.kind is Change.ENVIRONMENT}
        for name in self.common:
            effect = self._effect(name)
            recorded = [e.model_copy(update={"effect": effect}) for e in self.own[name] if not e.effect]
            yield from recorded
            yield from (e for e in self.own[name] if e.effect)
            if name in self.suspected or recorded or not self.outputs_differ(name) or self.upstream_differs(name):
                continue
            blamed = [e for e in packages if self._could_explain(e, name)]
            told |= {e.what for e in blamed}
            yield from self._unexplained(name, blamed)
        yield from (e for e in packages if not told & {e.what, *e.what.split(": ")})

    def unrecorded(self) -> Iterator[tuple[Case, int]]:
        """A side, and how many runs that the other has recorded it only declares."""
        for side, other in (self.sides, self.sides[::-1]):
            count = sum(name in other.names and side.declares(name) for name in self._only)
            if count and not self._recorded_only:
                yield side, count

    def _one_sided(self, has: Case, lacks: Case, name: str) -> Iterator[Entry]:
        """A run that only one side has recorded; where the other declares it, what it would read there."""
        if lacks.declares(name) and not self._recorded_only:
            yield from waiting(has, lacks, name)
            return
        command = " && ".join(has.graph.runs[name].command)
        yield Entry(run=name, kind=Change.REMOVED, what=name, before=command, after=None)

    def carried(self) -> Iterator[str]:
        """Runs whose outputs differ only because what they read does."""
        for name in self.common:
            ran = any(entry.effect is not Effect.NOT_RUN for entry in self.own[name])
            if self.outputs_differ(name) and self.upstream_differs(name) and not ran:
                yield name

    def results(self) -> Iterator[Result]:
        """Outputs that differ and that no other run reads, or that git keeps."""
        graph = self.before.graph
        read = {link.output.path for name in self.before.names for link in graph.links(graph.runs[name])}
        for name in self.common:
            old, new = self._run(name)
            hashes = {f.path: f for f in old.outputs}
            for file in new.outputs:
                before = hashes.get(file.path)
                if before is None or before.hash == file.hash or is_manifest(file.path):
                    continue
                kept = any(side.state.keeps(file.path) for side in self.sides)
                if kept and before.is_folder and file.is_folder:
                    yield from self._results_inside(name, before, file)
                elif kept or file.path not in read:
                    yield self._result(name, before, file)

    def _results_inside(self, name: str, old: File, new: File) -> Iterator[Result]:
        """What differs in a folder that git keeps, as far as its files are known."""
        a, b = self.before.contents.listing(old), self.after.contents.listing(new)
        if a is None or b is None:
            yield self._result(name, old, new)
            return
        for path in sorted({*a, *b}):
            if a.get(path) != b.get(path):
                yield self._result(name, *(File(f"{new.path}/{path}", side.get(path)) for side in (a, b)))

    def _result(self, name: str, old: File, new: File) -> Result:
        return Result(run=name, path=new.path, before=old.hash, after=new.hash, numbers=self._numbers(old, new))

    def outputs_differ(self, name: str) -> bool:
        """Whether a run made other bytes; its manifest, which records its code, doesn't count."""
        old, new = ({f.path: f.hash for f in run.outputs if not is_manifest(f.path)} for run in self._run(name))
        return old != new

    def upstream_differs(self, name: str) -> bool:
        """Whether a run read other artifacts of other runs."""
        old, new = self._run(name)
        return self._read(self.before.graph, old) != self._read(self.after.graph, new)

    def _run(self, name: str) -> tuple[Run, Run]:
        return self.before.graph.runs[name], self.after.graph.runs[name]

    @staticmethod
    def _read(graph: Graph, run: Run) -> dict[str, str | None]:
        return {file.path: file.hash for file in run.inputs if graph.producers(file.path)}

    def _effect(self, name: str) -> Effect:
        if name in self.contradicted:
            return Effect.CONTRADICTED
        if not self.outputs_differ(name):
            return Effect.IDENTICAL
        return Effect.MIXED if self.upstream_differs(name) else Effect.CHANGED

    def _own(self, old: Run, new: Run) -> Iterator[Entry]:
        if self._recorded_only and old == new:
            return
        if old.command != new.command:
            yield entered(new.name, Change.COMMAND, "cmd", " && ".join(old.command), " && ".join(new.command))
        elif not self._recorded_only and new.name in self._declared:
            before, after = self._declared[new.name]
            yield entered(new.name, Change.COMMAND, "cmd", before, after, Effect.NOT_RUN)
        yield from self._parameters(old, new)
        if new.kind is Kind.STAGE:
            yield from self._files(old, new)
            yield from self._manifest_environment(old, new)
        else:
            yield from self._data(old, new)

    @cached_property
    def _declared(self) -> dict[str, tuple[str, str]]:
        """Run -> the commands that dvc.yaml says on the two sides, where they differ; the records may know neither."""
        old, new = (side.declared.stages for side in self.sides)
        pairs = {n: (old[n].command, new[n].command) for n in self.common if n in old and n in new}
        return {n: (" && ".join(a), " && ".join(b)) for n, (a, b) in pairs.items() if a != b}

    def _parameters(self, old: Run, new: Run) -> Iterator[Entry]:
        for file in [*old.parameters, *(f for f in new.parameters if f not in old.parameters)]:
            then, now = old.parameters.get(file, {}), new.parameters.get(file, {})
            recorded = {key: (a, b) for key, a, b in differing(dict(then), dict(now))}
            for key, (a, b) in recorded.items():
                yield entered(new.name, parameter_kind(key), f"{file}: {key}", a, b)
            for key in {} if self._recorded_only else {**then, **now}:
                then_now = [value_at(side.parameters(file), key) for side in self.sides]
                for inner, a, b in differing(then_now[0], then_now[1], key):
                    if inner not in recorded:
                        yield entered(new.name, parameter_kind(inner), f"{file}: {inner}", a, b, Effect.NOT_RUN)

    def _files(self, old: Run, new: Run) -> Iterator[Entry]:
        """Code and tracked data: what the runs read, and what lies there now."""
        then = {file.path: file for file in self.before.graph.own_inputs(old)}
        now = {file.path: file for file in self.after.graph.own_inputs(new)}
        moved = _moved(then, now)
        for path, to in moved.items():
            yield entered(new.name, Change.MOVED, f"{path} -> {to}", then[path].hash, now[to].hash)
        for path in [p for p in {**then, **now} if p not in moved and p not in moved.values()]:
            a, b = then.get(path), now.get(path)
            hashes = (a.hash if a else None, b.hash if b else None)
            if hashes[0] != hashes[1]:
                yield from self._file(new, path, hashes, Effect.NONE)
            elif a is not None and not self._recorded_only:
                current = (self.before.current_hash(a), self.after.current_hash(a))
                if current[0] != current[1]:
                    yield from self._file(new, path, current, Effect.NOT_RUN)

    def _file(self, run: Run, path: str, hashes: tuple[Any, Any], effect: Effect) -> Iterator[Entry]:
        folders = (self.before.files_in(path), self.after.files_in(path))
        if not any(folders):
            data = [side.recorded_bytes(path, h) for side, h in zip(self.sides, hashes, strict=True)]
            kind, detail = file_kind(path, *data)
            yield Entry(
                run=run.name, kind=kind, what=path, before=hashes[0], after=hashes[1], effect=effect, detail=detail
            )
            return
        for inner in sorted({*folders[0], *folders[1]}):
            inside = (folders[0].get(inner), folders[1].get(inner))
            if inside[0] != inside[1]:
                yield from self._file(run, f"{path}/{inner}", inside, effect)

    def _data(self, old: Run, new: Run) -> Iterator[Entry]:
        """What a person added or imported: its outputs are its own."""
        if (old.origin or new.origin) and old.origin != new.origin:
            for key, a, b in differing(dict(old.origin), dict(new.origin)):
                yield entered(new.name, Change.SOURCE, f"{new.file}: {key}", a, b)
            return
        then = {file.path: file for file in old.outputs}
        for file in new.outputs:
            before = then.get(file.path)
            if before is not None and before.hash != file.hash:
                yield from self._data_file(new, before, file)

    def _data_file(self, run: Run, old: File, new: File) -> Iterator[Entry]:
        if old.is_folder and new.is_folder:
            a, b = self.before.contents.listing(old) or {}, self.after.contents.listing(new) or {}
            changed = [p for p in sorted({*a, *b}) if a.get(p) != b.get(p)]
            for p in changed:
                inner = [File(f"{new.path}/{p}", side.get(p)) for side in (a, b)]
                yield from self._data_file(run, *inner)
            if changed:
                return
        data = [side.contents.read(f) for side, f in ((self.before, old), (self.after, new))]
        kind, detail = file_kind(new.path if not new.is_folder else "x.bin", *data)
        kind = Change.ROWS if kind is Change.CODE else kind
        yield Entry(run=run.name, kind=kind, what=new.path, before=old.hash, after=new.hash, detail=detail)

    def _manifest_environment(self, old: Run, new: Run) -> Iterator[Entry]:
        a, b = self.before.manifest(old), self.after.manifest(new)
        if a is None or b is None:
            return
        then, now = ({**m.environment.locks, **m.environment.versions, "python": m.environment.python} for m in (a, b))
        for what, before, after in differing(then, now):
            yield entered(new.name, Change.ENVIRONMENT, what, before, after)

    def _environment(self) -> Iterator[Entry]:
        """Environment locks in git that differ, for runs that keep no manifest of it."""
        locks = [environment_files(side.state) for side in self.sides]
        for path in sorted({*locks[0], *locks[1]}):
            data = [side.state.committed(path) for side in self.sides]
            for package, (before, after) in package_changes(*data).items():
                what = f"{path}: {package}"
                yield Entry(run=None, kind=Change.ENVIRONMENT, what=what, before=before, after=after)

    def _could_explain(self, entry: Entry, name: str) -> bool:
        """Whether a package of an environment lock is one that a run's manifests say nothing of."""
        path, _, package = entry.what.partition(": ")
        manifests = [side.manifest(run) for side, run in zip(self.sides, self._run(name), strict=True)]
        said = [{*m.environment.locks, *m.environment.versions} if m is not None else set() for m in manifests]
        return not any(what in said[0] & said[1] for what in (path, package))

    def _unexplained(self, name: str, environment: Sequence[Entry]) -> Iterator[Entry]:
        if environment:
            yield from (e.model_copy(update={"run": name, "effect": Effect.CHANGED}) for e in environment)
            return
        old, new = ({f.path: f.hash for f in run.outputs if not is_manifest(f.path)} for run in self._run(name))
        for path, a, b in differing(old, new):
            yield entered(name, Change.UNEXPLAINED, path, a, b)

    def _numbers(self, old: File, new: File) -> tuple[tuple[str, Any, Any], ...]:
        if old.is_folder or not new.path.endswith(METRICS):
            return ()
        values = [side.contents.value(f) for side, f in ((self.before, old), (self.after, new))]
        if not all(isinstance(value, dict) for value in values):
            return ()
        return tuple((key, a, b) for key, a, b in differing(*values))


def _moved(then: Mapping[str, File], now: Mapping[str, File]) -> dict[str, str]:
    """The path of a file that is gone -> that of a new one with the same hash."""
    added = {file.hash: path for path, file in now.items() if path not in then and file.hash is not None}
    gone = {path: added[file.hash] for path, file in then.items() if path not in now and file.hash in added}
    return gone if len({*gone.values()}) == len(gone) else {}
