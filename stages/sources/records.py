"""Records of a small dataset: of the hub, or of a local file. No dataset's code is run; knows no field."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from softmask.errors import InputError, Unavailable
from softmask.plain_json import LARGEST, parse_json
from stages.params.code.math_problems import MathHubParams
from stages.sources.local import require_file

T = TypeVar("T")
Record = tuple[str, Mapping[str, Any]]
"""Where a record stands, for messages, and the record."""
ROWS = 64
"""Of a Parquet file at once: few bytes may stand for very large rows."""
HELD = 1 << 30
"""Characters of the records of a file that are held in memory together."""


def hub_records(params: MathHubParams, where: str) -> Iterator[Record]:
    """The records of a split.

    Args:
        where: the section of params.yaml, for messages.

    Raises:
        InputError: it can't be opened.
    """
    import datasets  # seconds to import, and only this source needs it

    try:
        rows = datasets.load_dataset(params.path, params.config, split=params.split, revision=params.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise Unavailable(
            f"{params.path} (config {params.config}, split {params.split}) can't be opened: "
            f"{' '.join(str(error).split())}",
            where=where,
            todo="Check path, config, split and revision, and that the hub can be reached; or take a file",
        ) from None
    return _numbered(params.path, rows)


def file_records(path: Path, where: str) -> Iterator[Record]:
    """The records of a .jsonl or .parquet file, which together fit into memory.

    Args:
        where: the section of params.yaml, for messages.

    Raises:
        InputError: it is missing, damaged, of another kind or too large, or a record is no object.
    """
    held, mend = 0, f"Mend it, or {where}"
    try:
        require_file(path, READERS)
        for number, record in READERS[path.suffix](path, None):
            if isinstance(record, InputError):
                raise record
            held += size_of(record)
            if held > HELD:
                raise InputError(
                    f"the first {number} records have {held} characters",
                    where=str(path),
                    expected=f"a file with at most {HELD}: its records are held in memory",
                )
            yield f"{path}, record {number}", record
    except InputError as error:  # the user's own file: no stage makes it
        raise InputError(error.what, where=error.where, expected=error.expected, todo=error.todo or mend) from None


def size_of(value: Any) -> int:
    """Characters of all text in a value, about."""
    if isinstance(value, Mapping):
        return sum(len(str(key)) + size_of(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return len(value) if isinstance(value, str | bytes) else 1


def text_of(record: Mapping[str, Any], field: str, where: str) -> str:
    """A field's text.

    Raises:
        InputError: the record has no such field, or no text there.
    """
    value = record.get(field)
    if not isinstance(value, str) or not value.strip():
        kind = "is missing" if field not in record else "has no text"
        raise InputError(f"the field {field!r} {kind}", where=where, expected=f"text; its fields are {sorted(record)}")
    return value


def _numbered(source: str | Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    return ((f"{source}, record {number}", record) for number, record in enumerate(rows, start=1))


# Readers raise what is wrong with the file as a whole; what is wrong with one record they give as its value.

Numbered = Iterator[tuple[int, Mapping[str, Any] | InputError]]


def _read_jsonl(path: Path, _field: str | None) -> Numbered:
    """One JSON object a line; the record number is the line's. Blank lines are passed over."""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, record {number}"
        try:
            content = decoded(partial(line.decode, "utf-8-sig"), where)
            if content.strip():
                yield number, _object(content, where)
        except InputError as error:
            yield number, error


def _lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LARGEST + 1):
                number += 1
                if len(line) > LARGEST:
                    where = f"{path}, record {number}"
                    raise InputError(f"longer than {LARGEST} bytes", where=where, expected="one object a line")
                yield line
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None


def _object(content: str, where: str) -> Mapping[str, Any]:
    record = parse_json(content, where, expected="one object a line")
    if not isinstance(record, Mapping):
        raise InputError(f"holds {type(record).__name__}", where=where, expected="an object")
    return record


def _read_parquet(path: Path, field: str | None) -> Numbered:
    """One record a row, `ROWS` of them in memory; of all columns, or of one."""
    import pyarrow as pa  # half a second to import
    import pyarrow.parquet as pq

    read = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field is not None and field not in names:
                raise InputError(f"no field {field!r}", where=str(path), expected=f"it among {sorted(names)}")
            columns = None if field is None else [field]
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                    for row in range(batch.num_rows):
                        read += 1
                        yield read, _row(batch, row, f"{path}, record {read}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"can't be read as Parquet after record {read} ({reason})", where=str(path)) from None


def _row(batch: Any, row: int, where: str) -> Mapping[str, Any] | InputError:
    try:
        columns = zip(batch.schema.names, batch.columns, strict=True)
        return {name: decoded(column[row].as_py, where) for name, column in columns}
    except InputError as error:
        return error
    except (ValueError, ArithmeticError, LookupError) as error:  # such as a date that Python has no type for
        return InputError(f"the value can't be read ({error})", where=where, expected="a string")


def decoded(read: Callable[[], T], where: str) -> T:
    """What `read` gives.

    Raises:
        InputError: it is not UTF-8, or can't be read.
    """
    try:
        return read()
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte {error.start}: {error.reason})", where=where, todo="Convert it to UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=where) from None


READERS: dict[str, Callable[[Path, str | None], Numbered]] = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
"""By a file's ending: path, and the one column of interest or None for all; gives each record with its number."""
