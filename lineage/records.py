"""record.json, which says what a kept record is: whose code made it, which files it has, what it left out.

A kept record mirrors a project: dvc.lock, dvc.yaml, parameters and the small outputs of a run, for git to keep while
the project's own files say something else. It is a folder with one compressed archive of them, or, as they once were
kept, with the files themselves. Knows no git and hashes nothing.
"""

import io
import lzma
import tarfile
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationError

from lineage.errors import AuditError
from lineage.model import Frozen

NAME = "record.json"
ARCHIVE = "record.tar.xz"
MAGIC = b"\xfd7zXZ\0"
"""What an archive begins with."""
LARGEST = 1 << 29
"""Bytes that an archive may hold."""
MEMORY = 1 << 28
"""Bytes that its decoder may ask for."""
MOST = 100_000
"""Files that it may hold."""


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
    return (folder / ARCHIVE).is_file() or (folder / NAME).is_file()


def files_of(folder: Path) -> Path:
    """The folder that a record's files lie in: its own, or that of its unpacked archive, until this process ends.

    Raises:
        AuditError: the archive isn't what `keep` writes.
    """
    archive = folder / ARCHIVE
    if not archive.is_file():
        return folder
    if archive.stat().st_size > LARGEST:
        raise AuditError(f"it is larger than {LARGEST} bytes", where=str(archive), expected="what `lineage keep` wrote")
    return unpacked(archive.read_bytes(), str(archive))


def packed(folder: Path, paths: Iterable[str]) -> bytes:
    """An archive of these files of a folder: the same files give the same bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(paths):
            data = (folder / path).read_bytes()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return lzma.compress(made.getvalue(), preset=6)


def unpacked(data: bytes, where: str) -> Path:
    """The folder that an archive is unpacked in, until this process ends.

    Raises:
        AuditError: it isn't what `keep` writes.
    """
    try:
        return _laid_out(data)
    except (lzma.LZMAError, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise AuditError(f"it is no kept record ({error})", where=where, expected="what `lineage keep` wrote") from None


@lru_cache(maxsize=64)
def _laid_out(data: bytes) -> Path:
    """The same for the same bytes, wherever they lie."""
    folder = tempfile.TemporaryDirectory(prefix="lineage-record-")
    _unpacked.append(folder)
    text = lzma.LZMADecompressor(memlimit=MEMORY).decompress(data, max_length=LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST} bytes")
    with tarfile.open(fileobj=io.BytesIO(text)) as archive:
        for number, entry in enumerate(archive):
            if number == MOST:
                raise ValueError(f"it holds more than {MOST} files")
            is_named = entry.name == NAME or _below(entry.name) == entry.name
            if not is_named or not entry.isfile() or entry.size > len(text):
                raise ValueError(f"{entry.name!r} is no file of a record")
            archive.extract(entry, folder.name, set_attrs=False, filter="data")
    return Path(folder.name).resolve()


_unpacked: list["tempfile.TemporaryDirectory[str]"] = []
"""Removed when the process ends."""


def read_record(folder: Path) -> Record:
    """What the record.json in a record's files says.

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
