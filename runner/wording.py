"""How a mistake in params.yaml is worded: pydantic's errors become one line each for whoever edits the file.

Knows models and values, and neither files nor what the parameters mean.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

NAME = r"^[a-z][a-z0-9_]*$"
COMMIT = r"^[0-9a-f]{40}$"
PATTERNS = {
    NAME: "lower-case letters, digits and _, a letter first",
    COMMIT: "a commit's 40 hexadecimal digits (no branch or tag)",
}
"""What a pattern asks for, in words."""


class _Complaint(NamedTuple):
    """One line: where, what is wrong, what was expected, what to do."""

    key: str
    what: str
    expected: str
    todo: str = ""


class Describer:
    """Turns pydantic's errors about `raw` into lines for a person who edits the file."""

    def __init__(self, model: type[BaseModel], raw: Any, prefix: Mapping[str, str]) -> None:
        self._model, self._raw, self._prefix = model, raw, prefix

    def lines(self, errors: Iterable[Any]) -> Iterator[str]:
        """One line for each place; what several alternatives of a type expect there is joined."""
        expected: dict[tuple[str, str, str], list[str]] = {}
        for error in errors:
            if error["type"] == "value_error":
                key = dotted(error["loc"], self._prefix)
                for problem in str(error["ctx"]["error"]).splitlines():
                    expected[f"{key}.{problem}" if key else problem, "", ""] = []
                continue
            if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
                continue  # long enough, but an item is wrong: that one has a line of its own
            complaint = self._complaint(error)
            wanted = expected.setdefault((complaint.key, complaint.what, complaint.todo), [])
            wanted += [complaint.expected] if complaint.expected not in wanted else []
        for (key, what, todo), wanted in expected.items():
            line = f"{key}: {what}; expected {' or '.join(wanted)}" if what else key
            yield line + (f". {todo}" if todo else "")

    def _complaint(self, error: Any) -> _Complaint:
        loc = self._place(error["loc"])
        key = dotted(loc, self._prefix)
        if error["type"] == "extra_forbidden":
            names = _fields(_annotation(self._model, loc[:-1]))
            todo = guess(str(loc[-1]), names)
            expected = "a key of this section" if todo else f"one of {', '.join(names)}"
            return _Complaint(key, f"unknown key (value {shown(error['input'])})", expected, todo)
        if error["type"] == "missing":
            return self._missing(error["loc"], key)
        value, annotation = error["input"], _annotation(self._model, loc)
        words = _expected(error, annotation)
        nullable = ", or null" if type(None) in _alternatives(annotation) else ""
        return _Complaint(key, f"{shown(value)} is wrong", words + nullable, _remedy(error, value))

    def _missing(self, loc: Sequence[Any], key: str) -> _Complaint:
        if isinstance(loc[-1], int):
            above = self._place(loc[:-1])
            found = shown(_at(self._raw, above))
            return _Complaint(dotted(above, self._prefix), f"{found} is too short", f"at least {loc[-1] + 1} items")
        fields = _fields(_annotation(self._model, loc))
        if fields:
            return _Complaint(key, "missing", f"a section with {', '.join(fields)}")
        return _Complaint(key, "missing", "a value" + _meaning(self._model, loc))

    def _place(self, loc: Sequence[Any]) -> tuple[Any, ...]:
        """`loc` without the names of a union's alternatives, which pydantic puts at its end."""
        value, place = self._raw, []
        for part in loc:
            if not isinstance(value, dict | list) or (isinstance(value, list) and not isinstance(part, int)):
                break
            place.append(part)
            value = _at(value, (part,))
        return tuple(place)


def _expected(error: Any, annotation: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text like {context['pattern']}")
    if kind == "model_type":
        return f"a section with {', '.join(_fields(annotation))}"
    if kind in _COUNTED:
        bound, number = next((word, context[name]) for name, word in _BOUNDS.items() if name in context)
        return f"{bound} {number} {_COUNTED[kind]}{'' if number == 1 else 's'}"
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    return str(error["msg"]).removeprefix("Input should be ")


_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:.10g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:.10g}",
}
_COUNTED = {
    "too_short": "item",
    "too_long": "item",
    "string_too_short": "character",
    "string_too_long": "character",
}
_BOUNDS = {"min_length": "at least", "max_length": "at most"}


def _remedy(error: Any, value: Any) -> str:
    kind = error["type"]
    if kind in ("enum", "literal_error"):
        return guess(str(value), re.findall(r"'([^']*)'", error["ctx"]["expected"]), cutoff=0.8)
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f"Put it in quotes: '{value}'"
    if kind in ("int_type", "float_type", "int_from_float") and isinstance(value, str | float):
        number = _number(value)
        if number is not None and (kind == "float_type" or number.is_integer()):
            return f"Write {int(number) if kind != 'float_type' else number}, without quotes"
    return ""


def _number(value: str | float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def guess(word: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """A question that names the closest of `names`, or nothing where none is close."""
    close = difflib.get_close_matches(word, list(names), n=1, cutoff=cutoff)
    return f"Did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value as YAML has it, and not too long for a line."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def dotted(loc: Sequence[Any], prefix: Mapping[str, str]) -> str:
    """A place as a person writes it, such as `sampling.cells.0.eta`; `prefix` as in `validate`."""
    parts = [str(part) for part in loc]
    return ".".join([prefix.get(part, part) if depth == 0 else part for depth, part in enumerate(parts)])


def _at(raw: Any, loc: Sequence[Any]) -> Any:
    """The value at `loc`, or None where nothing is."""
    for part in loc:
        missing = isinstance(raw, list) and part >= len(raw)
        raw = None if missing else raw[part] if isinstance(raw, list) else raw.get(part)
    return raw


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [option for part in get_args(annotation) for option in _alternatives(part)]
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [part for part in _alternatives(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]


def _fields(annotation: Any) -> list[str]:
    return [name for model in _models(annotation) for name in model.model_fields]


def _annotation(annotation: Any, loc: Sequence[Any]) -> Any:
    """The type that a model has at `loc`; None where it has nothing."""
    for part in loc:
        containers = [a for a in _alternatives(annotation) if get_origin(a) in (dict, list, tuple)]
        fields = [model.model_fields[part] for model in _models(annotation) if part in model.model_fields]
        if fields:
            annotation = fields[0].annotation
        elif containers:
            annotation = get_args(containers[0])[1 if get_origin(containers[0]) is dict else 0]
        else:
            return None
    return annotation


def _meaning(model: type[BaseModel], loc: Sequence[Any]) -> str:
    """The first sentence of a field's documentation, in brackets."""
    fields = [m.model_fields[loc[-1]] for m in _models(_annotation(model, loc[:-1])) if loc[-1] in m.model_fields]
    text = " ".join((fields[0].description or "").split()) if fields else ""
    return f" ({text.split('. ')[0].rstrip('.')})" if text else ""
