"""Local files that params name: what a glob matches, and what a file has to be before it is read."""

from collections.abc import Collection
from pathlib import Path
from stat import S_ISREG

from runner.wording import shown
from softmask.errors import InputError


def matching(pattern: str, where: str, example: str) -> list[Path]:
    """What a glob matches, without folders. `~` is the home folder.

    Args:
        pattern: the glob.
        where: its key in params.yaml, for messages.
        example: a glob that would do, for messages.

    Raises:
        InputError: it is no glob, matches no file, or a name that it matches isn't UTF-8.
    """
    expected = f"a glob such as {example!r}, seen from the repository's root"
    try:
        place = Path(pattern).expanduser()
        parts = place.relative_to(place.anchor)
        if set(str(parts)) & set("*?["):
            found = list(Path(place.anchor).glob(str(parts)))
        else:
            found = [place] if place.exists() or place.is_symlink() else []
        files = [path for path in found if not path.is_dir()]
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{shown(pattern)} is no glob ({reason})", where=where, expected=expected) from None
    if not files:
        what = f"{shown(pattern)} is a folder" if found else f"no file matches {shown(pattern)}"
        raise InputError(what, where=where, expected=expected)
    for path in files:
        _require_utf8(path, where)
    return files


def _require_utf8(path: Path, where: str) -> None:
    """DVC can't hash a folder with another name in it."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"the name of {str(path)!r} is not UTF-8", where=where, expected="another", todo="Rename the file"
        ) from None


def require_file(path: Path, suffixes: Collection[str]) -> None:
    """A file of one of these kinds, which is there and holds something.

    Raises:
        InputError: it isn't.
    """
    if path.suffix not in suffixes:
        raise InputError(f"{path.suffix!r} files can't be read", where=str(path), expected=", ".join(suffixes))
    try:
        found = path.stat()
    except FileNotFoundError:
        what = "a link to nothing" if path.is_symlink() else "the file is missing"
        raise InputError(what, where=str(path), expected="a file") from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None
    except ValueError as error:  # such as NUL in its name
        raise InputError(f"no file's name ({error})", where=repr(str(path))) from None
    if not S_ISREG(found.st_mode):  # reading a pipe may never end
        raise InputError("not a regular file", where=str(path), expected="a file")
    if found.st_size == 0:
        raise InputError("the file is empty", where=str(path), expected="text")
