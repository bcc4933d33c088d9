"""YAML as DVC reads it (version 1.2: `yes` is a word, `010` is ten), each key once, no larger than a person writes it.

DVC records what it reads, and a stage must not run with anything else. PyYAML alone reads version 1.1.
"""

import re
from typing import Any

import yaml

LARGEST = 1 << 18
"""Characters of a file, aliases written out; the paper's params.yaml has 16,000."""
DEEPEST = 50
MOST_DIGITS = 1000


class TooDeep(Exception):
    """Nobody nests parameters so."""


class Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2. A key that a mapping has twice is an error."""

    def get_single_node(self) -> Any:
        """The document's tree; refused before anything is made of it if it is too large, too deep or endless."""
        node = super().get_single_node()
        if node is not None:
            _size(node, {}, 0)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong("a list or a mapping as a key; expected text", key)
            if key.value in lines:
                twice = f"the key {key.value!r} is there twice, first on line {lines[key.value]}"
                raise _wrong(f"{twice}; expected each key once", key)
            lines[key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; PyYAML's own constructors let any error of Python through."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError):
            kind, text = node.tag.rpartition(":")[2], str(node.value)
            raise _wrong(f"{text if len(text) <= 40 else f'{text[:37]}...'} can't be read as {kind}", node) from None


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Characters under a node, aliases written out."""
    if depth > DEEPEST:
        raise TooDeep
    if id(node) in known:
        if not (size := known[id(node)]):
            raise _wrong("it holds itself", node)
        return size
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    size = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
    size += sum(_size(part, known, depth + 1) for part in parts)
    if size > LARGEST:
        raise _wrong(f"aliases make more than {LARGEST} characters of it", node)
    known[id(node)] = size
    return size


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _integer(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if len(text) > MOST_DIGITS:
        raise ValueError
    return int(text, 0) if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else int(text)


def _real(loader: Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
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
Loader.add_constructor("tag:yaml.org,2002:int", _integer)
Loader.add_constructor("tag:yaml.org,2002:float", _real)
