"""Who made what a run read: by the hashes that both recorded, in a state's own record, else in history.

Paths alone say too little: after a partial `dvc repro`, a run has read what no run of its dvc.lock makes any more.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lineage.checks.case import Case
from lineage.contents import Recorded, part_hash
from lineage.graph import Graph
from lineage.hashing import LEGACY
from lineage.ledger import Entry, ledger
from lineage.manifests import manifest_of
from lineage.model import File, Run


@dataclass(frozen=True)
class Origin:
    """A run of a closure, with the record that has it."""

    run: Run
    graph: Graph
    past: str | None = None
    """The oldest commit that has it; None of a run that the state which is asked about has itself."""

    @property
    def name(self) -> str:
        """What tells it from all others of the closure: DVC's address, of a former run with its commit."""
        return self.run.name if self.past is None else f"{self.run.name} ({self.past[:10]})"

    @cached_property
    def contents(self) -> Recorded:
        """The bytes that it recorded."""
        return Recorded(self.graph.state)


@dataclass(frozen=True, slots=True)
class Makers:
    """Who made something that was read."""

    origins: tuple[Origin, ...] = ()
    gap: str | None = None
    """Why this isn't known for certain; where it is known to be none of the state's own, `origins` is empty."""
    is_made: bool = True
    """Whether runs make what lies there, so that it is no raw source."""


class Origins:
    """The runs upstream of a state's.

    Args:
        graph: the state's.
        recorded: the commit with which a run of the state came into history; None where none has it.
    """

    def __init__(self, graph: Graph, recorded: Callable[[Run], str | None] = lambda run: None) -> None:
        self.graph = graph
        self._recorded = recorded
        self._graphs: dict[str, Graph] = {}
        self._makers: dict[tuple[str, str], Makers] = {}

    def of(self, name: str) -> Origin:
        """A run of the state itself."""
        return Origin(self.graph.runs[name], self.graph)

    def makers(self, reader: Origin, file: File) -> Makers:
        """Who made an input of a run."""
        key = (reader.name, file.path)
        if key not in self._makers:
            self._makers[key] = self._search(reader, file)
        return self._makers[key]

    def above(self, reader: Origin) -> dict[str, Origin]:
        """Name -> each run that made something that a run read."""
        found = (origin for file in reader.run.inputs for origin in self.makers(reader, file).origins)
        return {origin.name: origin for origin in found}

    def upstream(self, roots: Iterable[Origin]) -> dict[str, Origin]:
        """These runs and all that they depend on by name, what is read before what reads it."""
        ordered: dict[str, Origin] = {}
        waiting: set[str] = set()
        for root in roots:
            stack: list[tuple[Origin, Iterator[Origin]]] = []
            following: Origin | None = root if root.name not in waiting else None
            while following is not None or stack:
                if following is not None:
                    waiting.add(following.name)
                    above = self.above(following)
                    stack.append((following, iter([above[name] for name in sorted(above)])))
                following = next((o for o in stack[-1][1] if o.name not in waiting), None)
                if following is None:
                    origin = stack.pop()[0]
                    ordered[origin.name] = origin
        return ordered

    def _search(self, reader: Origin, file: File) -> Makers:
        own = [(run, out) for run, out in reader.graph.producers(file.path) if run.name != reader.run.name]
        if not own:
            return self._unmade(reader, file)
        fits = agrees(reader, file, own)
        makers = tuple(self._canonical(reader, run) for run, _ in own) if fits is not False else ()
        former = self._former(reader, file) if not fits else ()
        if fits or former:
            return Makers(former or makers)
        return Makers(makers, _doubt(reader, file, own, UNKNOWN if fits is None else NOWHERE))

    def _unmade(self, reader: Origin, file: File) -> Makers:
        """Of what no run of a state makes: code, or what a run made that is gone from there."""
        state = reader.graph.state
        if file.is_external or file.hash is None or state.blob(file.path) or state.committed_under(file.path):
            return Makers(is_made=False)
        former = self._former(reader, file)
        return Makers(former, is_made=bool(former))

    def _canonical(self, reader: Origin, run: Run) -> Origin:
        """A run of a reader's record as the closure calls it."""
        if reader.past is None:
            return self.of(run.name)
        entry = ledger(self.graph.state.repository).entry(run)
        return self._past(entry) if entry is not None else Origin(run, reader.graph, reader.past)

    def _past(self, entry: Entry) -> Origin:
        if self.graph.runs.get(entry.run.name) == entry.run:
            return self.of(entry.run.name)
        return Origin(entry.run, self._graph(entry.commit), entry.commit)

    def _graph(self, commit: str) -> Graph:
        if commit not in self._graphs:
            self._graphs[commit] = ledger(self.graph.state.repository).graph(commit)
        return self._graphs[commit]

    def _former(self, reader: Origin, file: File) -> tuple[Origin, ...]:
        """Runs of history that made what was read, where a state's own record has none."""
        before = reader.past or self._recorded(reader.run) or self.graph.state.commit
        entry = ledger(self.graph.state.repository).maker(file, before)
        if entry is not None:
            return (self._past(entry),)
        if before is None or before == reader.graph.state.commit:
            return ()
        then = Origin(reader.run, self._graph(before), before)  # when it was recorded, all may have fitted
        own = [(run, out) for run, out in then.graph.producers(file.path) if run.name != reader.run.name]
        return tuple(self._canonical(then, run) for run, _ in own) if own and agrees(then, file, own) else ()


def agrees(reader: Origin, file: File, own: Sequence[tuple[Run, File]]) -> bool | None:
    """Whether outputs are, hold, or together are what a run read; None where that can't be told.

    Args:
        own: the outputs at its path in the reader's own record.
    """
    _, output = own[0]
    if file.hash is None or any(made.hash is None for _, made in own):
        return None
    if _is_at(file.path, output):
        return _makes(reader, output, file.path, file.hash, file.algorithm)
    manifest = manifest_of(reader.run, reader.contents)
    read = {} if manifest is None else {p: e.md5 for p, e in manifest.inputs.items() if p.startswith(file.path + "/")}
    if not read:
        expected = None if file.algorithm == LEGACY else Case(reader.graph, ()).expected_folder(file)
        return None if expected is None else expected == file.hash
    found = [_makes(reader, out, p, read[p], file.algorithm) for _, out in own for p in read if _is_at(p, out)]
    return None if None in found and False not in found else all(found)


def _makes(reader: Origin, output: File, path: str, digest: str, algorithm: str) -> bool | None:
    """Whether an output has this hash, or a file of it; None where that can't be told."""
    made = output.hash
    if path != output.path:
        listing = reader.contents.listing(output) if output.is_folder else {}
        if listing is None:
            return None
        made = part_hash(listing, path[len(output.path) + 1 :])
    return True if made == digest else None if output.algorithm != algorithm else False


def _is_at(path: str, output: File) -> bool:
    return path == output.path or path.startswith(output.path + "/")


def _doubt(reader: Origin, file: File, own: Sequence[tuple[Run, File]], why: str) -> str:
    made = ", ".join(f"{run.name} made {output.hash or 'something'}" for run, output in own[:NAMED])
    more = f" and {len(own) - NAMED} more runs something" if len(own) > NAMED else ""
    return f"{reader.name} read {file.hash or 'something'}, {made}{more}: {why}"


UNKNOWN = "whether that is the same can't be told: no list of the files is here, or the hashes are of two kinds"
NOWHERE = "no run of history that is here made what was read"
NAMED = 3
"""Runs that a message names."""
