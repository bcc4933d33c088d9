"""What pages cite: `<data data-source="PATH:KEY" value="EXACT">TEXT</data>` writes a value that lies in a file.

Any project's pages may say so. HTML is read as it is and nothing in it is trusted. Knows no check and no command.
"""

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from html import unescape
from typing import Any

from lineage.contents import Contents, at
from lineage.graph import Graph
from lineage.model import File
from lineage.targets import find_file

SOURCE, VALUE = "data-source", "value"
LONGEST = 1000
"""Characters of a number; matching takes their square."""
MINUS = "\N{MINUS SIGN}"
NUMBER = re.compile(r"(?P<digits>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?)\s*(?P<percent>%?)", re.ASCII)
MARKUP = re.compile(
    r"<!--.*?(?:--!?>|\Z)|<[!?][^>]*(?:>|\Z)"
    r"|<(?P<raw>script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</(?P=raw)[^>]*(?:>|\Z)|\Z)"
    r"|<(?:data(?P<opened>(?=[\s/>])INSIDE)|(?P<closed>/data(?=[\s/>]))INSIDE|/?[a-z]INSIDE)(?:>|\Z)".replace(
        "INSIDE", r"""(?:=\s*"[^"]*(?:"|\Z)|=\s*'[^']*(?:'|\Z)|[^>])*"""
    ),
    re.IGNORECASE | re.DOTALL,
)
"""Comments, what holds no tags, and tags. Each ends somewhere, if with the page: so none is looked for twice, where
Python's own parser takes the square of the length of a page that opens a thousand comments."""
ATTRIBUTE = re.compile(r"""([^\s/>=]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s>]*))?""")
SLACK = Decimal("1e-9")
"""Of a half of the last digit that is shown: a percentage is the value times 100 in binary."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A value as a page writes it."""

    source: str
    """`PATH:KEY`."""
    value: str | None
    """Exactly, as the page has it; None where it doesn't say."""
    text: str


def citations(page: bytes) -> list[Citation]:
    """All that a page cites, in its order."""
    if SOURCE.encode() not in page.lower():
        return []
    text, reader, end = page.decode("utf-8", errors="replace"), _Reader(), 0
    for token in MARKUP.finditer(text):
        reader.say(text[end : token.start()])
        end = token.end()
        if (opened := token["opened"]) is not None:
            reader.open(opened)
        elif token["closed"] is not None:
            reader.close()
    reader.say(text[end:])
    reader.close(everything=True)  # as browsers do at the end
    return reader.found


class _Reader:
    """Collects the citations of a page; one inside another is part of the outer one's text."""

    def __init__(self) -> None:
        self.found: list[Citation] = []
        self._open: list[tuple[str, str | None] | None] = []
        self._citing = 0
        """How many of the open tags cite."""
        self._text: list[str] = []

    def open(self, attributes: str) -> None:
        """A tag, by what stands in it behind its name; of an attribute that is there twice, the first counts."""
        said: dict[str, str | None] = {}
        for name, value in ATTRIBUTE.findall(attributes):
            said.setdefault(name.lower(), unescape(value[1:-1] if value[:1] in ("'", '"') else value) or None)
        source = said.get(SOURCE)
        self._open.append((source, said.get(VALUE)) if source else None)
        self._citing += source is not None

    def close(self, everything: bool = False) -> None:
        """The end of the innermost tag that is open, or of all."""
        while self._open:
            closed = self._open.pop()
            self._citing -= closed is not None
            if closed is not None and not self._citing:
                self.found.append(Citation(*closed, _plain(unescape("".join(self._text)))))
                self._text.clear()
            if not everything:
                return

    def say(self, text: str) -> None:
        """What stands between tags."""
        if self._citing:
            self._text.append(text)


class Sources:
    """The values that citations name in one state. Each file is read once."""

    def __init__(self, graph: Graph, contents: Contents) -> None:
        self._graph, self._contents = graph, contents
        self._files: dict[str, tuple[File, str] | None] = {}
        self._values: dict[str, Any] = {}

    def find(self, source: str) -> tuple[File, str] | None:
        """The file and the key of `PATH:KEY`; None where no such file is recorded or kept."""
        head, colon, tail = source.rpartition(":")
        if not colon:
            head, tail = source, ""
        if head not in self._files:
            self._files[head] = find_file(head, self._graph, self._contents) or self._kept(head)
        found = self._files[head]
        return None if found is None else (found[0], f"{found[1]}:{tail}" if found[1] else tail)

    def _kept(self, path: str) -> tuple[File, str] | None:
        """A file that no stage made or read, such as a whole params.yaml."""
        return None if self._contents.state.read(path) is None else (File(path), "")

    def is_here(self, file: File) -> bool:
        """Whether a file's bytes are here."""
        return self._content(file) is not None

    def value(self, file: File, key: str) -> Any:
        """What lies at a key of a file.

        Raises:
            KeyError: nothing does.
        """
        return at(self._content(file), key)

    def _content(self, file: File) -> Any:
        if file.path not in self._values:
            self._values[file.path] = self._contents.value(file)
        return self._values[file.path]


def is_exactly(said: str, cited: Any) -> bool:
    """Whether a page's `value` is what it cites: a text as it is, anything else as JSON."""
    if isinstance(cited, str):
        return said == cited
    if isinstance(cited, bool | None) or _is_endless(cited):
        return said == json.dumps(cited)
    exact, number = _exact(cited), _exact(said)
    if exact is None or number is None:
        return False
    return number == exact or (not said.lstrip("+-").isdigit() and float(number) == float(exact))


def writes(text: str, cited: Any) -> bool:
    """Whether a text is a value rounded to the digits that it shows, as it is or in per cent; words are themselves.

    Digits are grouped by commas or not at all, with a point before decimals.
    """
    if isinstance(cited, str) and text == _plain(cited):
        return True
    if isinstance(cited, bool | None) or _is_endless(cited):
        return text.replace(MINUS, "-") in (json.dumps(cited), str(cited))
    digits = text.replace(MINUS, "-").replace(",", "")[: LONGEST + 1]
    shown, exact = NUMBER.fullmatch(digits) if len(digits) <= LONGEST else None, _exact(cited)
    if exact is None or shown is None:
        return False
    number = Decimal(shown["digits"])
    half = Decimal(5).scaleb(_exponent(number) - 1) * (1 + SLACK)
    scales = (100,) if shown["percent"] else (1, 100)
    return any(abs(number - exact * scale) <= half for scale in scales)


def _is_endless(cited: Any) -> bool:
    """Whether it is infinite or no number."""
    return isinstance(cited, float) and not math.isfinite(cited)


def _exact(cited: Any) -> Decimal | None:
    """A number, or a text that is one as in a table; None for all else."""
    if not isinstance(cited, int | float | str) or len(str(cited)) > LONGEST:
        return None
    number = NUMBER.fullmatch(str(cited))
    return Decimal(number["digits"]) if number is not None and not number["percent"] else None


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # the pattern lets neither NaN nor infinity through
    return exponent


def _plain(text: str) -> str:
    return " ".join(text.split())
