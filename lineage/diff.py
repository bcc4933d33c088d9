"""How two revisions differ, and through which run each difference entered.

A run's own inputs are its command, parameters, code, tracked data and environment; what it reads from other runs is
not its own. So each difference is named where it enters, and what follows from it is only carried.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from lineage.changes import Change, Entry
from lineage.checks.case import Case
from lineage.checks.kept import check_kept
from lineage.checks.locks import check_links
from lineage.checks.manifests import check_manifests
from lineage.checks.outputs import Hashes, check_outputs
from lineage.comparison import Comparison, Result
from lineage.contents import Contents
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.hashing import Progress
from lineage.model import Commit, Fault, Finding, Frozen, Gap
from lineage.repository import Repository
from lineage.stale import with_stale
from lineage.states import open_state
from lineage.targets import Target, find_target

TAMPERING = frozenset({Fault.OUTPUT, Fault.METRIC, Fault.CACHE, Fault.FORGED, Fault.LOCK, Fault.MANIFEST, Fault.RECORD})
"""What is a difference between two sides by itself; what is merely out of date shows as what is out of date."""
CONTRADICTIONS = frozenset({Fault.FORGED, Fault.MANIFEST})
"""What a manifest says against dvc.lock."""


class Side(Frozen):
    """One of the two."""

    name: str
    commit: Commit | None
    value: Any = None
    """Of a target that is a number: what it is here."""


class Difference(Frozen):
    """How two sides differ."""

    a: Side
    b: Side
    target: str | None
    entries: tuple[Entry, ...]
    """What entered where: nearest to the sources first."""
    carried: tuple[str, ...]
    """Runs whose outputs differ only because what they read does."""
    results: tuple[Result, ...]
    """Outputs that differ and that no other run reads."""
    common: tuple[Finding, ...]
    """What is wrong on both sides, and so no difference."""
    gaps: tuple[Gap, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether something was tampered with, or may have been: no recorded difference explains it."""
        unexplained = (e.kind is Change.UNEXPLAINED or e.kind in TAMPERING for e in self.entries)
        return bool(self.common) or any(unexplained)

    @property
    def is_empty(self) -> bool:
        """Whether the two sides agree in everything."""
        return not self.entries and not self.carried and not self.results


def diff(
    repository: Repository,
    a: str | None,
    b: str | None,
    target: str | None = None,
    hash_bytes: bool = True,
    progress: Progress | None = None,
) -> Difference:
    """Compare two sides.

    Args:
        a, b: commits, branches, tags, experiments (also queued ones); None for the workspace.
        target: what to look upstream of; None for everything.
        hash_bytes: whether outputs are hashed anew, so that tampering shows. Without, the locks are believed.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: a revision isn't there, or the target is in neither.
    """
    graphs = [Graph(open_state(repository, name)) for name in (a, b)]
    targets = _targets(target, graphs) if target else [None, None]
    cases = [
        Case(graph, tuple(graph.upstream(found.runs) if found else (() if target else graph.upstream(graph.runs))))
        for graph, found in zip(graphs, targets, strict=True)
    ]
    before, after = cases
    hashes = Hashes(progress) if hash_bytes else None  # one for both: they share most files
    findings = [[*with_stale(case, _findings(case, hashes))] for case in cases]
    wrong = [finding for side in findings for finding in side if finding.proves_wrong]
    denied = frozenset(finding.run or "" for finding in wrong if finding.fault in CONTRADICTIONS)
    comparison = Comparison(before, after, frozenset(finding.run or "" for finding in wrong), denied)
    entries = [*comparison.entries(), *_found(*findings)]
    there = {*findings[1]}
    sides = [_side(repository, case, found) for case, found in zip(cases, targets, strict=True)]
    return Difference(
        a=sides[0],
        b=sides[1],
        target=target,
        entries=tuple(entries),
        carried=tuple(comparison.carried()),
        results=tuple(comparison.results()),
        common=tuple(f for f in findings[0] if f.fault in TAMPERING and f in there),
        gaps=(*_gaps(cases, findings), *_unrecorded(comparison)),
    )


def _targets(target: str, graphs: Sequence[Graph]) -> list[Target | None]:
    found: list[Target | None] = []
    problem: AuditError | None = None
    for graph in graphs:
        try:
            found.append(find_target(target, graph, Contents(graph.state)))
        except AuditError as error:
            found.append(None)
            problem = error
    if not any(found) and problem is not None:
        raise problem
    return found


def _side(repository: Repository, case: Case, target: Target | None) -> Side:
    commit = case.state.commit
    return Side(
        name=case.state.name,
        commit=repository.commit(commit) if commit else None,
        value=target.value if target else None,
    )


def _findings(case: Case, hashes: Hashes | None) -> list[Finding]:
    found = [*check_kept(case), *check_links(case), *check_manifests(case)]
    return [*check_outputs(case, hashes), *found] if hashes is not None else found


def _found(before: Sequence[Finding], after: Sequence[Finding]) -> Iterator[Entry]:
    """What was tampered with, or is stale, on one side only, or not in the same way on both."""
    then, now = _said(before), _said(after)
    for fault, run, path in {**then, **now}:
        a, b = (side.get((fault, run, path)) for side in (then, now))
        if a != b:
            yield Entry(run=run, kind=fault, what=path, before=a, after=b)


def _said(findings: Sequence[Finding]) -> dict[tuple[Fault, str | None, str], str]:
    """(What is found, of which run, of which file) -> in words."""
    said: dict[tuple[Fault, str | None, str], list[str]] = {}
    for finding in findings:
        if finding.fault in TAMPERING or finding.fault is Fault.STALE:
            said.setdefault((finding.fault, finding.run, finding.path), []).append(finding.what)
    return {key: "; ".join(whats) for key, whats in said.items()}


def _gaps(cases: Sequence[Case], findings: Sequence[Sequence[Finding]]) -> Iterator[Gap]:
    for case, found in zip(cases, findings, strict=True):
        for gap in case.graph.gaps:
            yield Gap(where=f"{case.state.name}: {gap.where}", what=gap.what)
        for path, why in case.declared.unread.items():
            yield Gap(where=f"{case.state.name}: {path}", what=why)
        for finding in found:
            if not finding.proves_wrong and finding.fault is not Fault.STALE:
                yield Gap(where=f"{case.state.name}: {finding.path}", what=f"{finding.fault}: {finding.what}")


def _unrecorded(comparison: Comparison) -> Iterator[Gap]:
    for side, count in comparison.unrecorded():
        yield Gap(where=side.state.name, what=f"{count} stages have not run there; what they would read is compared")
