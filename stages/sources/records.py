"""Records of a small dataset: of the hub, or of a local file. No dataset's code is run; knows no field."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from softmask.errors import InputError, Unavailable
from stages.files import read_lines
from stages.params.code.math_problems import MathHubParams

Record = tuple[str, Mapping[str, Any]]
"""Where a record stands, for messages, and the record."""


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
    """The records of a .jsonl or .parquet file.

    Args:
        where: the section of params.yaml, for messages.

    Raises:
        InputError: it is missing, damaged or of another kind.
    """
    if path.suffix not in _READERS:
        raise InputError(f"{path.suffix!r} files can't be read", where=str(path), expected=", ".join(_READERS))
    return _READERS[path.suffix](path, where)


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


def _jsonl(path: Path, where: str) -> Iterator[Record]:
    try:
        return _numbered(path, read_lines(path, ()))
    except InputError as error:  # the user's own file: no stage makes it
        raise InputError(error.what, where=error.where, expected=error.expected, todo=f"Mend it, or {where}") from None


def _parquet(path: Path, where: str) -> Iterator[Record]:
    import pyarrow as pa  # only this source needs it
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path), todo=f"Mend {where}") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read as Parquet ({' '.join(str(error).split())})", where=str(path)) from None
    return _numbered(path, rows)


def _numbered(source: str | Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    return ((f"{source}, record {number}", record) for number, record in enumerate(rows, start=1))


_READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {".jsonl": _jsonl, ".parquet": _parquet}
