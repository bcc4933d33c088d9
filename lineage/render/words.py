"""Hashes, sizes, values and times as a person reads them. Knows neither terminal nor page."""

import json
from collections.abc import Iterator
from typing import Any

from rich import filesize

from lineage.model import Commit, File
from lineage.targets import Target
from lineage.trace import Role, Step

ROLES = {
    Role.EXTERNAL: "outside the project",
    Role.UNPINNED: "no run made it, git doesn't keep it",
    Role.LOST: "made by a run that is not recorded here",
}
"""What is said of an input that neither a run of the closure made nor git keeps."""
SHORT = 8
"""Characters of a hash that tell files apart by eye."""


def short(digest: str | None) -> str:
    """The first characters of a hash; `unknown` where there is none."""
    return digest[:SHORT] if digest else "unknown"


def size(file: File) -> str:
    """How large a file is, such as `66.3 kB in 4 files`; empty where nothing recorded it."""
    if file.size is None:
        return ""
    amount = filesize.decimal(file.size)
    return amount if file.files is None else f"{amount} in {counted(file.files, 'file')}"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def when(commit: Commit) -> str:
    """When a commit was made, to the minute, with its offset from UTC."""
    return f"{commit.time[:16].replace('T', ' ')} {commit.time[19:]}".strip()


def value(found: Any) -> str:
    """A value as JSON writes it, whole."""
    return json.dumps(found, ensure_ascii=False, default=str)


def flat(key: str, found: Any) -> Iterator[tuple[str, str]]:
    """(Dotted key, value in words) of all that is inside a parameter."""
    if isinstance(found, dict) and found:
        for inner, below in found.items():
            yield from flat(f"{key}.{inner}", below)
    else:
        yield key, value(found)


def settings(step: Step) -> list[tuple[str, str, str]]:
    """(Parameter file, dotted key, value in words) of every single setting of a run."""
    return [(p.file, key, words) for p in step.parameters for key, words in flat(p.key, p.value)]


def title(target: Target) -> str:
    """What was asked for, with its value where it is a number."""
    return target.asked if target.key is None else f"{target.asked} = {value(target.value)}"
