"""Small line pictures as SVG markup that takes the page's text colour, so that it reads in light and in dark.

Byte-deterministic: fixed hash salt, no date, matplotlib's own defaults whatever the user's configuration says.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

INK = "#010203"
"""Drawn with, and replaced by `currentColor`."""
COLOURS = ("#8a8f98", "#d97706", "#2f80d0", "#1a9e77", "#b5539c", "#c94f4f")
"""By arm, base first; each has a contrast of 3 and more on white and on near-black."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.")
"""By seed."""
SIZE = (3.9, 2.9)
"""Inches; the page scales it to its column."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "softmask",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Line:
    """One series: its label (empty: not in the legend), points, and where it stands in colours and dashes."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dash: int = 0
    markers: bool = False
    error: Sequence[float] | None = None
    """Half the height of the error bars."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    name: str
    """Makes ids unique on the page: letters and hyphens."""
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    level: tuple[str, float] | None = None
    """A labelled horizontal line."""


def draw(panel: Panel) -> str:
    """The picture as an `<svg>` element without size, ids prefixed with the panel's name."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=SIZE)
        axes = figure.add_subplot()
        for line in panel.lines:
            _line(axes, line)
        if panel.level is not None:
            axes.axhline(panel.level[1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=panel.level[0])
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        _scales(axes, panel)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside upper center", ncols=3, handlelength=1.8, columnspacing=1.2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), panel.name)


def standalone(svg: str) -> str:
    """A picture of `draw` as a file of its own: black on white, since it has no page to take a colour from."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg", f'{head} color="#1b1f24" style="background:#ffffff"', 1) + "\n"


def _line(axes: Axes, line: Line) -> None:
    colour = COLOURS[line.colour % len(COLOURS)]
    axes.errorbar(
        line.x,
        line.y,
        yerr=line.error,
        color=colour,
        linestyle=DASHES[line.dash % len(DASHES)],
        marker=MARKERS[line.colour % len(MARKERS)] if line.markers else "",
        capsize=2,
        elinewidth=0.9,
        label=line.label or "_nolegend_",
    )


def _scales(axes: Axes, panel: Panel) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if panel.log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(plain)
        axes.xaxis.set_minor_locator(NullLocator())
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(NullFormatter())


def _inline(document: str, name: str) -> str:
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:)?href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    return svg.strip()
