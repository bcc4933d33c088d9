"""Every run that history holds, once, with the commit that it came with; found by what it made and what it read.

History is all commits of all branches, tags and experiments. A file of DVC's is read once for all commits that have it,
and a stage's text once for all files that do. Hashes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lineage.contents import Contents, part_hash
from lineage.graph import Graph, Reader, working_folders
from lineage.model import File, Gap, Run
from lineage.repository import Repository
from lineage.states import IGNORING, Committed

_Version = tuple[str, str, object]
"""A DVC file's path and blob, and where its stages run by the dvc.yaml beside it."""
_Found = dict[str, list[tuple["Entry", File]]]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A run as history has it."""

    run: Run
    commit: str
    """The oldest commit that holds this record."""
    order: int
    """How many commits are older."""


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
        self._folders: dict[str, object] = {}
        self._above: dict[str, set[str]] = {}
        self._ignored: dict[tuple[str, tuple[str, ...]], bool] = {}
        self._listings: dict[tuple[str, str], dict[str, str] | None] = {}
        head = repository.head()
        tips = [*([head] if head is not None else []), *(e.commit for e in repository.experiments(queued=False))]
        for order, commit in enumerate([*repository.all_commits(tips)][::-1]):
            self._commits[commit] = tuple(self._read(Committed(repository, commit[:10], commit), order))
        if repository.is_shallow:
            self.gaps.append(Gap(where="git", what="this clone is shallow: older commits are not here"))

    def _read(self, state: Committed, order: int) -> Iterator[_Version]:
        """The versions of DVC's files that a commit has; those that are new are read."""
        blobs = state.dvc_blobs()
        rules = tuple(f"{path} {blob}" for path, blob in blobs.items() if path.rpartition("/")[2] == IGNORING)
        for path, blob in blobs.items():
            if not path.endswith((".dvc", "dvc.lock")) or self._ignores(state, path, rules):
                continue
            beside = blobs.get(path[: -len("dvc.lock")] + "dvc.yaml") if path.endswith("dvc.lock") else None
            version = (path, blob, None if beside is None else self._working_folders(beside))
            if version not in self._versions:
                self._versions[version] = self._entries(state, path, order)
            yield version

    def _ignores(self, state: Committed, path: str, rules: tuple[str, ...]) -> bool:
        if (path, rules) not in self._ignored:
            self._ignored[path, rules] = state.ignores(path)
        return self._ignored[path, rules]

    def _working_folders(self, blob: str) -> object:
        """Where a dvc.yaml's stages run; of templates, which need its variables, the blob itself."""
        if blob not in self._folders:
            found = working_folders(self.repository.git[blob].read_raw())
            self._folders[blob] = blob if found is None else found
        return self._folders[blob]

    def _entries(self, state: Committed, path: str, order: int) -> tuple[Entry, ...]:
        reader, found = Reader(state), []
        for run in reader.runs(path):
            if id(run) not in self._of_run:
                self._of_run[id(run)] = Entry(run, str(state.commit), order)
                self.entries.append(self._of_run[id(run)])
            found.append(self._of_run[id(run)])
        self.gaps += [Gap(where=f"{state.name}: {gap.where}", what=gap.what) for gap in reader.gaps]
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
    def made(self) -> _Found:
        """Hash -> the outputs that have it."""
        return _by(lambda file: file.hash, ((e, file) for e in self.entries for file in e.run.outputs))

    @cached_property
    def read(self) -> _Found:
        """Hash -> the inputs that have it."""
        return _by(lambda file: file.hash, ((e, file) for e in self.entries for file in e.run.inputs))

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

    def holders(self, entries: Iterable[Entry]) -> dict[Entry, list[str]]:
        """Each run -> the commits that hold it, oldest first."""
        asked = dict.fromkeys(entries)
        among = {version: [e for e in held if e in asked] for version, held in self._versions.items()}
        found: dict[Entry, list[str]] = {entry: [] for entry in asked}
        for commit, versions in self._commits.items():
            for entry in dict.fromkeys(e for version in versions for e in among[version]):
                found[entry].append(commit)
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
        key = (str(output.hash), output.algorithm)
        if self._listings.get(key) is None:
            state = Committed(self.repository, entry.commit[:10], entry.commit)
            self._listings[key] = Contents(state).listing(output)
        return self._listings[key]


@lru_cache(maxsize=1)
def ledger(repository: Repository) -> Ledger:
    """The repository's, read once for all questions of a command."""
    return Ledger(repository)


def _by(key: Callable[[File], str | None], files: Iterable[tuple[Entry, File]]) -> _Found:
    found: _Found = defaultdict(list)
    for entry, file in files:
        if (name := key(file)) is not None:
            found[name].append((entry, file))
    return found
