"""Values of parameters and metrics: what a key holds, whether two are one, where they differ."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import RootModel

from lineage.contents import at

LONGEST = 80
"""Characters of a value that are shown."""


class Absent(RootModel[None]):
    """The value of a key that isn't there; in an answer's JSON null."""

    root: None = None

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def value_at(content: Any, key: str) -> Any:
    """A file's value at a dotted key, or ABSENT."""
    try:
        return ABSENT if content is None else at(content, key)
    except KeyError:
        return ABSENT


def same(a: Any, b: Any) -> bool:
    """Whether two values are one, as YAML and JSON write them: 1 and 1.0 are, 1 and true are not."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b) or (a != a and b != b)


def differing(a: Any, b: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(Dotted key, value in a, value in b) of every innermost place where two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for inner in [*a, *(k for k in b if k not in a)]:
            below = f"{key}.{inner}" if key else str(inner)
            yield from differing(a.get(inner, ABSENT), b.get(inner, ABSENT), below)
    elif not same(a, b):
        yield key, a, b


def shown(value: Any) -> str:
    """A value in one short line, as JSON writes it."""
    text = repr(value) if isinstance(value, Absent) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
