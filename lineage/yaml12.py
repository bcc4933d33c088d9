"""YAML as DVC reads it (version 1.2: `1e-8` is a number, `yes` is a word; each key once), with libyaml's fast parser.

What nobody writes is refused before it costs anything: nesting without end, aliases of aliases, endless numbers.
"""

import re
from typing import Any

import yaml
from yaml.composer import Composer

from lineage.errors import Unreadable

DEEPEST = 100
"""Mappings and lists in each other; what compares or writes values calls itself at each."""
LARGEST = 10**300
"""A whole number that a float can still hold."""
LONGEST = 400
"""Characters of a whole number."""
WIDEST = 1 << 24
"""Characters that aliases may make of a file."""
MOST = 4_000_000
"""Bytes of a file: a million values, which take ten seconds; the largest dvc.lock that is known has a third."""
TOO_DEEP = f"it is nested more than {DEEPEST} deep"
TOO_LARGE = "a number in it is larger than any that a float can hold"


class Loader(Composer, yaml.CSafeLoader):
    """A safe loader with the scalars of YAML 1.2; dates stay text."""

    def __init__(self, stream: bytes | str) -> None:
        yaml.CSafeLoader.__init__(self, stream)
        Composer.__init__(self)
        self._depth = 0
        self._aliases = False

    def get_single_node(self) -> yaml.Node | None:
        """The document's tree; refused before anything is made of it if its aliases make it endless."""
        node = super().get_single_node()
        if node is not None and self._aliases:
            _size(node, {})
        return node

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """libyaml's own goes as deep as it is told, and then the process dies."""
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP)
        self._aliases = self._aliases or self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping; DVC stops at a key that is there twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, Any]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise _wrong(f"{key.value!r} is there twice, which DVC refuses", key)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; PyYAML's own constructors let any error of Python through."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            raise _wrong(f"something in it can't be read as {node.tag.rpartition(':')[2]}", node) from None


def load(data: bytes) -> Any:
    """What a text in YAML says.

    Raises:
        Unreadable: it is no YAML, or larger, deeper or wider than anybody writes.
    """
    if len(data) > MOST:
        raise Unreadable(too_long(data, MOST))
    try:
        return yaml.load(data, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise Unreadable(f"it can't be read as YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, RecursionError):  # bytes that are no text
        raise Unreadable("it can't be read as YAML: it is no text") from None


def too_long(data: bytes, most: int) -> str:
    """Why values are not read of so many bytes."""
    return f"it has {len(data):,} bytes, and values are read of no more than {most:,}"


def bounded(value: Any) -> Any:
    """A value of another format, if it is no deeper and has no larger numbers than YAML may have.

    Raises:
        Unreadable: it is deeper or larger.
    """
    waiting = [(value, 0)]
    while waiting:
        found, depth = waiting.pop()
        if isinstance(found, dict | list | tuple | set):
            if depth > DEEPEST:
                raise Unreadable(TOO_DEEP)
            waiting += ((inner, depth + 1) for inner in (found.values() if isinstance(found, dict) else found))
        elif isinstance(found, int) and abs(found) >= LARGEST:
            raise Unreadable(TOO_LARGE)
    return value


def _size(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Characters and levels under a node, aliases written out."""
    if id(node) in known:
        if (found := known[id(node)]) is None:
            raise _wrong("it holds itself", node)
        return found
    known[id(node)] = None
    parts = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in parts for part in pair]
    sizes = [_size(part, known) for part in parts]
    size = 1 + sum(each for each, _ in sizes) + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
    depth = 1 + max((below for _, below in sizes), default=0)
    if size > WIDEST or depth > DEEPEST:
        raise _wrong(TOO_DEEP if depth > DEEPEST else f"aliases make more than {WIDEST} characters of it", node)
    known[id(node)] = size, depth
    return size, depth


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    number = 0 if len(text) > LONGEST else int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)
    if len(text) > LONGEST or abs(number) >= LARGEST:
        raise _wrong(TOO_LARGE, node)
    return number


def _real(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


PLAIN = ("null", "bool", "str", "seq", "map")
"""Types that JSON has, too. DVC writes no others, and no answer could hold them."""
Loader.yaml_constructors = {
    tag: make for tag, make in Loader.yaml_constructors.items() if tag is None or tag.rpartition(":")[2] in PLAIN
}
Loader.add_constructor("tag:yaml.org,2002:int", _integer)
Loader.add_constructor("tag:yaml.org,2002:float", _real)
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?([0-9_]+|0o[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*(\.[0-9_]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9_]+([eE][-+][0-9]+)?)"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
