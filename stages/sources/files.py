"""The user's own .txt, .jsonl and .parquet files as documents. What is wrong with one is said by file and record."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

from softmask.errors import InputError
from softmask.plain_json import LARGEST
from stages.params.corpus import FilesParams
from stages.sources.documents import Document
from stages.sources.local import matching, require_file
from stages.sources.records import READERS, decoded

WHERE = "params.yaml: corpus.files"
KINDS = (".txt", *READERS)


def file_documents(params: FilesParams) -> Iterator[Document]:
    """The documents of all files, sorted by name; one record (or one .txt) in memory, of Parquet a few.

    Raises:
        InputError: no file matches, a file is of another kind, can't be read, is empty or isn't UTF-8, or a record
            has no text; file and record number (from 1) are named.
    """
    for name, path in matching_files(params).items():
        for number, text in read_texts(path, params.text_field):
            if isinstance(text, InputError):
                raise text
            yield Document(name if number is None else f"{name}#{number}", text)


def read_texts(path: Path, text_field: str) -> Iterator[tuple[int | None, str | InputError]]:
    """The texts of a file, each with its record's number (from 1; None for a .txt), or what is wrong in place of one.

    After a wrong record reading goes on. What is wrong with the file as a whole comes last, with None as its number.
    """
    try:
        require_file(path, KINDS)
        read = False
        for number, value in _read(path, text_field):
            read = True
            yield number, _checked(value, str(path) if number is None else f"{path}, record {number}")
        if not read:
            raise InputError("the file has no record", where=str(path), expected="text", todo=f"Mend {WHERE}.paths")
    except InputError as error:
        yield None, error


def fingerprint(params: FilesParams) -> str:
    """A hash that changes when a matching file comes, goes, or is edited (by name, size and time)."""
    stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in matching_files(params).items()]
    return sha256(json.dumps(stats).encode()).hexdigest()


def matching_files(params: FilesParams) -> dict[str, Path]:
    """Name -> path of the files that match, sorted. An absolute glob's names are relative to its fixed part.

    Raises:
        InputError: a glob matches no file, or one that can't be read.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for number, pattern in enumerate(params.paths):
        for path in matching(pattern, f"{WHERE}.paths.{number}", "data/texts/**/*.txt"):
            require_file(path, KINDS)
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found[_name(path, pattern, number)] = path
    return dict(sorted(found.items()))


def _name(path: Path, pattern: str, number: int) -> str:
    if not path.is_absolute():
        return path.as_posix()
    fixed = takewhile(lambda part: not set(part) & set("*?["), Path(pattern).expanduser().parent.parts)
    return f"{number}/{path.relative_to(Path(*fixed)).as_posix()}"  # two globs may hold files of the same name


def _read(path: Path, field: str) -> Iterator[tuple[int | None, Any]]:
    """The values of a file's text field, of a .txt all that it holds."""
    if path.suffix == ".txt":
        if (size := path.stat().st_size) > LARGEST:
            what = f"one document of {size} bytes"
            raise InputError(what, where=str(path), expected=f"at most {LARGEST}", todo="Cut it into several")
        yield None, decoded(partial(path.read_text, encoding="utf-8-sig"), str(path))
        return
    for number, record in READERS[path.suffix](path, field):
        yield number, _field_of(record, field, f"{path}, record {number}")


def _field_of(record: Mapping[str, Any] | InputError, field: str, where: str) -> Any:
    if isinstance(record, InputError) or field in record:
        return record if isinstance(record, InputError) else record[field]
    expected = f"{WHERE}.text_field to be one of {sorted(record)}"
    return InputError(f"no field {field!r}", where=where, expected=expected)


def _checked(value: Any, where: str) -> str | InputError:
    """A value that was read, if it is a text; otherwise what is wrong, which may be known already."""
    if isinstance(value, InputError):
        return value
    if not isinstance(value, str):
        return InputError(f"the text is {type(value).__name__}", where=where, expected="a string")
    if not value.strip():
        return InputError("the text is empty", where=where, expected="text", todo="Take it out")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return InputError(f"not valid Unicode: {error.reason} (character {error.start})", where=where)
    return value
