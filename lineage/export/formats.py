"""Which formats a closure can be exported to, and the one function that does. Writes no file."""

from typing import NamedTuple

from lineage.closure import Closure
from lineage.export.cyclonedx import cyclonedx
from lineage.export.kinds import Format
from lineage.export.openlineage import openlineage
from lineage.export.prov_json import prov_json
from lineage.hashing import Progress
from lineage.repository import Repository
from lineage.results import measured
from lineage.trace import trace


class Exported(NamedTuple):
    """A document."""

    data: bytes
    complete: bool
    """Whether all that it tells of could be read."""


def export(
    repository: Repository,
    target: str,
    format: Format,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Exported:
    """A target's closure in another format, validated; the same record gives the same bytes.

    Args:
        repository: the repository.
        target: an artifact's path, a number (`PATH:KEY`), a stage, or (part of) a hash.
        format: which one.
        revision: a commit, branch, tag, experiment; None for the workspace.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: the revision or the target isn't there; of CycloneDX also: the target's bytes are missing, or aren't
            those that the record names.
        lineage.export.validation.InvalidExport: the document isn't what the format's schema says: a mistake in here.
    """
    traced = trace(repository, target, revision)
    if format is Format.OPENLINEAGE:
        made = openlineage(traced, _namespace(repository, traced.commit.id if traced.commit is not None else None))
    elif format is Format.PROV:
        made = prov_json(traced)
    else:
        made = cyclonedx(Closure(repository, traced, progress), measured(repository, traced))
    return Exported(made, not traced.gaps)


def _namespace(repository: Repository, commit: str | None) -> str:
    """The project's name among others: its first commit, which every whole clone has."""
    first = [*repository.history(commit)][-1] if commit is not None else None
    folder = f":{repository.folder}" if repository.folder else ""
    return f"dvc:{first or 'uncommitted'}{folder}"
