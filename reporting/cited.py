"""Numbers that say where they are from: text for tables and sentences, with `PATH:KEY` and exact value of each.

For all other code the text is a plain string; the HTML template draws a link to the trace. Knows no file and no digit.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reporting.schema import Record


@dataclass(frozen=True)
class Part:
    """A piece of a text."""

    text: str
    source: str = ""
    """`PATH:KEY` of the value that it writes; empty for words."""
    value: str = ""
    """That value exactly: a text as it is, anything else as JSON writes it."""


class Cited(str):
    """Text with parts that cite."""

    parts: tuple[Part, ...]

    def __new__(cls, parts: Sequence[Part]) -> "Cited":
        """Text of these parts."""
        text = super().__new__(cls, "".join(part.text for part in parts))
        text.parts = tuple(parts)
        return text

    @property
    def source(self) -> str:
        """What its first number cites: the estimate, where an interval follows."""
        return next(part.source for part in self.parts if part.source)


def cited(text: str, source: str, value: Any) -> str:
    """Text that writes a value which lies at `source`."""
    return Cited([Part(text, source, value if isinstance(value, str) else json.dumps(value))])


def cite(record: Record, field: str, write: Callable[..., str] = str, *how: Any, **more: Any) -> str:
    """A field of a record, written by `write(value, *how, **more)`; it cites if the record was read from a file.

    Empty for None.
    """
    value = getattr(record, field)
    if value is None:
        return ""
    text = write(value, *how, **more)
    return cited(text, record.key(field), value) if record.place else text


def joined(*texts: str) -> str:
    """One text of several; those that cite go on citing."""
    parts = [part for text in texts for part in (text.parts if isinstance(text, Cited) else (Part(text),))]
    return Cited(parts) if any(part.source for part in parts) else "".join(texts)
