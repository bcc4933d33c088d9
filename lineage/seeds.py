"""What seeds randomness: parameters by their names, options of commands."""

import re
from collections.abc import Iterator
from typing import Any

from lineage.model import Run
from lineage.values import shown

SEED = re.compile(r"(^|[._-])seeds?$", re.IGNORECASE)
OPTION = re.compile(r"(?<![\w-])--(?:[\w-]{1,80}-)?seed[= ](\S+)")


def is_seed(key: str) -> bool:
    """Whether a parameter seeds randomness, by its name."""
    return SEED.search(key) is not None


def seeds_of(run: Run) -> Iterator[str]:
    """`key = value` of all that seeds a run: parameters (also inside sections) and options of its command."""
    for _, key, value in run.settings():
        yield from _inside(key, value)
    for command in run.command:
        yield from (f"--seed = {match.group(1)}" for match in OPTION.finditer(command))


def _inside(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner, below in value.items():
            yield from _inside(f"{key}.{inner}", below)
    elif is_seed(key):
        yield f"{key} = {shown(value)}"
