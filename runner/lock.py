"""Whether dvc.lock is whole, a copy of the last whole one, and the command that puts it back.

    python -m runner.lock

DVC writes dvc.lock in place, so a kill meanwhile leaves the beginning of it. Whoever starts keeps a copy, since DVC
writes only when nothing of ours runs. What was recorded after the copy comes from DVC's run cache.
"""

import json
import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
import yaml

from softmask.errors import InputError

LOCK = Path("dvc.lock")
KEPT = Path(".dvc/tmp/whole.lock")
RWLOCK = Path(".dvc/tmp/rwlock")
"""Where DVC notes who reads and writes what; it writes that in place, too."""
MOMENT = 0.2
"""Seconds after which what another DVC is writing there is whole."""
_NAME = re.compile(r"^  (\S.*):$", re.MULTILINE)
_ITEM = re.compile(r"^    - path: (.*)$", re.MULTILINE)


def keep(root: Path = Path()) -> None:
    """Copy a project's dvc.lock aside if it looks whole; without one the copy is of no use any more."""
    lock, kept = root / LOCK, root / KEPT
    with suppress(OSError):  # nothing depends on it
        if not lock.exists():
            kept.unlink(missing_ok=True)
        elif (text := _text(lock)) != _text(kept) and not (_ends_early(text) or _says_less(root, text)):
            draft = kept.with_suffix(f".{os.getpid()}")
            draft.write_text(text, encoding="utf-8")
            draft.replace(kept)


def require_whole(root: Path = Path()) -> list[str]:
    """Hold a project's dvc.lock to be whole, and keep a copy. DVC's own messages about a torn one don't say what it is.

    One that ends between two entries is taken for whole, as `dvc remove` leaves it: DVC sees what it lacks.

    Returns:
        The stages in it, in its order.

    Raises:
        InputError: it is torn, or DVC's note of who reads and writes is.
    """
    if _torn(root / RWLOCK):
        raise _told(root, RWLOCK, "it is no JSON")
    if not (root / LOCK).exists():
        return []
    text = _text(root / LOCK)
    try:
        stages = _stages(text)
    except ValueError as error:
        raise _told(root, LOCK, str(error)) from None
    keep(root)
    return list(stages)


def _told(root: Path, file: Path, flaw: str) -> InputError:
    todo = "Run `python -m runner.lock`, which puts back the last whole one; DVC's run cache has what came after it"
    if file == LOCK and not (root / KEPT).exists():
        todo = "No copy is kept: `git checkout dvc.lock`, or remove it; DVC's run cache has what it said"
    return InputError(f"torn, as a kill leaves it while DVC writes it: {flaw}", where=str(file), todo=todo)


def restore() -> None:
    """Put the last whole dvc.lock back, if that which is there is torn or has less.

    Raises:
        InputError: there is no whole copy.
    """
    if _torn(RWLOCK):
        RWLOCK.unlink()
        typer.echo(f"{RWLOCK} was torn and is removed: DVC makes it anew")
    try:
        require_whole()
        torn = _says_less(Path(), _text(LOCK))
    except InputError:
        torn = True
    if torn:
        try:
            stages = _stages(_text(KEPT))
        except ValueError:
            KEPT.unlink(missing_ok=True)
            require_whole()
        KEPT.replace(LOCK)
        keep()
        typer.echo(f"dvc.lock is whole again, with {len(stages)} stages; now run again: dvc repro")
    else:
        typer.echo("dvc.lock is whole")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _torn(rwlock: Path) -> bool:
    text = _text(rwlock)
    try:
        return rwlock.exists() and not isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        time.sleep(MOMENT)
        return _text(rwlock) == text


def _ends_early(text: str) -> str | None:
    """What shows that a lock breaks off, as half a sentence; without parsing it, which takes seconds."""
    if not text.endswith("\n"):
        return "it ends within a line" if text else "it is empty"
    for _, last in _items(text)[-1:]:
        if "size: " not in last or (".dir\n" in last and "nfiles: " not in last):
            return "it ends within an entry"
    return None


def _says_less(root: Path, text: str) -> bool:
    """Whether a lock has less at its end than the copy, and git doesn't know it: perhaps it was cut there."""
    kept = _text(root / KEPT)
    names, before = _NAME.findall(text), _NAME.findall(kept)
    if text == kept or names != before[: len(names)]:
        return False
    if len(names) == len(before):
        paths, had = ([path for path, _ in _items(lock.rpartition(f"\n  {names[-1]}:\n")[2])] for lock in (text, kept))
        if len(paths) >= len(had) or paths != had[: len(paths)]:
            return False
    return not _known_to_git(root)


def _items(text: str) -> list[tuple[str, str]]:
    """Path and rest of each dependency and output."""
    parts = _ITEM.split(text)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _known_to_git(root: Path) -> bool:
    """Whether somebody has committed or added these very bytes."""
    found = subprocess.run(["git", "hash-object", LOCK], cwd=root, capture_output=True, text=True, check=False)
    asked = ["git", "cat-file", "-e", found.stdout.strip()]
    return found.returncode == 0 and not subprocess.run(asked, cwd=root, capture_output=True, check=False).returncode


def _stages(text: str) -> dict[str, Any]:
    """The entries, if it is what DVC accepts and doesn't end early.

    Raises:
        ValueError: it isn't; with the reason.
    """
    if early := _ends_early(text):
        raise ValueError(early)
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # the stages, which only keep it, need no DVC
    from voluptuous import Invalid

    try:
        data = yaml.load(text, Loader=yaml.CSafeLoader)
        COMPILED_LOCKFILE_SCHEMA(data)
        stages: dict[str, Any] = data["stages"]
        return stages
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML ({' '.join(str(error).split())})") from None
    except (Invalid, KeyError) as error:
        raise ValueError(f"DVC doesn't accept it ({error})") from None


if __name__ == "__main__":
    from runner.stage import run_command

    run_command(restore)
