"""Every run that history holds, once, with the commit that it came with; found by what it made and what it read.

History is all commits of all branches, tags and experiments. A file of DVC's is read once for all commits that have it,
and a stage's text once for all files that do. Hashes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lineage.contents import Contents, part_hash
from lineage.declared import pipeline_file
from lineage.graph import Graph, Reader
from lineage.model import Commit, File, Frozen, Gap, Run
from lineage.repository import Repository
from lineage.states import Committed

_Version = tuple[str, str, str | None]
"""A DVC file's path and blob, and that of the dvc.yaml beside it, which says where its stages run."""
_Found = dict[str, list[tuple["Entry", File]]]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A run as history has it."""

    run: Run
    commit: str
    """The oldest commit that holds this record."""
    order: int
    """How many commits are older."""


class Known(Frozen):
    """A run as history has it, in words."""

    run: str
    """DVC's address."""
    recorded: Commit
    """The oldest commit that holds this record."""
    commits: int
    """How many do."""
    last: Commit
    """The newest that does."""
    names: tuple[str, ...]
    """The branches, tags and experiments that hold it now."""


class Ledger:
    """The runs of all commits of a repository.

    Args:
        repository: the repository; what is checked out is taken in, whether or not a branch holds it.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.gaps: list[Gap] = []
        """What could not be read."""
        self.entries: list[Entry] = []
        """Oldest first."""
        self._of_run: dict[int, Entry] = {}
        self._versions: dict[_Version, tuple[Entry, ...]] = {}
        self._commits: dict[str, tuple[_Version, ...]] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._above: dict[str, set[str]] = {}
        self._listings: dict[tuple[str, str], dict[str, str]] = {}
        self._unlisted: set[tuple[str, File]] = set()
        head = repository.head()
        tips = [*([head] if head is not None else []), *(e.commit for e in repository.experiments(queued=False))]
        for order, commit in enumerate([*repository.all_commits(tips)][::-1]):
            self._commits[commit] = tuple(self._read(Committed(repository, commit[:10], commit), order))
        if repository.is_shallow:
            self.gaps.append(Gap(where="git", what="this clone is shallow: older commits are not here"))

    def _read(self, state: Committed, order: int) -> Iterator[_Version]:
        """The versions of DVC's files that a commit has; those that are new are read."""
        blobs = state.dvc_blobs()
        self.gaps += state.gaps
        for path in state.dvc_files():
            if not path.endswith((".dvc", "dvc.lock")):
                continue
            version = (path, blobs[path], blobs.get(pipeline_file(path)) if path.endswith("dvc.lock") else None)
            if version not in self._versions:
                self._versions[version] = self._entries(state, version, order)
            yield version

    def _entries(self, state: Committed, version: _Version, order: int) -> tuple[Entry, ...]:
        (path, blob, _), reader, found = version, Reader(state), []
        for run in reader.runs(path):
            if id(run) not in self._of_run:
                self._of_run[id(run)] = Entry(run, str(state.commit), order)
                self.entries.append(self._of_run[id(run)])
            found.append(self._of_run[id(run)])
        for gap in reader.gaps:  # another dvc.yaml beside it mends nothing
            if (gap.where, blob, gap.what) not in self._told:
                self._told.add((gap.where, blob, gap.what))
                self.gaps.append(Gap(where=f"{state.name}: {gap.where}", what=gap.what))
        return tuple(found)

    @cached_property
    def outputs(self) -> _Found:
        """Path -> the outputs that were recorded there."""
        return _by(lambda file: file.path, ((e, file) for e in self.entries for file in e.run.outputs))

    @cached_property
    def inputs(self) -> _Found:
        """Path -> the inputs that were recorded there."""
        return _by(lambda file: file.path, ((e, file) for e in self.entries for file in e.run.inputs))

    @cached_property
    def input_paths(self) -> list[str]:
        """The paths of all inputs, sorted."""
        return sorted(self.inputs)

    @cached_property
    def made(self) -> _Found:
        """Hash -> the outputs that have it."""
        return _by(lambda file: file.hash, ((e, file) for e in self.entries for file in e.run.outputs))

    @cached_property
    def read(self) -> _Found:
        """Hash -> the inputs that have it."""
        return _by(lambda file: file.hash, ((e, file) for e in self.entries for file in e.run.inputs))

    def outputs_with(self, hashes: Iterable[str]) -> Iterator[tuple[Entry, File]]:
        """The outputs whose hash is, or begins with, one of these."""
        yield from _with(self.made, tuple(hashes))

    def inputs_with(self, hashes: Iterable[str]) -> Iterator[tuple[Entry, File]]:
        """The inputs whose hash is, or begins with, one of these."""
        yield from _with(self.read, tuple(hashes))

    def parts_with(self, hashes: Iterable[str]) -> Iterator[tuple[Entry, File]]:
        """The files in folders that runs made whose hash is, or begins with, one of these."""
        begin = tuple(hashes)
        for places in self._folders():
            listing = next(filter(None, (self.listing(entry, output) for entry, output in places)), {})
            inside = [(path, digest) for path, digest in listing.items() if digest.startswith(begin)]
            for entry, output in places if inside else ():
                yield from ((entry, File(f"{output.path}/{p}", digest, output.algorithm)) for p, digest in inside)

    def unlisted(self) -> Iterator[str]:
        """The folders that runs made and whose lists are not here."""
        for places in self._folders():
            if all(self.listing(entry, output) is None for entry, output in places):
                yield f"{places[0][0].commit[:10]}: {places[0][1].path}"

    def _folders(self) -> Iterator[list[tuple[Entry, File]]]:
        """All places of each folder that runs made."""
        return (places for places in self.made.values() if places[0][1].is_folder)

    def entry(self, run: Run) -> Entry | None:
        """What history says of a run of one of its commits."""
        return self._of_run.get(id(run)) or next((e for e, _ in self._same(run) if e.run == run), None)

    def _same(self, run: Run) -> list[tuple[Entry, File]]:
        """Runs that made one of a run's outputs as it did."""
        return self.made.get(run.outputs[0].hash or "", []) if run.outputs else []

    def graph(self, commit: str) -> Graph:
        """All runs of a commit."""
        state = Committed(self.repository, commit[:10], commit)
        if commit not in self._commits:  # that nothing holds any more
            return Graph(state)
        return Graph(state, (entry.run for version in self._commits[commit] for entry in self._versions[version]))

    def holds(self, commit: str, entry: Entry) -> bool:
        """Whether a commit holds a run."""
        return any(
            entry in self._versions[version] for version in self._commits[commit] if version[0] == entry.run.file
        )

    def holders(self, entries: Iterable[Entry]) -> dict[Entry, list[str]]:
        """Each run -> the commits that hold it, oldest first."""
        asked = dict.fromkeys(entries)
        among = {version: [e for e in held if e in asked] for version, held in self._versions.items()}
        found: dict[Entry, list[str]] = {entry: [] for entry in asked}
        for commit, versions in self._commits.items():
            for entry in dict.fromkeys(e for version in versions for e in among[version]):
                found[entry].append(commit)
        return found

    def known(self, entries: Iterable[Entry]) -> dict[Entry, Known]:
        """What is known of runs, oldest first."""
        tips = {**self.repository.tips(), **{e.name: e.commit for e in self.repository.experiments(queued=False)}}
        found = {}
        for entry, commits in sorted(self.holders(entries).items(), key=lambda item: item[0].order):
            among = {*commits}
            found[entry] = Known(
                run=entry.run.name,
                recorded=self.repository.commit(entry.commit),
                commits=len(commits),
                last=self.repository.commit(commits[-1]),
                names=tuple(sorted(name for name, commit in tips.items() if commit in among)),
            )
        return found

    def makers(self, file: File) -> Iterator[Entry]:
        """The runs that made exactly this at its path, as an output or in a folder that is one."""
        path = file.path
        while path and file.hash is not None:
            for entry, output in self.outputs.get(path, ()):
                if self._agrees(entry, output, file):
                    yield entry
            path = path.rpartition("/")[0]

    def maker(self, file: File, before: str | None) -> Entry | None:
        """Of the runs that made this the last that a commit or those below it recorded, if any did."""
        found = [*self.makers(file)]
        if before is None or len(found) < 2:
            return found[-1] if found else None
        above = [entry for entry in found if entry.commit in self._upstream(before)]
        return max(above or found, key=lambda entry: entry.order)

    def _upstream(self, commit: str) -> set[str]:
        """A commit and all that it was made on, as far as they are here."""
        if commit not in self._above:
            found, waiting = {commit}, [commit]
            while waiting:
                parents = [p for p in self.repository.parents(waiting.pop()) if p in self._commits and p not in found]
                found.update(parents)
                waiting += parents
            self._above[commit] = found
        return self._above[commit]

    def _agrees(self, entry: Entry, output: File, file: File) -> bool:
        if output.path == file.path:
            return output.hash == file.hash
        listing = self.listing(entry, output) if output.is_folder else None
        return listing is not None and part_hash(listing, file.path[len(output.path) + 1 :]) == file.hash

    def listing(self, entry: Entry, output: File) -> dict[str, str] | None:
        """What lies in a folder that a run made: (path in it) -> hash; None where its list is not here."""
        known = self._listings.get((str(output.hash), output.algorithm))
        if known is None and (entry.commit, output) not in self._unlisted:
            known = Contents(Committed(self.repository, entry.commit[:10], entry.commit)).listing(output)
            if known is None:
                self._unlisted.add((entry.commit, output))
            else:
                self._listings[str(output.hash), output.algorithm] = known
        return known


@lru_cache(maxsize=1)
def ledger(repository: Repository) -> Ledger:
    """The repository's, read once for all questions of a command."""
    return Ledger(repository)


def _with(found: _Found, begin: tuple[str, ...]) -> Iterator[tuple[Entry, File]]:
    for digest, places in found.items():
        if digest.startswith(begin):
            yield from places


def _by(key: Callable[[File], str | None], files: Iterable[tuple[Entry, File]]) -> _Found:
    found: _Found = defaultdict(list)
    for entry, file in files:
        if (name := key(file)) is not None:
            found[name].append((entry, file))
    return found
