"""Which runs of history made the bytes in a person's hand, and which read them: by their hash alone."""

from collections.abc import Iterable
from pathlib import Path

from lineage.errors import AuditError
from lineage.hashing import LEGACY, Progress, file_hash, folder_hash
from lineage.ledger import Entry, Known, ledger
from lineage.model import File, Frozen, Gap
from lineage.repository import Repository
from lineage.targets import HASH


class Place(Frozen):
    """Where a run of history had the bytes."""

    path: str
    hash: str
    by: Known
    """The run that made them there, or read them."""


class Found(Frozen):
    """What history knows of some bytes."""

    asked: str
    hashes: tuple[str, ...]
    """Of a file: DVC's, and that of DVC before 3.0, which took CRLF for LF; else what was asked for."""
    made: tuple[Place, ...]
    """Oldest first."""
    read: tuple[Place, ...]
    gaps: tuple[Gap, ...]


def find(repository: Repository, asked: str, progress: Progress | None = None) -> Found:
    """The runs of all commits and experiments that made what a file or folder holds, or what has a hash, or read it.

    Args:
        repository: whose history is searched.
        asked: a file or folder anywhere, or a hash, at least its first six characters.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: it is neither.
    """
    place, book = Path(asked), ledger(repository)
    is_here = place.is_file() or place.is_dir()
    if not is_here and not HASH.fullmatch(asked):
        raise AuditError("there is no such file, and it is no hash", where=asked, expected="a file, a folder or a hash")
    hashes = _hashes(place, progress) if is_here else (asked,)
    made = [*dict.fromkeys([*book.outputs_with(hashes), *book.parts_with(hashes)])]
    read = [*book.inputs_with(hashes)]
    known = book.known(entry for entry, _ in (*made, *read))
    lists = [] if made else [*book.unlisted()]
    more = f" and {len(lists) - 1:,} more" if len(lists) > 1 else ""
    what = "no list of the files that a run made there is here: it may be one of them (dvc fetch --all-commits)"
    return Found(
        asked=asked,
        hashes=hashes,
        made=_places(made, known),
        read=_places(read, known),
        gaps=(*book.gaps, *([Gap(where=f"{lists[0]}{more}", what=what)] if lists else [])),
    )


def _hashes(place: Path, progress: Progress | None) -> tuple[str, ...]:
    """As both kinds of DVC hash it, once where they agree."""
    if place.is_file():
        return tuple(dict.fromkeys(file_hash(place, algorithm, progress) for algorithm in ("md5", LEGACY)))
    files = {p.relative_to(place).as_posix(): p for p in sorted(place.rglob("*")) if p.is_file()}
    made = (folder_hash((p, file_hash(f, kind, progress)) for p, f in files.items()) for kind in ("md5", LEGACY))
    return tuple(dict.fromkeys(made))


def _places(found: Iterable[tuple[Entry, File]], known: dict[Entry, Known]) -> tuple[Place, ...]:
    ordered = sorted(found, key=lambda hit: (hit[0].order, hit[1].path))
    return tuple(Place(path=file.path, hash=str(file.hash), by=known[entry]) for entry, file in ordered)
