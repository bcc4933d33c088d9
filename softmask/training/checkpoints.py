"""Sealed checkpoint folders: written aside, sealed with the hash of every file, then renamed into place.

A folder without a seal, with other bytes than its seal says, or with another run's identity is never resumed from.
Knows nothing of what the files mean.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softmask.refused import refusal

SEAL = "seal.json"
PREFIX = "checkpoint-"
DRAFT = ".writing"


def seal(draft: Path, final: Path, identity: str) -> None:
    """Seal the folder `draft` and rename it to `final`; everything reaches the disk before the rename."""
    files = sorted(p for p in draft.rglob("*") if p.is_file())
    digests = {p.relative_to(draft).as_posix(): _digest(p) for p in files}
    with (draft / SEAL).open("w", encoding="utf-8") as file:
        json.dump({"identity": identity, "files": digests}, file, indent=2, sort_keys=True)
    for path in [*files, draft / SEAL]:
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    _sync(final.parent)


def flaw(folder: Path, identity: str) -> str | None:
    """What is wrong with a checkpoint, as half a sentence, or None if it is sound and this run's own."""
    try:
        record = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files, owner = dict(record["files"]), str(record["identity"])
    except FileNotFoundError:
        return "is torn: it has no seal"
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, UnicodeDecodeError):
        return "is torn: its seal can't be read"
    if owner != identity:
        return "is foreign: it belongs to a run with other parameters, inputs or code"
    for name, digest in files.items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            return f"is torn: {name} is missing or has changed"
    return None


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint folder's name."""
    return int(folder.name.removeprefix(PREFIX))


def all_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, newest first, sound or not."""
    found = [p for p in root.glob(f"{PREFIX}*") if re.fullmatch(rf"{PREFIX}\d+", p.name)]
    return sorted(found, key=step_of, reverse=True)


def newest_sound(root: Path, identity: str) -> tuple[Path | None, list[str]]:
    """The newest checkpoint to resume from, and a sentence for each newer one that is torn or foreign."""
    complaints: list[str] = []
    for folder in all_checkpoints(root):
        problem = flaw(folder, identity)
        if problem is None:
            return folder, complaints
        complaints.append(f"checkpoint {folder} {problem}; it is left out")
    return None, complaints


def kept(root: Path) -> str:
    """What a person has of an interrupted run, as a sentence."""
    good = all_checkpoints(root)
    return f"The last good checkpoint is {good[0]}" if good else "No checkpoint was written before"


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    for folder in all_checkpoints(root)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def refusals_are_told(root: Path) -> Iterator[None]:
    """Turn a full disk or a lack of permission into one clear message that names the checkpoint that is still good.

    Raises:
        InputError: a checkpoint can't be written, `Unavailable` where the disk is full.
    """
    try:
        yield
    except Exception as error:
        if (told := refusal(error, root)) is None:
            raise
        shutil.rmtree(root / DRAFT, ignore_errors=True)
        raise type(told)(told.what, where=told.where, todo=f"{told.todo}. {kept(root)}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
