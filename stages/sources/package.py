"""Text files of an installed package as documents: source code, low in entropy and on every machine."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path

from softmask.errors import InputError
from stages.params.corpus import PackageSourcesParams
from stages.sources.documents import Document
from stages.sources.installed import files_of, installed

WHERE = "params.yaml: corpus.package_sources"


def package_documents(params: PackageSourcesParams) -> Iterator[Document]:
    """The matching files in the order of their paths' hash, up to `max_characters`; empty files are passed on.

    That order is stable, and makes a part of the package a cross-section of it.

    Raises:
        InputError: package missing or of another version, no file matches or fits, a file isn't UTF-8.
    """
    paths = package_files(params)
    room = params.max_characters
    found = False
    for name in sorted(paths, key=_order):
        text = _read(paths[name], name)
        if room is not None and len(text) > room:
            continue
        room = None if room is None else room - len(text)
        found = found or bool(text)
        yield Document(name, text)
    if not found:
        raise InputError(
            f"{params.max_characters} leaves no text: every file is longer or empty",
            where=f"{WHERE}.max_characters",
            expected="room for some files",
        )


def package_files(params: PackageSourcesParams) -> dict[str, Path]:
    """Relative path -> absolute path of the matching files.

    Raises:
        InputError: package missing or of another version, or no file matches.
    """
    package = installed(params.package, params.version, f"{WHERE}.version")
    paths = {name: path for name, path in files_of(package, WHERE).items() if _selected(name, params)}
    if not paths:
        raise InputError(
            f"no file of {params.package} matches {list(params.include)} and none of {list(params.exclude)}",
            where=f"{WHERE}.include",
            expected="patterns of paths such as 'sympy/*.py'",
        )
    return paths


def _selected(name: str, params: PackageSourcesParams) -> bool:
    included = any(fnmatchcase(name, pattern) for pattern in params.include)
    return included and not any(fnmatchcase(name, pattern) for pattern in params.exclude)


def _order(name: str) -> bytes:
    return blake2b(name.encode("utf-8"), digest_size=16).digest()


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte {error.start})", where=name, todo=f"Leave it out in {WHERE}.exclude"
        ) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=name, todo="Install the package again") from None
