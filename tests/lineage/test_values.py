"""YAML as DVC reads it, keys of metrics, and where two values differ."""

import math
from typing import Any

import pytest
import yaml
from dvc.utils.serialize._yaml import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from lineage.contents import at, parsed, read_value
from lineage.errors import Unreadable
from lineage.values import ABSENT, differing, same, shown, value_at
from lineage.yaml12 import Loader

TEXT = """
a: 1e-8
b: yes
c: 010
d: 2020-01-01
e: null
f: ~
g: 1.
h: -.inf
i: true
j: 1:30
k: 0x1F
l:
m: +12
n: .5
o: 1_000
s: -0x1_F
t: .5e1
u: 1_0.5
v: +0b1_1
p: "1"
q: 1e5
r: -3.2E+4
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_scalars_are_those_that_dvc_reads() -> None:
    ours = yaml.load(TEXT, Loader=Loader)
    theirs = {k: str(v) if k == "d" else v for k, v in parse_yaml(TEXT, "params.yaml").items()}
    assert ours == theirs


def test_keys_may_hold_dots_and_index_lists() -> None:
    value = {"lm.v2": {"sm": [{"ppl": 1}, {"ppl": 2}]}, "a": {"b": 3}}
    assert at(value, "lm.v2.sm.1.ppl") == 2 and at(value, "a.b") == 3
    for key in ("a.c", "lm", "lm.v2.sm.2.ppl", "a.b.c"):
        with pytest.raises(KeyError):
            at(value, key)
    assert value_at(value, "a.c") is ABSENT and value_at(None, "a") is ABSENT


def test_files_are_read_by_their_kind() -> None:
    assert parsed(b'{"a": 1}', "m.json") == parsed(b"a: 1", "m.yaml") == parsed(b"a = 1", "m.toml") == {"a": 1}
    assert parsed(b"A = 1\n", "p.py") == {"A": 1}
    assert parsed(b"{", "m.json") is None and parsed(b"a: [", "m.yaml") is None and parsed(None, "m.json") is None


@given(JSON)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert [*differing(value, value)] == [] and same(value, value)


@given(JSON, JSON)
def test_differences_mirror(a: Any, b: Any) -> None:
    there, back = [*differing(a, b)], [*differing(b, a)]
    assert sorted(map(str, there)) == sorted(str((key, after, before)) for key, before, after in back)
    assert bool(there) is not same(a, b)


def test_differences_are_named_where_they_are() -> None:
    a, b = {"x": {"y": 1, "z": [1, 2]}, "only": 1}, {"x": {"y": 2, "z": [1, 2]}, "new": None}
    assert [*differing(a, b)] == [("x.y", 1, 2), ("only", 1, ABSENT), ("new", ABSENT, None)]


def test_what_is_one_number_and_what_is_not() -> None:
    assert same(1, 1.0) and same(math.nan, math.nan) and not same(1, True) and not same(0, False) and not same("1", 1)


def test_a_long_value_is_shown_in_one_short_line() -> None:
    assert shown("a\nb") == '"a\\nb"' and len(shown(list(range(1000)))) == 80 and shown(ABSENT) == "absent"


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.toml", "a.py", "a.yaml"])
def test_a_file_that_would_take_minutes_is_not_read(name: str) -> None:
    with pytest.raises(Unreadable, match="values are read of no more than"):
        read_value(b"#" * 20_000_001, name)
