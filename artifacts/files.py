"""Reading and writing the typed files between stages: canonical JSON, written atomically; a damaged one is named."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from softmask import plain_json
from softmask.errors import InputError
from softmask.refused import refusal

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def dump_json(value: Any, where: str = "") -> str:
    """Canonical, readable JSON: sorted keys, two spaces, a final newline.

    Args:
        where: what it is written to, for the message.

    Raises:
        InputError: a number in it is infinite or NaN.
    """
    for found in _not_finite(value):
        raise InputError(
            found, where=where, expected="finite numbers", todo="What it was computed from isn't sound: see its history"
        )
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _not_finite(value: Any, key: str = "value") -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key} is {value}"
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _not_finite(part, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _not_finite(part, f"{key}[{number}]")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one, also after a power cut.

    Raises:
        InputError: it can't be written, `Unavailable` where the disk is full; the old file is as it was.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        named = OSError(error.errno, error.strerror, str(path))  # the draft is nobody's business
        raise (refusal(named) or InputError(f"can't be written ({error.strerror})", where=str(path))) from None


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically.

    Raises:
        InputError: a number in it is infinite or NaN; or from `write_text`.
    """
    write_text(path, dump_json(value, str(path)))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines atomically."""
    write_text(path, "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON lines file.

    Args:
        fields: what each of them must have.

    Raises:
        InputError: the file is missing, a line is no JSON object or lacks a field; says which.
    """
    rows = []
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            row = plain_json.parse_json(line, where)
            lacking = [name for name in fields if not isinstance(row, dict) or name not in row]
            if lacking:
                what = f"no field {', '.join(map(repr, lacking))}"
                raise InputError(what, where=where, expected=f"an object with {', '.join(fields)}")
            rows.append(row)
    return rows


def read_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer.json in a folder.

    Raises:
        InputError: it is missing or damaged.
    """
    from tokenizers import Tokenizer  # most stages read none

    path = folder / "tokenizer.json"
    with _open(path) as file:
        content = file.read()
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"not a tokenizer ({error})", where=str(path)) from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The NumPy arrays of these names in a safetensors file.

    Raises:
        InputError: the file is missing or damaged, or has no such array.
    """
    from safetensors import SafetensorError  # most stages read none
    from safetensors.numpy import load

    with _open(path) as file:
        content = file.read()
    try:
        arrays = load(content)
        return {name: arrays[name] for name in names}
    except SafetensorError as error:
        what = f"damaged ({error})"
    except KeyError as error:
        what = f"no array {error}"
    raise InputError(what, where=str(path)) from None


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or no JSON.
    """
    return plain_json.read_json(path)


def fresh_folder(path: Path) -> Path:
    """An empty folder in place of whatever an earlier run left there."""
    path.mkdir(parents=True, exist_ok=True)
    for child in path.iterdir():
        shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    return path
