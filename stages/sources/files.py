"""The user's own .txt, .jsonl and .parquet files as documents. What is wrong with one is said by file and record."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from softmask.errors import InputError
from stages.params.corpus import FilesParams
from stages.sources.documents import Document

T = TypeVar("T")
WHERE = "params.yaml: corpus.files"


def file_documents(params: FilesParams) -> Iterator[Document]:
    """The documents of all files, sorted by name; one record (or one .txt) in memory, of Parquet one row group.

    Raises:
        InputError: no file matches, a file is of another kind, can't be read, is empty or isn't UTF-8, or a record
            has no text; file and record number (from 1) are named.
    """
    files = matching_files(params)
    for path in files.values():
        _check_file(path)
    for name, path in files.items():
        for number, text in read_texts(path, params.text_field):
            if isinstance(text, InputError):
                raise text
            yield Document(name if number is None else f"{name}#{number}", text)


def read_texts(path: Path, text_field: str) -> Iterator[tuple[int | None, str | InputError]]:
    """The texts of a file, each with its record's number (from 1; None for a .txt), or what is wrong in place of one.

    After a wrong record reading goes on. What is wrong with the file as a whole comes last, with None as its number.
    """
    try:
        _check_file(path)
        read = False
        for number, value in _READERS[path.suffix](path, text_field):
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
        InputError: a glob matches no file.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for number, pattern in enumerate(params.paths):
        anchor = Path(pattern).anchor
        paths = [path for path in Path(anchor).glob(pattern.removeprefix(anchor)) if path.is_file()]
        if not paths:
            raise InputError(
                f"no file matches {pattern!r}",
                where=f"{WHERE}.paths.{number}",
                expected="a glob such as 'data/texts/**/*.txt', seen from the repository's root",
            )
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                found[_name(path, pattern, number)] = path
    return dict(sorted(found.items()))


def _name(path: Path, pattern: str, number: int) -> str:
    if not path.is_absolute():
        return path.as_posix()
    fixed = takewhile(lambda part: not set(part) & set("*?["), Path(pattern).parent.parts)
    return f"{number}/{path.relative_to(Path(*fixed)).as_posix()}"  # two globs may hold files of the same name


def _check_file(path: Path) -> None:
    if path.suffix not in _READERS:
        raise InputError(f"{path.suffix!r} files can't be read", where=str(path), expected=", ".join(_READERS))
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None
    if not S_ISREG(found.st_mode):  # reading a pipe may never end
        raise InputError("not a regular file", where=str(path), expected="a file")
    if found.st_size == 0:
        raise InputError("the file is empty", where=str(path), expected="text", todo=f"Mend {WHERE}.paths")


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


# Readers raise what is wrong with the file as a whole; what is wrong with one record they give as its value.


def _read_txt(path: Path, _field: str) -> Iterator[tuple[None, Any]]:
    yield None, _decoded(partial(path.read_text, encoding="utf-8-sig"), str(path))


def _read_jsonl(path: Path, field: str) -> Iterator[tuple[int, Any]]:
    """One JSON object a line; the record number is the line's. Blank lines are passed over."""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, record {number}"
        try:
            content = _decoded(partial(line.decode, "utf-8-sig"), where)
            if content.strip():
                yield number, _field_of(content, field, where)
        except InputError as error:
            yield number, error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None


def _field_of(content: str, field: str, where: str) -> Any:
    try:
        record = json.loads(content)
    except ValueError as error:  # a number of too many digits is no JSONDecodeError
        raise InputError(f"not valid JSON ({error})", where=where, expected="one object a line") from None
    except RecursionError:
        raise InputError("nested too deeply", where=where, expected="one object a line") from None
    if not isinstance(record, Mapping):
        raise InputError(f"holds {type(record).__name__}", where=where, expected="an object")
    if field not in record:
        raise _no_field(field, list(record), where)
    return record[field]


def _read_parquet(path: Path, field: str) -> Iterator[tuple[int, Any]]:
    read = 0
    try:
        with pq.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                raise _no_field(field, file.schema_arrow.names, str(path))
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(row_groups=[group], columns=[field]):
                    for value in batch.column(0):
                        read += 1
                        yield read, _value(value, f"{path}, record {read}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read as Parquet after record {read} ({error})", where=str(path)) from None


def _value(value: pa.Scalar, where: str) -> Any:
    try:
        return _decoded(value.as_py, where)
    except InputError as error:
        return error
    except (ValueError, ArithmeticError, LookupError) as error:  # such as a date that Python has no type for
        return InputError(f"the value can't be read ({error})", where=where, expected="a string")


def _decoded(read: Callable[[], T], where: str) -> T:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte {error.start}: {error.reason})", where=where, todo="Convert it to UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=where) from None


def _no_field(field: str, names: list[str], where: str) -> InputError:
    return InputError(f"no field {field!r}", where=where, expected=f"{WHERE}.text_field to be one of {sorted(names)}")


_READERS: dict[str, Callable[[Path, str], Iterator[tuple[int | None, Any]]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
