"""Reading and writing the small typed files between stages: canonical JSON, written atomically."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from softmask.errors import InputError


def dump_json(value: Any) -> str:
    """Canonical, readable JSON: sorted keys, two spaces, no NaN, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the whole new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    write_text(path, dump_json(value))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines atomically."""
    write_text(path, "".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> list[Any]:
    """The values of a JSON lines file.

    Raises:
        InputError: a line is no JSON; says which.
    """
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"line {number} is not valid JSON ({error})", where=str(path)) from None
    return rows


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "the file is missing", where=str(path), todo="Run the stage that makes it: dvc repro"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid JSON ({error})", where=str(path), todo="Make it again: dvc repro -f") from None
