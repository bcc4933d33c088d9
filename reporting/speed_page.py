"""Draws the page of the `speed` stage: the one place where times are shown. Knows nothing of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render_speed(report: Mapping[str, Any]) -> str:
    """The content of reports/speed.json as one self-contained page, in the report's style."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("speed.html").render(speed=report, style=Markup(style)) + "\n"
