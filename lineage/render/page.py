"""One self-contained page: the graph of a closure, a panel, and an outline that needs no script.

The template escapes everything; the script gets names and arrows as JSON and clones what the template wrote.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lineage.model import File
from lineage.render import words
from lineage.render.closure import Closure, Root, Visit, code_files, read_files, union, walk
from lineage.render.drawing import Drawing, Node, Shape
from lineage.text import printable
from lineage.trace import Input, Role, Step, Trace

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("vendor/cytoscape.min.js", "vendor/cytoscape-dagre.min.js", "page.js")
SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
"""What a browser's tools would look for outside the page."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the outline."""

    of: Root | Input | Step
    again: bool
    opens: bool
    """Whether something is folded under it."""
    closes: int
    """How many folds end after it."""


@dataclass(frozen=True, slots=True)
class Code:
    """A code file, and which runs read it."""

    read: Input
    runs: tuple[str, ...]


def page(traces: Sequence[Trace]) -> str:
    """The traces of one or more targets as one HTML page. Its fragment selects: `#PATH`, `#PATH:KEY`, `#RUN`.

    Raises:
        ValueError: there is no trace, or they are of several revisions.
    """
    closure = union(traces)
    drawing = Drawing(closure)
    script = "\n".join(SOURCE_MAP.sub("", (TEMPLATES / name).read_text(encoding="utf-8")) for name in SCRIPTS)
    return (
        _environment(drawing)
        .get_template("page.html")
        .render(
            title=_title(closure),
            closure=closure,
            nodes=drawing.nodes,
            lines=list(_lines(list(walk(closure)))),
            code=_code(closure),
            data=Markup(_json(drawing)),
            style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment(drawing: Drawing) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {
        "short": words.short,
        "size": words.size,
        "when": words.when,
        "value": words.value,
        "heading": words.title,
        "counted": words.counted,
        "settings": words.settings,
        "code_files": code_files,
        "read_files": read_files,
        "named": drawing.name,
        "role": words.ROLES.get,
    }
    environment.tests |= {
        "step": lambda of: isinstance(of, Step),
        "input": lambda of: isinstance(of, Input),
        "file": lambda of: isinstance(of, File),
        "unpinned": lambda of: of.role in (Role.UNPINNED, Role.LOST),
    }
    environment.globals["runs"] = drawing.runs
    return environment


def _title(closure: Closure) -> str:
    first = words.title(closure.targets[0])
    rest = len(closure.targets) - 1
    return f"{first} and {rest} more" if rest else first


def _lines(visits: list[Visit]) -> Iterator[Line]:
    """The outline as a flat list with ends counted: a template that calls itself could not go as deep as a graph."""
    depths = [*(visit.depth for visit in visits), 0]
    for visit, after in zip(visits, depths[1:], strict=True):
        opens = (isinstance(visit.of, Step | Root) and not visit.again) or after > visit.depth
        yield Line(visit.of, visit.again, opens, visit.depth - after + opens)


def _code(closure: Closure) -> list[Code]:
    """Every version of every code file; runs that were recorded at different commits may have read different ones."""
    found: dict[tuple[str, str | None], tuple[Input, list[str]]] = {}
    for step in closure.steps.values():
        for read in code_files(step):
            found.setdefault((read.file.path, read.file.hash), (read, []))[1].append(step.name)
    return [Code(read, tuple(runs)) for _, (read, runs) in sorted(found.items(), key=lambda item: str(item[0]))]


def _json(drawing: Drawing) -> str:
    """What the script draws, for a `<script>`: no `<` is in it."""
    data = {
        "nodes": [_drawn(node) for node in drawing.nodes],
        "arrows": list(drawing.arrows),
        "code": sorted({read.file.path for step in drawing.closure.steps.values() for read in code_files(step)}),
        "readers": [node.id for node in drawing.runs.values() if isinstance(node.of, Step) and code_files(node.of)],
    }
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _drawn(node: Node) -> dict[str, object]:
    return {
        "id": node.id,
        "shape": "unpinned" if node.role in (Role.UNPINNED, Role.LOST) else node.shape.value,
        "name": node.name,
        "note": node.note,
        "group": node.group,
        "target": node.target,
        "numbers": node.numbers,
        "find": "\n".join([node.name, *_also_found(node)]).lower(),
    }


def _also_found(node: Node) -> list[str]:
    if isinstance(node.of, Step):
        return list(node.of.command)
    if isinstance(node.of, File):
        return [node.of.hash or "", *node.numbers]
    assert node.shape is Shape.PINS
    return [part for pin in node.of for part in (pin.source, pin.revision or "", pin.where)]
