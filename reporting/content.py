"""The report as a list of sections and blocks, which two templates draw: one content, HTML and Markdown.

Blocks hold plain text; the templates escape it. Only a figure's SVG is markup, and it is made by `plots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from reporting.trace import Denoising


@dataclass(frozen=True)
class Paragraph:
    """One paragraph."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences under a small heading."""

    kind: ClassVar[str] = "bullets"
    title: str
    items: Sequence[tuple[str, str]]
    """A sentence and the evidence for it, which may be empty."""


@dataclass(frozen=True)
class Table:
    """A table; the first `text_columns` columns hold words, the others numbers."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One small picture."""

    title: str
    svg: str
    """Markup, drawn here."""
    alt: str


@dataclass(frozen=True)
class Figures:
    """Pictures side by side, with the numbers that they draw as tables."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Sample:
    """One generated text, cut or whole."""

    text: str
    note: str


@dataclass(frozen=True)
class SampleColumn:
    """The samples of one arm."""

    title: str
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Samples:
    """Samples of every arm side by side."""

    kind: ClassVar[str] = "samples"
    columns: Sequence[SampleColumn]


@dataclass(frozen=True)
class DenoisingView:
    """One sample's denoising of several models, to scrub through."""

    kind: ClassVar[str] = "denoising"
    traces: Sequence[Denoising]


@dataclass(frozen=True)
class AnswerText:
    """One model's answer to a problem."""

    note: str
    text: str
    passes: bool


@dataclass(frozen=True)
class DifferingProblem:
    """A problem with both arms' answers."""

    title: str
    groups: Sequence[str]
    """What the list can be narrowed to: family, benchmark, cell and arm."""
    request: str
    answers: Sequence[AnswerText]


@dataclass(frozen=True)
class Answers:
    """Problems to browse, each closed at first."""

    kind: ClassVar[str] = "answers"
    problems: Sequence[DifferingProblem]

    @property
    def choices(self) -> list[str]:
        """Every combination of groups that there is, in order."""
        return list(dict.fromkeys(", ".join(problem.groups) for problem in self.problems))


Block = Paragraph | Bullets | Table | Figures | Samples | DenoisingView | Answers


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    summary: str
    findings: Sequence[Bullets]
    sections: Sequence[Section]
