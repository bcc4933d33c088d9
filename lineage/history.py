"""One metric over all commits and experiments, with the difference that explains each change.

Locks are read from git blobs and hashed by nobody: `verify` says whether they are true.
"""

from collections.abc import Iterator
from typing import Any

from lineage.changes import Entry
from lineage.checks.case import Case
from lineage.comparison import Comparison
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.model import Commit, File, Frozen, Gap
from lineage.repository import Named, Repository
from lineage.states import Committed
from lineage.values import ABSENT, same, value_at


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


def history(repository: Repository, metric: str) -> History:
    """One metric over all commits and experiments.

    Args:
        metric: `PATH:KEY`.

    Raises:
        AuditError: it is no `PATH:KEY`, or no commit and no experiment has it.
    """
    path, colon, key = metric.partition(":")
    if not colon or not key:
        raise AuditError(
            "a metric is a file and a key", where=metric, expected="such as reports/metrics.json:lm.sm.ppl"
        )
    walk = _Walk(repository, path, key)
    rows = [*walk.rows()]
    if not rows:
        raise AuditError(
            "no commit and no experiment has it", where=metric, todo="See `dvc-lineage trace` for what there is"
        )
    return History(metric=metric, rows=tuple(rows), gaps=tuple(walk.gaps))


class _Walk:
    """Every commit and experiment that has the metric, once."""

    def __init__(self, repository: Repository, path: str, key: str) -> None:
        self._repository, self._path, self._key = repository, path, key
        self._cases: dict[str, Case] = {}
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self.gaps: list[Gap] = []

    def rows(self) -> Iterator[Row]:
        """Commits at which the value changed, oldest first; then experiments in the order of their times."""
        for commit in [*self._repository.all_commits()][::-1]:
            parent = next((c for c in self._repository.parents(commit) if c in self._names), None)
            if self._reads(Named(commit[:10], commit)) and (parent is None or not self._same(parent, commit)):
                yield self._row(commit, parent)
        last: dict[str | None, str] = {}
        experiments = self._repository.experiments(queued=False)
        for named in sorted(experiments, key=lambda e: (self._repository.commit(e.commit).time, e.name)):
            if self._reads(named):
                has_baseline = named.baseline is not None and named.baseline in self._names
                yield self._row(named.commit, named.baseline if has_baseline else last.get(named.baseline))
                last[named.baseline] = named.commit
        if self._repository.is_shallow:
            self.gaps.append(Gap(where="git", what="this clone is shallow: older commits are not here"))

    def _reads(self, named: Named) -> bool:
        """Reads a commit's record and value; whether it has the metric."""
        graph = Graph(Committed(self._repository, named.name, named.commit))
        self.gaps += [Gap(where=f"{named.name}: {gap.where}", what=gap.what) for gap in graph.gaps]
        made = graph.made.get(self._path)
        producers = [made[0].name] if made else []
        case = Case(graph, tuple(graph.upstream(producers)))
        content = case.contents.value(made[1] if made else File(self._path))
        value = value_at(content, self._key)
        if value is ABSENT:
            if made and content is None:
                self.gaps.append(Gap(where=f"{named.name}: {self._path}", what="neither in git nor in the cache"))
            return False
        self._cases[named.commit], self._values[named.commit] = case, value
        self._names[named.commit] = named.name
        return True

    def _same(self, before: str, after: str) -> bool:
        return same(self._values[before], self._values[after])

    def _row(self, commit: str, against: str | None) -> Row:
        entries: tuple[Entry, ...] = ()
        if against is not None and not self._same(against, commit):
            comparison = Comparison(self._cases[against], self._cases[commit], recorded_only=True)
            entries = tuple(entry for entry in comparison.entries() if entry.effect.counts)
        return Row(
            name=self._names[commit],
            commit=self._repository.commit(commit),
            value=self._values[commit],
            against=self._names[against] if against is not None else None,
            entries=entries,
        )
