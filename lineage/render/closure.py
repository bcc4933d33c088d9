"""What several traces of one revision have in common, and the walk through it that tree and outline are drawn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lineage.model import Commit, File, Gap, Pin
from lineage.targets import Target
from lineage.trace import Input, Role, Step, Trace


@dataclass(frozen=True)
class Closure:
    """Everything upstream of one or more targets."""

    targets: tuple[Target, ...]
    revision: str
    commit: Commit | None
    steps: dict[str, Step]
    """By name; what is read before what reads it."""
    environment: dict[str, str]
    pins: tuple[Pin, ...]
    gaps: tuple[Gap, ...]

    def overlapping(self, path: str, producers: Sequence[str]) -> Iterator[File]:
        """The outputs of these runs that a path is, lies in, or contains."""
        for name in producers:
            yield from (file for file in self.steps[name].outputs if overlap(path, file.path))


@dataclass(frozen=True, slots=True)
class Root:
    """A file or stage that was asked for, with the numbers in it that were."""

    name: str
    is_file: bool
    hash: str | None
    runs: tuple[str, ...]
    numbers: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """One line of an outline: a root, a file that a run read, or a run."""

    depth: int
    of: Root | Input | Step
    again: bool = False
    """Whether a run was there before, with all that is upstream of it."""


def union(traces: Sequence[Trace]) -> Closure:
    """The closure of all targets together.

    Raises:
        ValueError: there is no trace, or they are of several revisions.
    """
    if len({(trace.revision, trace.commit) for trace in traces}) != 1:
        raise ValueError("one or more traces of one revision are needed")
    return Closure(
        targets=tuple(trace.target for trace in traces),
        revision=traces[0].revision,
        commit=traces[0].commit,
        steps={step.name: step for trace in traces for step in trace.steps},
        environment=traces[0].environment,
        pins=_pins(traces),
        gaps=tuple(dict.fromkeys(gap for trace in traces for gap in trace.gaps)),
    )


def _pins(traces: Sequence[Trace]) -> tuple[Pin, ...]:
    merged: dict[tuple[str, str, str | None], Pin] = {}
    for pin in (pin for trace in traces for pin in trace.pins):
        key = (pin.where, pin.source, pin.revision)
        before = merged[key].runs if key in merged else ()
        merged[key] = pin.model_copy(update={"runs": tuple(dict.fromkeys((*before, *pin.runs)))})
    return tuple(merged.values())


def roots(closure: Closure) -> list[Root]:
    """What was asked for, each file once."""
    found: dict[str, Root] = {}
    for target in closure.targets:
        name = target.path or target.asked
        before = found[name].numbers if name in found else ()
        numbers = (*before, target) if target.key is not None else before
        found[name] = Root(name, target.path is not None, target.hash, target.runs, numbers)
    return [*found.values()]


def walk(closure: Closure) -> Iterator[Visit]:
    """From the targets up to the raw sources, depth first; a run that was there before is named only."""
    seen: set[str] = set()
    waiting = [Visit(0, root) for root in reversed(roots(closure))]
    while waiting:
        visit = waiting.pop()
        again = isinstance(visit.of, Step) and visit.of.name in seen
        yield Visit(visit.depth, visit.of, again)
        if isinstance(visit.of, Step):
            seen.add(visit.of.name)
        below = [] if again else _above(visit.of, closure)
        waiting += reversed([Visit(visit.depth + 1, of) for of in below])


def _above(of: Root | Input | Step, closure: Closure) -> Sequence[Input | Step]:
    if isinstance(of, Step):
        return read_files(of)
    return [closure.steps[name] for name in (of.runs if isinstance(of, Root) else of.producers)]


def read_files(step: Step) -> list[Input]:
    """What a run read that isn't code."""
    return [read for read in step.inputs if read.role is not Role.CODE]


def code_files(step: Step) -> list[Input]:
    """The code that a run read."""
    return [read for read in step.inputs if read.role is Role.CODE]


def overlap(a: str, b: str) -> bool:
    """Whether two paths are one, or one lies in the other."""
    return a == b or a.startswith(f"{b}/") or b.startswith(f"{a}/")
