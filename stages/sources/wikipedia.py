"""The Wikipedia dump inside the gensim wheel as documents of prose.

gensim's parser reads the dump and strips most of the markup. What it would leave holes or debris for (inline
templates, captions, tables, formulas) is dealt with before it, and what is no prose is left out after it.
"""

import bz2
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from gensim.corpora.wikicorpus import extract_pages, filter_wiki

from softmask.errors import InputError
from stages.params.corpus import WikipediaSampleParams
from stages.sources.documents import Document
from stages.sources.installed import files_of, installed

WHERE = "params.yaml: corpus.wikipedia_sample"
ARTICLES = ("0",)
"""MediaWiki's namespace of articles."""


def wikipedia_documents(params: WikipediaSampleParams) -> Iterator[Document]:
    """The articles of the dump, cleaned; redirects and pages without prose come out empty.

    Raises:
        InputError: the package is missing or of another version, or the dump isn't the pinned file.
    """
    files = files_of(installed(params.package, params.version, f"{WHERE}.version"), WHERE)
    path = files.get(params.file)
    if path is None:
        raise InputError(f"{params.package} has no file {params.file!r}", where=f"{WHERE}.file")
    _verify(path, params.sha256)
    with bz2.open(path, "rb") as dump:
        for title, raw, page in extract_pages(dump, ARTICLES):
            yield Document(f"{page} {title}", clean_article(raw, params.drop_sections, params.min_paragraph_characters))


def _verify(path: Path, expected: str) -> None:
    try:
        found = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"can't be read ({error.strerror})", where=str(path), todo="Install the package again"
        ) from None
    if found != expected:
        raise InputError(
            f"the dump's sha256 is {found}",
            where=f"{WHERE}.sha256",
            expected=expected,
            todo="Install the package again",
        )


def clean_article(raw: str, drop_sections: Sequence[str], min_paragraph_characters: int) -> str:
    """An article's paragraphs of prose, one a line; empty if there are none.

    Args:
        raw: MediaWiki markup.
        drop_sections: lower-case headings whose sections go, with everything below them.
        min_paragraph_characters: shorter paragraphs go.
    """
    if raw.lstrip().lower().startswith("#redirect"):
        return ""
    text = filter_wiki(_prepare(raw))
    lines = _without_sections(text.split("\n"), drop_sections)
    paragraphs = (_tidy(line) for line in lines if not line.startswith(_NOT_PROSE))
    return "\n".join(line for line in paragraphs if len(line) >= min_paragraph_characters and _is_prose(line))


# Before gensim: markup that it would turn into holes or debris.

_HOLE = "\x00"
"""Stands where something that can't be text was taken out of a sentence; its paragraph is left out."""

