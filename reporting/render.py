"""Draws the report's content with the two templates. Everything that was generated is escaped for its format."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reporting.cited import Cited
from reporting.content import Report

TEMPLATES = Path(__file__).parent / "templates"
LINEAGE = "lineage.html"
"""The page of traces beside the report, which `make repro` has lineage write after the pipeline."""
COMMAND = "python -m lineage trace"
"""What says the same where that page wasn't made."""
BLANKS = re.compile(r"(?P<block>^(?P<fence>`{3,})text\n.*?\n(?P=fence)$)|\n{3,}", re.MULTILINE | re.DOTALL)
"""Runs of blank lines that the template leaves; code blocks are matched first, so that theirs stay."""


def render_html(report: Report) -> str:
    """One self-contained page."""
    environment = _environment(autoescape=True)
    environment.tests["cited"] = lambda text: isinstance(text, Cited)
    environment.globals |= {"lineage": LINEAGE, "command": COMMAND}
    page = environment.get_template("report.html")
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return page.render(report=report, style=Markup(style), script=Markup(script), markup=Markup) + "\n"


def render_markdown(report: Report) -> str:
    """The same content as Markdown."""
    environment = _environment(autoescape=False)
    environment.filters |= {"prose": prose, "fence": fence}
    text = environment.get_template("report.md").render(report=report)
    return BLANKS.sub(lambda match: match["block"] or "\n\n", text).strip() + "\n"


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def prose(text: str) -> str:
    """Text that Markdown shows as it is, in a sentence or in a table's cell."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def fence(text: str) -> str:
    """Text as a code block, whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}text\n{text}\n{ticks}"
