"""A closure as a graph to draw: runs, the files between them, and where raw sources come in. Knows no format."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from lineage.model import File, Pin
from lineage.render.closure import Closure, Root, code_files, overlap, read_files, roots
from lineage.render.words import counted, settings, short, size, value
from lineage.text import printable
from lineage.trace import Role, Step


class Shape(StrEnum):
    """What a node is."""

    RUN = "run"
    FILE = "file"
    """Something that a run made."""
    SOURCE = "source"
    """A file that no run made."""
    PINS = "pins"
    """Raw sources outside the repository, which the same runs read."""


@dataclass(slots=True)
class Node:
    """One box.

    Args:
        of: what it stands for.
    """

    id: str
    shape: Shape
    name: str
    note: str
    of: Step | File | tuple[Pin, ...]
    group: str = ""
    """Of a run: the stage that it is one of several instances of; else empty."""
    target: bool = False
    makers: list[str] = field(default_factory=list)
    """Names of the runs that made a file."""
    readers: list[str] = field(default_factory=list)
    """Names of the runs that read it."""
    numbers: dict[str, str] = field(default_factory=dict)
    """Key -> value in words of the numbers in it that were asked for."""
    role: Role = Role.ARTIFACT


class Drawing:
    """The graph of a closure. Arrows go from what is read to what reads it.

    Args:
        closure: of one or more targets.
    """

    def __init__(self, closure: Closure) -> None:
        self.closure = closure
        self.nodes: list[Node] = []
        self.arrows: dict[tuple[str, str], None] = {}
        self.runs: dict[str, Node] = {}
        self.files: dict[tuple[str, str | None], Node] = {}
        """By path and hash: a former run may have made or read another version."""
        self._names: set[str] = set()
        self._groups = Counter(_group(step) for step in closure.steps.values() if "@" in step.address)
        steps = sorted(closure.steps.values(), key=lambda step: step.past is not None)
        for step in steps:
            self._add_run(step)
        for step in steps:
            self._add_reads(step)
        self._add_pins()
        for root in roots(closure):
            self._mark(root)

    def _node(self, shape: Shape, name: str, note: str, of: Step | File | tuple[Pin, ...], group: str = "") -> Node:
        node = Node(f"n{len(self.nodes)}", shape, name, note, of, group)
        self.nodes.append(node)
        return node

    def name(self, file: File) -> str:
        """What a version of a file is called: its path; of several, one of the revision's own first, with its hash."""
        node = self.files.get((file.path, file.hash))
        return file.path if node is None else node.name

    def _file(self, shape: Shape, file: File) -> Node:
        key = (file.path, file.hash)
        if key not in self.files:
            note = "  ".join(part for part in (short(file.hash), size(file)) if part)
            name = f"{file.path} ({short(file.hash)})" if file.path in self._names else file.path
            self._names.add(file.path)
            self.files[key] = self._node(shape, name, note, file)
        return self.files[key]

    def _add_run(self, step: Step) -> None:
        group = _group(step)
        group = group if self._groups[group] > 1 else ""
        run = self.runs[step.name] = self._node(Shape.RUN, step.name, _note(step), step, group)
        for file in step.outputs:
            made = self._file(Shape.FILE, file)
            made.makers.append(step.name)
            self.arrows[run.id, made.id] = None

    def _add_reads(self, step: Step) -> None:
        for read in read_files(step):
            made = self.closure.overlapping(read.file.path, read.producers)
            found = [self.files[file.path, file.hash] for file in made]
            if not found:
                found = [self._file(Shape.SOURCE, read.file)]
                found[0].role = read.role
            for node in found:
                node.readers.append(step.name)
                self.arrows[node.id, self.runs[step.name].id] = None

    def _add_pins(self) -> None:
        together: dict[tuple[str, ...], list[Pin]] = {}
        for pin in self.closure.pins:
            together.setdefault(pin.runs, []).append(pin)
        for names, pins in together.items():
            title = pins[0].source if len(pins) == 1 else f"{len(pins)} pinned sources"
            note = pins[0].revision or "" if len(pins) == 1 else f"{pins[0].source}, …"
            node = self._node(Shape.PINS, title, note, tuple(pins))
            node.readers.extend(name for name in names if name in self.runs)
            self.arrows |= {(node.id, self.runs[name].id): None for name in node.readers}

    def _mark(self, root: Root) -> None:
        if not root.is_file:
            for name in root.runs:
                self.runs[name].target = True
            return
        own = [(path, node) for (path, digest), node in self.files.items() if self._is_of(root, path, digest, node)]
        inside = [node for path, node in own if root.name.startswith(f"{path}/")]
        found = [node for path, node in own if overlap(root.name, path) and node not in inside]
        for node in found or [self._asked(root, inside)]:
            node.target = True
            node.numbers |= {str(target.key): value(target.value) for target in root.numbers}

    def _is_of(self, root: Root, path: str, digest: str | None, node: Node) -> bool:
        """Whether a file is the version that was asked for, or one that its runs made."""
        if path == root.name and root.hash is not None:
            return digest == root.hash
        return not root.runs or bool({*root.runs}.intersection(node.makers))

    def _asked(self, root: Root, folders: list[Node]) -> Node:
        """A box for a file that is none of the closure's: one in a folder that a run made, or a raw source."""
        makers = [name for folder in folders for name in folder.makers]
        asked = self._file(Shape.FILE if makers else Shape.SOURCE, File(root.name, root.hash))
        asked.makers += makers
        asked.readers += [name for folder in folders for name in folder.readers]
        self.arrows |= {(self.runs[name].id, asked.id): None for name in makers}
        self.arrows |= {(asked.id, self.runs[name].id): None for name in asked.readers}
        return asked


def _group(step: Step) -> str:
    """The stage that a run is an instance of; former runs are of one of their own."""
    stage = step.address.split("@")[0]
    return stage if step.past is None else f"{stage} ({step.past[:10]})"


def label(text: str, longest: int) -> str:
    """Text in at most so many characters, shortened in its middle."""
    text = printable(text)
    head = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _note(step: Step) -> str:
    parts = [counted(len(settings(step)), "parameter"), counted(len(code_files(step)), "code file")]
    return " · ".join(part for part in parts if not part.startswith("0 "))
