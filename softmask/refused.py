"""What the system refuses, in words: a full disk, a folder that can't be written, however a library passes it on."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from softmask.errors import InputError, Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
_NUMBER = re.compile(r"\[errno (\d+)\]|os error (\d+)", re.IGNORECASE)
_ROOM = re.compile(r"No space left|disk quota|unexpected pos", re.IGNORECASE)
"""What is left of the number in an error of torch, whose writer says "unexpected pos" of a file that didn't grow."""
_QUOTED = re.compile(r"['\"]([^'\"]*/[^'\"]*)['\"]")


def refusal(error: BaseException, path: Path | None = None) -> InputError | None:
    """The message for an error that comes from a full disk or a lack of permission; None for any other.

    Args:
        error: the system's own, or a library's that was made of it (shutil, pyarrow, safetensors, torch).
        path: what was written, where the error names no path.
    """
    for cause in _causes(error):
        number, named = _number(cause), list(_names(cause)) or [str(path)] * (path is not None)
        if number in _FULL:
            where = named[-1] if named else _fullest()
            free = shutil.disk_usage(_there(Path(where))).free / 2**20
            return Unavailable(
                f"the disk is full ({os.strerror(number)}; {free:.1f} MiB are free)",
                where=where,
                todo="Make room, then run again: finished work is kept",
            )
        if number in _DENIED and named:
            what, todo = f"can't be written or read ({os.strerror(number)})", "Mend that, then run again"
            return InputError(what, where=named[-1], todo=todo)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _number(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if found := _NUMBER.search(str(error)):
        return int(found[1] or found[2])
    if os.strerror(errno.EROFS) in str(error):
        return errno.EROFS
    return errno.ENOSPC if _ROOM.search(str(error)) else 0


def _names(error: BaseException) -> Iterator[str]:
    """The paths that an error names, the one that is written last."""
    if isinstance(error, shutil.Error):  # [(source, target, text), ...]
        yield from (str(target) for _, target, _ in error.args[0])
    elif isinstance(error, OSError) and error.filename is not None:
        yield from (os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    else:
        yield from _QUOTED.findall(str(error))


def _fullest() -> str:
    """Of the places that are written to, the one with the least room: a failing `write` names no path."""
    here = (path for depth in ("*", "*/*", "*/*/*") for path in Path().glob(depth) if path.is_dir())
    places = [Path(), *here, Path(tempfile.gettempdir())]
    return str(min(places, key=lambda path: shutil.disk_usage(path).free))


def _there(path: Path) -> Path:
    return next(part for part in (path.absolute(), *path.absolute().parents) if part.exists())
