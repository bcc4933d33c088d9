"""One metric over all commits and experiments, with the difference that explains each change.

Locks are read from git blobs and believed: `verify` says whether they are true. A value is that of the recorded bytes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lineage.changes import Entry
from lineage.checks.case import Case
from lineage.comparison import Comparison
from lineage.contents import Contents, Recorded
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.model import Commit, File, Frozen, Gap
from lineage.repository import Named, Repository
from lineage.states import Committed
from lineage.targets import made_at, readings
from lineage.values import ABSENT, same, value_at

Watched = Callable[[int, int], object]
"""Is told how many revisions were read, and of how many."""

NOWHERE = "neither in git nor in the cache"
EDITED = "what git has isn't what its run recorded (see: dvc-lineage verify)"
UNLISTED = "no list of the folder's files is here that makes its hash, so that what git has may be something else"


class Row(Frozen):
    """One commit or experiment that has the metric."""

    name: str
    """The experiment's name, or the commit's short id."""
    commit: Commit
    value: Any
    against: str | None
    """The row that it is compared with: its baseline or parent, else the experiment before it."""
    entries: tuple[Entry, ...]
    """What entered since then and changed something; empty where the value is the same."""


class History(Frozen):
    """A metric's values, oldest first."""

    metric: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]


def history(repository: Repository, metric: str, watched: Watched | None = None) -> History:
    """One metric over all commits and experiments.

    Args:
        metric: `PATH:KEY`; the path from git's root, or from the project's folder.

    Raises:
        AuditError: it is no `PATH:KEY`, or all could be read, and no commit and no experiment has it.
    """
    if not any(key for _, key in readings(metric)):
        raise AuditError(
            "a metric is a file and a key", where=metric, expected="such as reports/metrics.json:lm.sm.ppl"
        )
    walk = _Walk(repository, metric, watched or (lambda done, total: None))
    rows, gaps = [*walk.rows()], [*walk.gaps()]
    if not rows and not gaps:
        raise AuditError(
            "no commit and no experiment has it", where=metric, todo="See `dvc-lineage trace` for what there is"
        )
    return History(metric=metric, rows=tuple(rows), gaps=tuple(gaps))


class _Walk:
    """Every commit and experiment that has the metric, once."""

    def __init__(self, repository: Repository, metric: str, watched: Watched) -> None:
        self._repository, self._watched = repository, watched
        folders = dict.fromkeys(["", repository.folder])
        found = [(path, key) for path, key in readings(metric) if key]
        self._places = [(f"{folder}/{path}" if folder else path, key) for path, key in found for folder in folders]
        """Where it may be: (path from git's root, key)."""
        self._contents: dict[tuple[str | None, str | None], tuple[Any, str | None]] = {}
        """A file's hashes, git's and DVC's -> its content, and what is unknown or wrong of it."""
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._unread: dict[tuple[str, str], list[str]] = {}

    def rows(self) -> Iterator[Row]:
        """Commits at which the value changed, oldest first; then experiments in the order of their times."""
        commits = [*self._repository.all_commits()][::-1]
        experiments = [*self._repository.experiments(queued=False)]
        total = len(commits) + len(experiments)
        last: dict[str | None, str] = {}
        for done, commit in enumerate(commits):
            self._watched(done, total)
            parent = next((last[p] for p in self._repository.parents(commit) if p in last), None)
            if self._reads(Named(commit[:10], commit)):
                last[commit] = commit
                if parent is None or not self._same(parent, commit):
                    yield self._row(commit, parent)
            elif parent is not None:  # it may only be unreadable there: what follows is held against what came before
                last[commit] = parent
        for done, named in enumerate(sorted(experiments, key=self._when), len(commits)):
            self._watched(done, total)
            if self._reads(named):
                yield self._row(named.commit, last.get(named.baseline))
                if named.baseline not in self._names:
                    last[named.baseline] = named.commit

    def gaps(self) -> Iterator[Gap]:
        """What could not be read, each thing once."""
        for (where, what), names in self._unread.items():
            more = f" (and in {len(names) - 1} more revisions)" if len(names) > 1 else ""
            yield Gap(where=f"{names[0]}: {where}", what=f"{what}{more}")
        if self._repository.is_shallow:
            yield Gap(where="git", what="this clone is shallow: older commits are not here")

    def _note(self, name: str, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            names = self._unread.setdefault((gap.where, gap.what), [])
            names += [] if name in names else [name]

    def _when(self, named: Named) -> tuple[str, str]:
        return self._repository.commit(named.commit).time, named.name

    def _reads(self, named: Named) -> bool:
        """Reads a commit's record and value; whether it has the metric."""
        graph = Graph(Committed(self._repository, named.name, named.commit))
        self._note(named.name, graph.unread)
        found = self._file(graph)
        if found is None:
            return False
        file, key = found
        content, problem = self._content(file, graph)
        value = value_at(content, key)
        self._note(named.name, [] if problem is None else [Gap(where=file.path, what=problem)])
        if value is ABSENT:
            return False
        self._values[named.commit], self._names[named.commit] = value, named.name
        return True

    def _file(self, graph: Graph) -> tuple[File, str] | None:
        """The file that has the metric in a state, and the key there; None where none of that name is made or kept."""
        contents = Contents(graph.state)
        made = ((made_at(path, graph, contents), key) for path, key in self._places)
        kept = ((File(path), key) for path, key in self._places if graph.state.keeps(path))
        return next(((file, key) for file, key in (*made, *kept) if file is not None), None)

    def _content(self, file: File, graph: Graph) -> tuple[Any, str | None]:
        """What the recorded bytes say, None where they are not here; and what is unknown or wrong of them."""
        known = (graph.state.blob(file.path), file.hash)
        if file.hash is None and graph.producers(file.path):
            return None, NOWHERE if known[0] is None else UNLISTED
        if known not in self._contents:
            contents = Recorded(graph.state)
            value = contents.value(file)
            is_edited = file.hash is not None and contents.current_hash(file) not in (None, file.hash)
            self._contents[known] = value, EDITED if is_edited else NOWHERE if value is None else None
        return self._contents[known]

    def _same(self, before: str, after: str) -> bool:
        return same(self._values[before], self._values[after])

    def _row(self, commit: str, against: str | None) -> Row:
        entries: tuple[Entry, ...] = ()
        if against is not None and not self._same(against, commit):
            comparison = Comparison(self._case(against), self._case(commit), recorded_only=True)
            entries = tuple(entry for entry in comparison.entries() if entry.effect.counts)
        return Row(
            name=self._names[commit],
            commit=self._repository.commit(commit),
            value=self._values[commit],
            against=self._names[against] if against is not None else None,
            entries=entries,
        )

    def _case(self, commit: str) -> Case:
        """What the metric came from."""
        graph = Graph(Committed(self._repository, self._names[commit], commit))
        found = self._file(graph)
        producers = graph.producers(found[0].path) if found is not None else []
        names = graph.upstream(run.name for run, _ in producers)
        self._note(graph.state.name, graph.disputed(names))
        return Case(graph, tuple(names))
