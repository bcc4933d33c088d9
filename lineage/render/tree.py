"""A trace as a tree in the terminal: the target at the root, what it was made from under it."""

from collections.abc import Iterator

from rich.text import Text
from rich.tree import Tree

from lineage.model import File, Kind, Pin
from lineage.render.closure import Closure, Root, Visit, code_files, union, walk
from lineage.render.words import ROLES, counted, settings, short, size, title, when
from lineage.text import printable
from lineage.trace import Input, Step, Trace

DEEPEST = 200
"""Levels that are drawn: a run and what it reads are two."""
MADE = {Kind.STAGE: "", Kind.DATA: "added by hand", Kind.IMPORT: "imported"}


def tree(trace: Trace, full: bool = False) -> Tree:
    """A trace as rich draws it.

    Args:
        full: with every parameter and every code file instead of their counts.
    """
    closure = union([trace])
    drawn = Tree(_head(trace), guide_style="dim")
    branches = [drawn]
    hidden = 0
    for visit in walk(closure):
        if visit.depth > DEEPEST:  # each line begins with a mark for every level, so that it would have kilometres
            hidden += isinstance(visit.of, Step)
            continue
        del branches[visit.depth + 1 :]
        branches.append(branches[-1].add(_line(visit)) if visit.depth else drawn)
        if isinstance(visit.of, Step) and not visit.again:
            for label in _facts(visit.of, full):
                branches[-1].children.append(label)
    if hidden:
        drawn.add(_text((f"and {counted(hidden, 'run')} further up, which --json has", "yellow")))
    _end(drawn, closure)
    return drawn


def _head(trace: Trace) -> Text:
    of = f"{trace.revision} ({trace.commit.id[:10]})" if trace.commit else trace.revision
    digest = f"  {short(trace.target.hash)}" if trace.target.path else ""
    return _text((title(trace.target), "bold"), (f"{digest}  in {of}", "dim"))


def _line(visit: Visit) -> Text:
    match visit.of:
        case Step() as step if visit.again:
            return _text((step.name, "cyan"), (" (above)", "dim"))
        case Step() as step:
            command = " && ".join(step.command) or MADE[step.kind]
            return _text((step.name, "bold cyan"), (f"  {command}", ""))
        case Input() as read:
            return _text(("reads ", "dim"), *_file(read.file), (_role(read), "yellow"))
        case Root() as root:
            return _text((root.name, "bold"))


def _role(read: Input) -> str:
    return f"  {ROLES[read.role]}" if read.role in ROLES else ""


def _file(file: File) -> list[tuple[str, str]]:
    return [(file.path, ""), (f"  {short(file.hash)}  {size(file)}".rstrip(), "dim")]


def _facts(step: Step, full: bool) -> Iterator[Tree]:
    if step.recorded is not None:
        commit = step.recorded
        yield _leaf(
            ("recorded ", "dim"), (f"{when(commit)} by {commit.author} in {commit.id[:10]}: {commit.subject}", "")
        )
    elif step.kind is Kind.STAGE:
        yield _leaf(("recorded in no commit that is here", "yellow"))
    if step.seeds:
        yield _leaf(("seeds ", "dim"), (", ".join(step.seeds), ""))
    values = [_text((f"{file}: {key} = {words}", "")) for file, key, words in settings(step)]
    code = [
        _text((read.file.path, ""), (f"  {read.blob or short(read.file.hash)}", "dim")) for read in code_files(step)
    ]
    yield from _folded(values, "parameter", full)
    yield from _folded(code, "code file", full)
    yield from (_leaf(("makes ", "dim"), *_file(file)) for file in step.outputs)
    yield from (_leaf(*_pin(pin)) for pin in step.pins)


def _folded(lines: list[Text], noun: str, full: bool) -> Iterator[Tree]:
    if lines:
        branch = _leaf((counted(len(lines), noun), "dim"))
        for line in lines if full else []:
            branch.add(line)
        yield branch


def _pin(pin: Pin) -> list[tuple[str, str]]:
    fixed = ("", "") if pin.fixed else ("  may change", "yellow")
    return [("pin ", "dim"), (pin.source, "green"), (f" {pin.revision or ''}", ""), fixed, (f"  {pin.where}", "dim")]


def _end(drawn: Tree, closure: Closure) -> None:
    if not closure.steps and not closure.gaps:
        drawn.add(_text(("no run made it: a raw source", "dim")))
    if closure.gaps:
        partial = drawn.add(_text(("partial answer", "bold yellow")))
        for gap in closure.gaps:
            partial.add(_text((f"{gap.where}: {gap.what}", "yellow")))


def _leaf(*parts: tuple[str, str]) -> Tree:
    return Tree(_text(*parts), guide_style="dim")


def _text(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*((printable(words), style) for words, style in parts))
