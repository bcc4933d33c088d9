"""Plain data comes back as it was, whatever else is refused, and hostile text costs the judge next to nothing."""

import enum
import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.plain_data import Bounds, Encoded, Malformed, NotPlain, TooLarge, decode, dumps, encode, loads

BOUNDS = Bounds(size=100_000, nesting=20)
Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    pass


class Equal(list[int]):
    def __eq__(self, other: object) -> bool:
        return True


TERMS: list[Any] = [{kind: [1, 2, {"int": "f" * 5000}][-size:]} for kind, size in (("fraction", 2), ("range", 3))]


hashable = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.binary()),
        *(st.text(st.characters()), st.complex_numbers(allow_nan=False), st.fractions()),
    ),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)
plain = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.builds(range, st.integers(), st.integers(), st.integers(1))
    ),
    max_leaves=12,
)
nested_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["nan", "ff", "-f", "0g"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["tuple", "set", "dict", "int", "float", "range", "str", "x"]), inner, max_size=2
        )
    ),
    max_leaves=12,
)


def there_and_back(value: object) -> Any:
    return decode(loads(dumps(encode(value, BOUNDS).data).encode()), BOUNDS)


def shape(value: object) -> str:
    """A value with the types and signs of all of its parts."""
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(shape, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(shape, value)))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{shape(key)}: {shape(item)}' for key, item in value.items())})"
    return f"{type(value).__name__} {value!r}"


@given(plain)
def test_plain_data_comes_back_with_its_types(value: object) -> None:
    assert shape(there_and_back(value)) == shape(value)
    assert encode(value, BOUNDS).exact


@given(st.sets(hashable, min_size=2, max_size=5))
def test_the_encoding_of_a_set_does_not_depend_on_hashes(value: set[Any]) -> None:
    members = list(value)
    backwards = members[::-1]
    assert dumps(encode(set(members), BOUNDS).data) == dumps(encode(set(backwards), BOUNDS).data)


@given(nested_json)
def test_any_json_is_a_value_or_malformed(data: Any) -> None:
    try:
        value = decode(data, BOUNDS)
    except Malformed:
        return
    assert shape(there_and_back(value)) == shape(value)


def test_json_stands_for_itself() -> None:
    value = [1, -2.5, "ä", None, True, [], ["x"]]
    assert encode(value, BOUNDS) == Encoded(value, exact=True)
    assert decode(value, BOUNDS) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.0, -0.0, 1e308, 5e-324])
def test_floats_keep_every_bit(value: float) -> None:
    assert math.copysign(1, there_and_back(value)) == math.copysign(1, value)
    assert there_and_back(value) == value
    assert math.isnan(there_and_back(math.nan))


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (Name("x"), "x"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ({"a": 1}.keys(), {"a"}),
        ({"a": 1}.items(), {("a", 1)}),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (np.int64(3), 3),
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Decimal("1.5"), Fraction(3, 2)),
    ],
)
def test_what_compares_as_its_base_is_written_as_its_base_and_is_not_exact(value: object, base: object) -> None:
    assert value == base
    assert there_and_back(value) == base and type(there_and_back(value)) is type(base)
    assert not encode(value, BOUNDS).exact
    assert shape(there_and_back([value])) == shape([base])


@pytest.mark.parametrize(
    "value",
    [
        object(),
        iter([1]),
        deque([1]),
        len,
        int,
        Equal([1]),
        [Equal([1])],
        np.array([1, 2]),
        {"a": 1}.values(),
        Decimal("nan"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_not_plain(value: object) -> None:
    with pytest.raises(NotPlain):
        encode(value, BOUNDS)


def test_what_is_too_large_or_too_deep_is_refused_on_both_sides() -> None:
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, endless, "x" * 200_000, [0] * 200_000, 1 << 10**6, Fraction(1, 3**20_000), range(1 << 10**5)):
        with pytest.raises(TooLarge):
            encode(value, BOUNDS)
    for data in (deep, "x" * 200_000, [0] * 200_000, {"int": "1" * 200_000}, *TERMS):
        with pytest.raises(Malformed):
            decode(data, BOUNDS)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"tuple": [], "set": []},
        {"unknown": []},
        {"tuple": 1},
        {"set": [[1]]},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"dict": {"a": 1}},
        {"int": "0x1"},
        {"int": "1_0"},
        {"int": 1},
        {"float": "1.0"},
        {"bytes": "f"},
        {"str": "ff"},
        {"complex": [1, 2]},
        {"range": [1, 2, 0]},
        {"range": [1, 2, True]},
        {"fraction": [1, 0]},
        {"set": [i * (2**61 - 1) for i in range(100)]},
        {"dict": [[i * (2**61 - 1), 0] for i in range(100)]},
    ],
    ids=lambda data: json.dumps(data)[:40],
)
def test_malformed_data_is_refused(data: Any) -> None:
    with pytest.raises(Malformed):
        decode(data, BOUNDS)


@pytest.mark.parametrize(
    "line", [b"", b"{", b"NaN", b"1e999", b"\xff", b"[" * 100_000, b"1" * 10_000, b'{"a": Infinity}']
)
def test_a_line_that_is_no_strict_json_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        decode(loads(line), BOUNDS)


def test_hostile_text_costs_little_time() -> None:
    bounds = Bounds(size=1 << 20, nesting=64)
    crowd = b'{"set": [' + b",".join(str(i * (2**61 - 1)).encode() for i in range(40_000)) + b"]}"
    terms = b'{"fraction": [{"int": "' + b"f" * 500_000 + b'"}, {"int": "' + b"e" * 500_000 + b'"}]}'
    bounds_of_a_range = terms.replace(b"fraction", b"range").replace(b"]}", b",3]}")
    started = time.process_time()
    for line in (crowd, terms, bounds_of_a_range):
        with pytest.raises(Malformed):
            decode(loads(line), bounds)
    assert time.process_time() - started < 1
