"""Plain built-in data as JSON: what may pass between a hostile process and the one that judges it.

`encode` runs in the hostile process, `decode` on the trusted side: it executes nothing and bounds what it builds.
Knows no sandbox and no problem. Standard library only: the sandbox imports it where nothing else is installed.

JSON's null, booleans, strings, arrays (lists) and finite numbers stand for themselves; every object is one tagged
value: {"tuple": [...]}, {"set": [...]}, {"frozenset": [...]}, {"dict": [[key, value], ...]}, {"range": [a, b, c]},
{"int": hex digits}, {"float": "nan"}, {"complex": [re, im]}, {"fraction": [n, d]}, {"bytes": hex digits} and
{"str": hex digits of UTF-8} where a string holds surrogates.
"""

import json
import math
import re
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

_JSON_INT = 2**63
"""Whole numbers from here on are written in hexadecimal: decimal digits take quadratic time, and Python bounds them."""
_SAME_HASH = 64
"""So many members of a set may share a hash; chance makes one or two, an attack on the judge's time makes thousands."""


class NotPlain(Exception):
    """The value is no plain built-in data, and nothing that behaves exactly like it."""


class TooLarge(Exception):
    """The value has more parts or a deeper nesting than is allowed."""


class Malformed(Exception):
    """The text is no encoding of plain data within the bounds."""


@dataclass(frozen=True)
class Bounds:
    """How large a value may be.

    Args:
        size: characters of text and digits, plus one a part.
        nesting: depth of containers.
    """

    size: int
    nesting: int


@dataclass(frozen=True)
class Encoded:
    """A value as JSON data.

    Args:
        data: for `json.dumps`.
        exact: the value's own type is the built-in one. A subclass that compares as its base does (a named tuple, a
            NumPy scalar) is written as its base, and is not exact: EvalPlus compares types of approximate numbers.
    """

    data: Any
    exact: bool


def encode(value: object, bounds: Bounds) -> Encoded:
    """The encoding of a value.

    Raises:
        NotPlain: it is, or holds, something else than plain data.
        TooLarge: it is beyond the bounds.
    """
    data = _Encoder(bounds).encode(value, 0)
    return Encoded(data, type(value) in _EXACT)


