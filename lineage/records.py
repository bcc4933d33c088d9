"""record.json, which says what a kept record is: whose code made it, which files it has, what it left out.

A kept record is a folder that mirrors a project: dvc.lock, dvc.yaml, parameters and the small outputs of a run, for git
to keep while the project's own files say something else. Knows no git and hashes nothing.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationError

from lineage.errors import AuditError
from lineage.model import Frozen

NAME = "record.json"


def _below(path: str) -> str:
    if path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts or path in ("", NAME):
        raise ValueError(f"{path!r} is no path in a record")
    return path


Below = Annotated[str, AfterValidator(_below)]
"""A path from the project's folder, and so from the record's."""


class LeftOut(Frozen):
    """An output that is too large to be kept: it is known by its hash."""

    path: Below
    hash: str
    size: int | None = None
    """Bytes, as dvc.lock has it."""
    files: dict[str, str] | None = None
    """Of a folder: (path in it) -> hash; None where that list is too long, or wasn't there."""


class Record(Frozen):
    """What a record.json says."""

    format: Literal[1] = 1
    commit: str
    """Whose code the stages ran."""
    kept: str
    """When, in ISO 8601."""
    files: dict[Below, str]
    """All that is kept -> MD5."""
    left_out: tuple[LeftOut, ...]

    def text(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"


def is_record(folder: Path) -> bool:
    """Whether a folder says that it is a kept record."""
    return (folder / NAME).is_file()


def read_record(folder: Path) -> Record:
    """What the record.json of a folder says.

    Raises:
        AuditError: it isn't what `keep` writes.
    """
    try:
        return Record.model_validate_json((folder / NAME).read_bytes())
    except (OSError, ValidationError) as error:
        why = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            if isinstance(error, ValidationError)
            else str(error.strerror)
        )
        raise AuditError(
            f"it is no kept record ({why})", where=str(folder / NAME), expected="what `lineage keep` wrote"
        ) from None
