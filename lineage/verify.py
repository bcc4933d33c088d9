"""Is the record true? Every hash is computed anew, and every statement is held against the others."""

from collections.abc import Iterator
from enum import StrEnum

from dvc.config import RemoteConfigError
from dvc.exceptions import DvcException
from pydantic import computed_field

from lineage.checks.case import Case
from lineage.checks.declarations import check_declarations
from lineage.checks.frozen import check_frozen
from lineage.checks.inputs import check_inputs
from lineage.checks.kept import check_kept
from lineage.checks.locks import check_links
from lineage.checks.manifests import check_manifests
from lineage.checks.numbers import check_numbers
from lineage.checks.outputs import Hashes, check_outputs, check_remote
from lineage.checks.parameters import check_committed, check_parameters
from lineage.checks.reports import check_reports
from lineage.checks.sources import check_sources
from lineage.contents import Contents
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.hashing import Progress
from lineage.model import Commit, Fault, File, Finding, Frozen
from lineage.repository import Repository
from lineage.stale import with_stale
from lineage.states import Kept, open_state
from lineage.targets import find_target


class Verdict(StrEnum):
    """What verification comes to."""

    HOLDS = "holds"
    WRONG = "wrong"
    PARTIAL = "partial"
    """Nothing was proved wrong, and not all could be checked."""


class Verification(Frozen):
    """What was checked, and what was found."""

    revision: str
    commit: Commit | None
    runs: int
    bytes: int
    """How many were hashed."""
    by_hash: int
    """Of a kept record: outputs that it left out and that are nowhere here, so that their hash is all that is known."""
    by_hash_bytes: int
    """How large they are, as dvc.lock has it."""
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        return Verdict.WRONG if not self.holds else Verdict.HOLDS if self.complete else Verdict.PARTIAL

    @property
    def holds(self) -> bool:
        """Whether nothing was proved wrong."""
        return not any(finding.proves_wrong for finding in self.findings)

    @property
    def complete(self) -> bool:
        """Whether everything could be checked."""
        return all(finding.proves_wrong for finding in self.findings)


def verify(
    repository: Repository,
    revision: str | None = None,
    target: str | None = None,
    remote: str | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a state's record.

    Args:
        revision: a commit, branch, tag, experiment or a kept record's folder; None for the workspace.
        target: what to check the closure of; None for everything.
        remote: the name of a DVC remote that is checked too; "" for the default one.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: the revision, target or remote isn't there.
    """
    graph = Graph(open_state(repository, revision))
    names = [*graph.runs]
    if target is not None:
        names = graph.upstream(find_target(target, graph, Contents(graph.state)).runs)
    case = Case(graph, tuple(names), whole=target is None)
    hashes = Hashes(progress)
    findings = [*findings_of(case, hashes)]
    if remote is not None:
        findings += check_remote(case, _remote(repository, remote), remote or "(default)")
    unseen = [*_unseen(case)] if remote is None else []  # of the remote, every object is asked for
    commit = graph.state.commit
    return Verification(
        revision=graph.state.name,
        commit=repository.commit(commit) if commit else None,
        runs=len(names),
        bytes=hashes.bytes,
        by_hash=len(unseen),
        by_hash_bytes=sum(file.size or 0 for file in unseen),
        findings=tuple(findings),
    )


def findings_of(case: Case, hashes: Hashes) -> Iterator[Finding]:
    """What is found in a case; what a former run explains is stale."""
    return with_stale(case, _found(case, hashes))


def _found(case: Case, hashes: Hashes) -> Iterator[Finding]:
    """What every check finds."""
    if not case.graph.runs:
        yield Finding(fault=Fault.UNCHECKED, run=None, path="dvc.lock", what="nothing is recorded here")
    for gap in case.graph.gaps:
        yield Finding(fault=Fault.UNREADABLE, run=None, path=gap.where, what=gap.what)
    yield from check_outputs(case, hashes)
    yield from check_kept(case)
    yield from check_links(case)
    yield from check_manifests(case)
    yield from check_inputs(case)
    yield from check_parameters(case)
    yield from check_frozen(case)
    yield from check_committed(case)
    yield from check_declarations(case)
    yield from check_sources(case)
    yield from check_numbers(case)
    yield from check_reports(case)


def _unseen(case: Case) -> Iterator[File]:
    """What a kept record left out and the cache doesn't have whole."""
    for _, file in case.outputs():
        if isinstance(case.state, Kept) and file.path in case.state.left_out:
            digests = [file.hash or "", *((case.contents.listing(file) or {}).values() if file.is_folder else ())]
            if not all(case.contents.object(digest, file.algorithm).exists for digest in digests):
                yield file


def _remote(repository: Repository, name: str) -> object:
    try:
        return repository.dvc.cloud.get_remote_odb(name or None, "verify")
    except (RemoteConfigError, DvcException) as error:
        raise AuditError(f"the remote can't be read: {error}", where=name or "the default remote") from None