def dumps(data: Any) -> str:
    """Encoded data as one line of JSON, ASCII only."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def loads(line: bytes) -> Any:
    """The JSON value in a line from a process that is not trusted.

    Raises:
        Malformed: it is no strict JSON.
    """
    try:
        return json.loads(line.decode("ascii"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {error}") from None


def decode(data: Any, bounds: Bounds) -> Any:
    """The value that JSON data encodes. Executes nothing, whatever the data is.

    Raises:
        Malformed: it is no encoding of plain data, or is beyond the bounds.
    """
    return _Decoder(bounds).decode(data, 0)


_EXACT: frozenset[type] = frozenset(
    {type(None), bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range, Fraction}
)
_DICTS: frozenset[type] = frozenset({Counter, OrderedDict, defaultdict})
"""Dictionaries with a comparison of their own, which is that of `dict` where the other one is a plain `dict`."""
_DIGITS = 4096
"""Hexadecimal digits of the terms of a fraction or a range: a greatest common divisor, or a length, takes quadratic
time."""
_BASES: Mapping[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    list: lambda value: list.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
}
"""Types whose subclasses compare as they do unless they define a comparison; and how a subclass's content is read."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _base_of(value: Any) -> Any:
    """A plain value that compares with plain data exactly as `value` does, which is no plain data itself."""
    kind = type(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
    elif kind in _DICTS:
        plain = dict(dict.items(value))
    elif kind is bytearray or (kind is memoryview and value.format == "B"):
        plain = bytes(value)
    elif kind is type({}.keys()) or (kind is type({}.items()) and all(map(_hashable, value))):
        plain = set(value)
    elif kind is Decimal and value.is_finite() and abs(value.adjusted()) + len(value.as_tuple().digits) < _DIGITS:
        plain = Fraction(value)
    else:
        plain = next((read(value) for base, read in _BASES.items() if _compares_as(kind, base)), value)
    if type(plain) not in _EXACT:
        raise NotPlain(kind.__name__)
    return plain


def _compares_as(kind: type, base: type) -> bool:
    return base in kind.__mro__ and kind.__eq__ is base.__eq__


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class _Budget:
    def __init__(self, bounds: Bounds, error: type[Exception]) -> None:
        self._left, self._nesting, self._error = bounds.size, bounds.nesting, error

    def spend(self, size: int, depth: int) -> None:
        self._left -= size + 1
        if self._left < 0:
            raise self._error("the value is too large")
        if depth > self._nesting:
            raise self._error("the value is nested too deeply")


class _Encoder:
    def __init__(self, bounds: Bounds) -> None:
        self._budget = _Budget(bounds, TooLarge)

    def encode(self, value: Any, depth: int) -> Any:
        if type(value) not in _EXACT:
            value = _base_of(value)
        kind = type(value)
        self._budget.spend(len(value) if kind in (str, bytes) else 0, depth)
        if kind in _LEAVES:
            return _LEAVES[kind](self, value)
        if kind is list:
            return self._items(value, depth)
        if kind is dict:
            return {"dict": [self._items(pair, depth) for pair in value.items()]}
        if kind is tuple:
            return {"tuple": self._items(value, depth)}
        return {kind.__name__: sorted(self._items(value, depth), key=dumps)}  # a set: one order, whatever the hashes

    def _items(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(value, depth + 1) for value in values]

    def _same(self, value: Any) -> Any:
        return value

    def _int(self, value: int) -> Any:
        self._budget.spend(value.bit_length() // 4, 0)
        return value if abs(value) < _JSON_INT else {"int": f"{value:x}"}

    def _float(self, value: float) -> Any:
        return value if math.isfinite(value) else {"float": str(value)}

    def _complex(self, value: complex) -> Any:
        return {"complex": [self._float(value.real), self._float(value.imag)]}

    def _str(self, value: str) -> Any:
        if value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value):
            return value
        return {"str": value.encode("utf-8", "surrogatepass").hex()}

    def _bytes(self, value: bytes) -> Any:
        return {"bytes": value.hex()}

    def _range(self, value: range) -> Any:
        return {"range": self._terms(value.start, value.stop, value.step)}

    def _fraction(self, value: Fraction) -> Any:
        return {"fraction": self._terms(value.numerator, value.denominator)}

    def _terms(self, *terms: int) -> list[Any]:
        if not _short(terms):
            raise TooLarge("the terms of a fraction or a range are too large")
        return list(map(self._int, terms))


_LEAVES: Mapping[type, Callable[[_Encoder, Any], Any]] = {
    type(None): _Encoder._same,
    bool: _Encoder._same,
    int: _Encoder._int,
    float: _Encoder._float,
    complex: _Encoder._complex,
    str: _Encoder._str,
    bytes: _Encoder._bytes,
    range: _Encoder._range,
    Fraction: _Encoder._fraction,
}


class _Decoder:
    def __init__(self, bounds: Bounds) -> None:
        self._budget = _Budget(bounds, Malformed)

    def decode(self, data: Any, depth: int) -> Any:
        self._budget.spend(len(data) if isinstance(data, str) else 0, depth)
        if data is None or isinstance(data, bool | int | str):
            return data
        if isinstance(data, float):
            return self._finite(data)
        if isinstance(data, list):
            return self._items(data, depth)
        if isinstance(data, dict) and len(data) == 1:
            ((tag, content),) = data.items()
            if tag in _TAGS:
                return _TAGS[tag](self, content, depth)
        raise Malformed("an unknown kind of value")

    def _items(self, content: Any, depth: int) -> list[Any]:
        if not isinstance(content, list):
            raise Malformed("a container without a list of parts")
        return [self.decode(part, depth + 1) for part in content]

    def _finite(self, data: float) -> float:
        if not math.isfinite(data):
            raise Malformed("a number too large for a float")
        return data

    def _tuple(self, content: Any, depth: int) -> tuple[Any, ...]:
        return tuple(self._items(content, depth))

    def _set(self, content: Any, depth: int) -> set[Any]:
        return set(_members(self._items(content, depth)))

    def _frozenset(self, content: Any, depth: int) -> frozenset[Any]:
        return frozenset(_members(self._items(content, depth)))

    def _dict(self, content: Any, depth: int) -> dict[Any, Any]:
        pairs = [self._several(pair, 2, depth) for pair in self._list(content)]
        _members([key for key, _ in pairs])
        return dict(pairs)

    def _range(self, content: Any, depth: int) -> range:
        start, stop, step = self._terms(content, 3, depth)
        if step == 0:
            raise Malformed("a range with step 0")
        return range(start, stop, step)

    def _fraction(self, content: Any, depth: int) -> Fraction:
        numerator, denominator = self._terms(content, 2, depth)
        if denominator < 1:
            raise Malformed("no fraction")
        return Fraction(numerator, denominator)

    def _complex(self, content: Any, depth: int) -> complex:
        real, imaginary = self._several(content, 2, depth)
        if type(real) is not float or type(imaginary) is not float:
            raise Malformed("no complex number")
        return complex(real, imaginary)

    def _int(self, content: Any, depth: int) -> int:
        self._budget.spend(len(_hexadecimal(content, r"-?[0-9a-f]+")), depth)
        return int(content, 16)

    def _float(self, content: Any, depth: int) -> float:
        if content not in ("nan", "inf", "-inf"):
            raise Malformed("no float")
        return float(content)

    def _bytes(self, content: Any, depth: int) -> bytes:
        self._budget.spend(len(_hexadecimal(content, r"(?:[0-9a-f]{2})*")), depth)
        return bytes.fromhex(content)

    def _str(self, content: Any, depth: int) -> str:
        try:
            return self._bytes(content, depth).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Malformed("no UTF-8") from None

    def _list(self, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise Malformed("a container without a list of parts")
        return content

    def _several(self, content: Any, count: int, depth: int) -> list[Any]:
        values = self._items(content, depth)
        if len(values) != count:
            raise Malformed(f"{len(values)} parts where there are {count}")
        return values

    def _terms(self, content: Any, count: int, depth: int) -> list[int]:
        values = self._several(content, count, depth)
        if any(type(value) is not int for value in values) or not _short(values):
            raise Malformed("no whole number, or too large a term")
        return values


_TAGS: Mapping[str, Callable[[_Decoder, Any, int], Any]] = {
    "tuple": _Decoder._tuple,
    "set": _Decoder._set,
    "frozenset": _Decoder._frozenset,
    "dict": _Decoder._dict,
    "range": _Decoder._range,
    "fraction": _Decoder._fraction,
    "complex": _Decoder._complex,
    "int": _Decoder._int,
    "float": _Decoder._float,
    "bytes": _Decoder._bytes,
    "str": _Decoder._str,
}


def _short(terms: Iterable[int]) -> bool:
    return all(term.bit_length() <= 4 * _DIGITS for term in terms)


def _hexadecimal(content: Any, pattern: str) -> str:
    if not isinstance(content, str) or not re.fullmatch(pattern, content):
        raise Malformed("no hexadecimal digits")
    return content


def _members(values: list[Any]) -> list[Any]:
    """Values for a set or for a dictionary's keys: hashable, and no crowd of one hash, which takes quadratic time."""
    try:
        crowd = Counter(map(hash, values)).most_common(1)
    except TypeError:
        raise Malformed("a member that has no hash") from None
    if crowd and crowd[0][1] > _SAME_HASH:
        raise Malformed("too many members of one hash")
    return values
