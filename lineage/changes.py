"""What kind of change it is: of a file's text, of a parameter, of an environment. Knows no graph.

A comment is told from code by Python's own parser (or, elsewhere, by its `#`), an order from rows by the lines' counts.
"""

import ast
import io
import posixpath
import re
from collections import Counter
from enum import StrEnum
from typing import Any

from lineage.contents import parsed
from lineage.model import Fault, Frozen
from lineage.pins import HASHES, REVISIONS
from lineage.seeds import is_seed
from lineage.values import ABSENT, same

DATA = re.compile(
    r"\.(csv|tsv|txt|md|json|jsonl|ndjson|parquet|arrow|feather|npy|npz|pkl|pt|bin|gz|bz2|xz|zip|zst|xml|html|png|jpe?g"
    r"|wav|mp3|safetensors|h5|db|sqlite)",
    re.IGNORECASE,
)
"""Suffixes of files that hold data, not code."""
PACKAGE = re.compile(r"^([A-Za-z0-9][\w.-]*(?:\[[^\]\n]*\])?)==([^\s;#]+)", re.MULTILINE)


class Change(StrEnum):
    """What differs at a run that does not come from above it."""

    PARAMETER = "parameter"
    SEED = "seed"
    SOURCE = "source revision"
    CODE = "code"
    COMMENT = "comment"
    MOVED = "file moved"
    """The same bytes at another path."""
    ROWS = "data"
    ORDER = "data order"
    ENVIRONMENT = "environment"
    COMMAND = "command"
    ADDED = "run added"
    REMOVED = "run removed"
    UNEXPLAINED = "doesn't repeat, or tampered"
    """Outputs differ, and nothing that was read does."""


VALUED = frozenset({Change.PARAMETER, Change.SEED, Change.SOURCE})
"""What differs in values, of any type."""


class Effect(StrEnum):
    """What a change did to its run's outputs."""

    CHANGED = "outputs differ"
    MIXED = "outputs differ, as does what it reads from above"
    """So how much of it this change did can't be said."""
    IDENTICAL = "outputs byte-identical"
    CONTRADICTED = "not so run, by its manifest"
    """The manifest of one side denies what dvc.lock says there, so nothing is known of what this change did."""
    NOT_RUN = "not run since"
    """It is in the files, and the record was made without it."""
    NONE = ""

    @property
    def counts(self) -> bool:
        """Whether the outputs may differ because of it."""
        return self not in (Effect.IDENTICAL, Effect.NOT_RUN)


class Entry(Frozen):
    """One difference, at the run through which it entered."""

    run: str | None
    """None where no run read it."""
    kind: Change | Fault
    what: str
    """File, parameter, package or command."""
    before: Any
    after: Any
    effect: Effect = Effect.NONE
    detail: str = ""

    @property
    def sides(self) -> tuple[Any, Any]:
        """Both values; None is one of them, but of a hash, a version or a command it says that there is none."""
        old, new = ((ABSENT if v is None and self.kind not in VALUED else v) for v in (self.before, self.after))
        return old, new

    def mirrored(self) -> "Entry":
        """The same difference, seen from the other side."""
        kind = MIRRORED.get(self.kind, self.kind)
        return self.model_copy(update={"before": self.after, "after": self.before, "kind": kind})


def entered(
    run: str, kind: Change, what: str, before: Any, after: Any, effect: Effect = Effect.NONE, detail: str = ""
) -> Entry:
    """A difference between two values, of which one may not be there."""
    return Entry(run=run, kind=kind, what=what, before=before, after=after, effect=effect, detail=detail)


MIRRORED: dict[Change | Fault, Change | Fault] = {Change.ADDED: Change.REMOVED, Change.REMOVED: Change.ADDED}


def parameter_kind(key: str) -> Change:
    """What a parameter is, by its name."""
    last = key.rpartition(".")[2]
    if last in REVISIONS or last in HASHES:
        return Change.SOURCE
    return Change.SEED if is_seed(key) or re.search(r"(^|\.)seeds\.\d+$", key) else Change.PARAMETER


def is_data_file(path: str) -> bool:
    """Whether a file holds data and no code, by its suffix."""
    return DATA.fullmatch(posixpath.splitext(path)[1]) is not None


def file_kind(path: str, before: bytes | None, after: bytes | None) -> tuple[Change, str]:
    """What changed in a file, and a word on how much.

    Args:
        before, after: its bytes; None where they are nowhere to be had.
    """
    if is_data_file(path):
        return _data_kind(before, after)
    if before is None or after is None:
        return Change.CODE, ""
    if _same_code(path, before, after):
        return Change.COMMENT, "the code without comments and layout is the same"
    return Change.CODE, _lines(before, after)


def _data_kind(before: bytes | None, after: bytes | None) -> tuple[Change, str]:
    if before is None or after is None:
        return Change.ROWS, ""
    if Counter(before.splitlines()) == Counter(after.splitlines()) and b"\0" not in before:
        return Change.ORDER, "the same lines in another order"
    return Change.ROWS, _lines(before, after)


def _lines(before: bytes, after: bytes) -> str:
    """How much differs, in words that are the same from both sides."""
    if b"\0" in before or b"\0" in after:
        return f"sizes differ by {abs(len(before) - len(after))} bytes"
    old, new = Counter(before.splitlines()), Counter(after.splitlines())
    return f"{(old - new).total() + (new - old).total()} lines are on one side only"


def _same_code(path: str, before: bytes, after: bytes) -> bool:
    if path.endswith(".py"):
        try:
            return ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))
        except (SyntaxError, ValueError):
            return False
    if path.endswith((".yaml", ".yml", ".toml")):
        a, b = parsed(before, path), parsed(after, path)
        return a is not None and same(a, b)
    return _without_comments(before) == _without_comments(after)


def _without_comments(data: bytes) -> list[bytes]:
    lines = (line.strip() for line in io.BytesIO(data))
    return [line for line in lines if line and (not line.startswith(b"#") or line.startswith(b"#!"))]


def package_changes(before: bytes | None, after: bytes | None) -> dict[str, tuple[str | None, str | None]]:
    """Package -> its versions before and after, of those in which two environment locks differ."""
    old, new = _packages(before), _packages(after)
    return {n: (old.get(n), new.get(n)) for n in sorted({*old, *new}) if old.get(n) != new.get(n)}


def _packages(data: bytes | None) -> dict[str, str]:
    return dict(PACKAGE.findall((data or b"").decode(errors="replace")))