_REMOVED = [
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"<ref[^<>]*/>"),
    re.compile(r"<(ref|gallery|timeline|score|imagemap|source)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE),
    re.compile(r"__[A-Z]+__"),
]
_FORMULA = re.compile(r"<(math|code|poem)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_MEDIA = re.compile(r"\[\[\s*(?:file|image|category)\s*:", re.IGNORECASE)


def _prepare(raw: str) -> str:
    text = raw
    for pattern in _REMOVED:
        text = pattern.sub("", text)
    text = _FORMULA.sub(_HOLE, text)
    text = _until_stable(_TEMPLATE, _template_text, text)
    text = _until_stable(_TABLE, lambda _: "", text)
    return _without_media(text)


def _until_stable(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str) -> str:
    """Substitute from the inside out, until nothing nested is left."""
    found = 1
    while found:
        text, found = pattern.subn(replacement, text)
    return text


def _without_media(text: str) -> str:
    """Take out `[[File:...]]` and the like whole: a caption may hold links of its own."""
    kept: list[str] = []
    end = 0
    while match := _MEDIA.search(text, end):
        kept.append(text[end : match.start()])
        depth, end = 0, match.start()
        for bracket in re.finditer(r"\[\[|\]\]", text[match.start() :]):
            depth += 1 if bracket.group() == "[[" else -1
            end = match.start() + bracket.end()
            if depth == 0:
                break
    return "".join([*kept, text[end:]])


def _first(arguments: list[str]) -> str:
    return arguments[0] if arguments else ""


def _last(arguments: list[str]) -> str:
    return arguments[-1] if arguments else ""


def _second(arguments: list[str]) -> str:
    return arguments[1] if len(arguments) > 1 else ""


_RANGES = {"-": "\u2013", "\u2013": "\u2013", "to": " to ", "and": " and ", "or": " or ", "x": " x ", "by": " by "}
_UNITS = {"sqmi": "sq mi", "sqkm": "km²", "km2": "km²", "m2": "m²", "ft2": "sq ft", "sqft": "sq ft", "km3": "km³"}
_UNITS |= {"cuft": "cu ft", "C": "°C", "F": "°F", "°C": "°C", "°F": "°F"}


def _convert(arguments: list[str]) -> str:
    """`{{convert|5|to|10|km}}` -> `5 to 10 km`: the amount in its own unit."""
    if len(arguments) >= 4 and arguments[1] in _RANGES:
        amount, unit = arguments[0] + _RANGES[arguments[1]] + arguments[2], arguments[3]
    elif len(arguments) >= 2:
        amount, unit = arguments[0], arguments[1]
    else:
        return _HOLE
    return f"{amount} {_UNITS.get(unit, unit)}"


def _fraction(arguments: list[str]) -> str:
    whole = f"{arguments[0]} " if len(arguments) == 3 else ""
    return whole + "/".join(arguments[-2:]) if len(arguments) > 1 else _HOLE


_INLINE: dict[str, Callable[[list[str]], str]] = {
    "lang": _second,
    "transl": _last,
    "nihongo": _first,
    "nowrap": _first,
    "small": _first,
    "smaller": _first,
    "angbr": _first,
    "vanchor": _first,
    "quote": _first,
    "quotation": _first,
    "cquote": _first,
    "keypress": _first,
    "val": _first,
    "nts": _first,
    "dts": _first,
    "frac": _fraction,
    "convert": _convert,
    "cvt": _convert,
    "inflation": _second,
    "circa": lambda arguments: " ".join(["c.", *arguments]),
    "c.": lambda arguments: " ".join(["c.", *arguments]),
    "bce": lambda arguments: " ".join([*arguments, "BCE"]),
    "ce": lambda arguments: " ".join([*arguments, "CE"]),
    "as of": lambda arguments: " ".join(["As of", *arguments]),
    "'s": lambda _: "'s",
    "'": lambda _: "'",
    "·": lambda _: " · ",
    "nbsp": lambda _: " ",
    "spaced ndash": lambda _: " \u2013 ",
    "snd": lambda _: " \u2013 ",
    "ndash": lambda _: "\u2013",
    "mdash": lambda _: "—",
    "!": lambda _: "|",
    "ipa": lambda _: _HOLE,
    "chem": lambda _: _HOLE,
    "simplenuclide2": lambda _: _HOLE,
    "math": lambda _: _HOLE,
    "mvar": lambda _: _HOLE,
}
"""Templates that stand for words inside a sentence. All others are notes, boxes and navigation, and go."""


def _template_text(match: re.Match[str]) -> str:
    name, *rest = match.group(1).split("|")
    name = name.strip().lower()
    arguments = [part.strip() for part in rest if "=" not in part]
    if name.startswith("lang-"):
        return _first(arguments)
    return _INLINE[name](arguments) if name in _INLINE else ""


# After gensim: what is no prose goes, and what the markup left inside sentences is mended.

_HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$")
_NOT_PROSE = ("*", "#", ";", "|", "!", "{", "}", "=")
_DEBRIS = re.compile(r"\x00|\[\[|\]\]|\{\{|\}\}|\{\||\|\}|\||</?\w|==|https?://|\b(?:thumb|px|align|style|colspan)\b=?")
_SENTENCE_END = re.compile(r"[.!?…][\"'”\u2019)\]]*$")
_FIXES = [
    (re.compile(r"(?<!')''([^'\n]+)'''s\b"), r"\1's"),  # ''Iliad'''s: italics and a genitive
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"[\u00a0\u2009\u202f\t ]+"), " "),
    (re.compile(r"\(\s*(?:[,;:\u2013-]|\bor\b|\band\b|\s)+(?=\))"), "("),
    (re.compile(r"\(\s*(?:[,;:]\s*)+"), "("),
    (re.compile(r"(?:\s*[,;:])+\s*\)"), ")"),
    (re.compile(r"([,;])(?:\s*[,;])+"), r"\1"),
    (re.compile(r"\(\s*\)|\[\s*\]|\"\""), ""),
    (re.compile(r"\(\s+"), "("),
    (re.compile(r"\s+([,.;:)!?])"), r"\1"),
    (re.compile(r" {2,}"), " "),
]


def _without_sections(lines: Sequence[str], drop: Sequence[str]) -> Iterator[str]:
    """The lines outside the named sections, without headings."""
    dropped_level = 0
    for line in lines:
        heading = _HEADING.match(line)
        if heading is None:
            if not dropped_level:
                yield line
            continue
        level = len(heading.group(1))
        if not dropped_level or level <= dropped_level:
            dropped_level = level if heading.group(2).strip("' ").lower() in drop else 0


def _tidy(line: str) -> str:
    text = line.lstrip(": ")
    for pattern, replacement in _FIXES:
        text = pattern.sub(replacement, text)
    return text.strip()


def _is_prose(line: str) -> bool:
    return _DEBRIS.search(line) is None and _SENTENCE_END.search(line) is not None
