"""One process at a time at something, by a lock file that goes with its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from softmask.errors import Unavailable

LOCK = Path(".dvc/tmp/reproduce.lock")
"""Of a flow over a workspace, or of a stage in a worker's own clone; a clone is never both."""
NOT_HERE = 78
"""Exit code (EX_CONFIG) where work can't be done in this folder, and may be in another."""


@contextmanager
def alone(lock: Path, who: str, todo: str) -> Iterator[None]:
    """Hold a lock file; what holds it can be read beside it.

    Args:
        lock: the file; its folder is made.
        who: what this is, for others' messages.
        todo: what they should do.

    Raises:
        Unavailable: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = _holder(lock)
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        other = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise Unavailable(f"{other} is at work here", where=str(Path.cwd()), todo=todo) from None
    try:
        holder.write_text(who, encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        file.release()


def somebody(lock: Path) -> bool:
    """Whether a process holds a lock file, or was killed with it, be it on another machine that has the folder."""
    return _holder(lock).exists()


@contextmanager
def after_others(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file as soon as no other process does, however long that takes: one that lives comes to an end.

    Args:
        lock: the file; its folder is made.
        what: what is to be done, for the line that says so if there is another.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        print(f"{what} is at work here in a run that was given up: waiting for its end", flush=True)
        file.acquire()
    try:
        yield
    finally:
        file.release()


def _holder(lock: Path) -> Path:
    return lock.with_suffix(".txt")
