"""A trace as a Mermaid flowchart, which GitHub and many editors draw. Names are escaped; code is left out."""

from collections.abc import Sequence

from lineage.render.closure import union
from lineage.render.drawing import Drawing, Node, Shape, label
from lineage.trace import Role, Trace

LONGEST = 60
"""Characters of a name."""
BOXES = {Shape.RUN: '["{}"]', Shape.FILE: '("{}")', Shape.SOURCE: '[("{}")]', Shape.PINS: '[("{}")]'}
STYLES = (
    "classDef run fill:#dbe7ff,stroke:#3b6fd4,color:#12203a",
    "classDef file fill:#f7f7f5,stroke:#9a9a94,color:#222",
    "classDef source fill:#dff3e4,stroke:#3a9a5b,color:#12301d",
    "classDef unpinned fill:#fff0cc,stroke:#c98a00,color:#3a2a00",
    "classDef target fill:#ffe3d3,stroke:#d9622b,color:#3a1a08,stroke-width:3px",
)


def mermaid(traces: Sequence[Trace]) -> str:
    """Runs and the files between them as a flowchart, sources on top; what nothing reads is left out.

    Raises:
        ValueError: there is no trace, or they are of several revisions.
    """
    drawing = Drawing(union(traces))
    nodes = [node for node in drawing.nodes if node.shape is not Shape.FILE or node.readers or node.target]
    kept = {node.id for node in nodes}
    lines = [f"    {node.id}{_box(node)}:::{_style(node)}" for node in nodes]
    lines += [f"    {a} --> {b}" for a, b in drawing.arrows if a in kept and b in kept]
    return "\n".join(["flowchart TD", *lines, *(f"    {style}" for style in STYLES)])


def _box(node: Node) -> str:
    lines = [node.name, node.note] if node.shape is Shape.RUN else [node.name]
    lines += [f"{key} = {words}" for key, words in node.numbers.items()]
    return BOXES[node.shape].format("<br>".join(_escaped(label(line, LONGEST)) for line in lines if line))


def _style(node: Node) -> str:
    if node.target:
        return "target"
    if node.role in (Role.UNPINNED, Role.LOST):
        return "unpinned"
    return "source" if node.shape in (Shape.SOURCE, Shape.PINS) else node.shape.value


def _escaped(text: str) -> str:
    """Text in which only letters, digits and harmless signs are themselves; all else is a character code."""
    return "".join(c if c.isalnum() or c in " ./_-,:=·…@+" else f"#{ord(c)};" for c in text)
