"""JSON that a user, a hub or an earlier stage wrote: whatever is wrong with it is one plain message."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

from softmask.errors import InputError

LARGEST = 1 << 28
"""Bytes of a file, or of a record in one: it is held in memory as a whole."""


class _Repeated(ValueError):
    """An object has a key twice, of which Python would silently take the last."""


def parse_json(content: str | bytes, where: str, *, expected: str = "", todo: str = "") -> Any:
    """The value in a text, which may begin with a byte order mark.

    Args:
        where, expected, todo: for the message.

    Raises:
        InputError: it is no JSON or no UTF-8, is nested too deeply, or has a number too long or a key twice.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError, _Repeated) as error:
        reason = str(error)
    except ValueError:  # of int()
        reason = f"a number has more than {sys.get_int_max_str_digits()} digits"
    except RecursionError:
        reason = "nested too deeply"
    raise InputError(f"not valid JSON ({reason})", where=where, expected=expected, todo=todo) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return value


def read_json(path: Path, *, expected: str = "", todo: str = "") -> Any:
    """The value in a file.

    Args:
        expected, todo: for the message.

    Raises:
        InputError: it can't be read, or as `parse_json`.
    """
    return parse_json(read_bytes(path, expected), str(path), expected=expected, todo=todo)


def read_object(path: Path, *, expected: str, todo: str = "") -> dict[str, Any]:
    """The object in a file; as `read_json`.

    Raises:
        InputError: it holds something else.
    """
    value = read_json(path, expected=expected, todo=todo)
    if not isinstance(value, dict):
        raise InputError(f"holds {type(value).__name__}", where=str(path), expected=expected, todo=todo)
    return value


def read_bytes(path: Path, expected: str = "", missing: str = "") -> bytes:
    """What a file holds.

    Raises:
        InputError: it is missing, no regular file (reading a pipe may never end), too large or unreadable.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError("not a regular file", where=str(path), expected=expected or "a file")
        if found.st_size > LARGEST:
            raise InputError(f"the file has {found.st_size} bytes", where=str(path), expected=f"at most {LARGEST}")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path), expected=expected, todo=missing) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path), expected=expected) from None
