"""`diff`: how two revisions differ, and where each difference entered."""

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.table import Table

from lineage.changes import VALUED, Change, Effect, Entry
from lineage.commands.common import AsJson, answer, columns, end, escape, hashing, here, out, show, unread
from lineage.comparison import Result
from lineage.diff import Difference, Side, diff
from lineage.model import Fault
from lineage.render.grouped import SHOWN, Said, grouped, listed
from lineage.render.words import value as whole
from lineage.values import ABSENT, shown

MOST = 60
"""Differences under one heading that are printed."""


def diff_command(
    a: Annotated[
        str, typer.Argument(help="A commit, branch, tag, experiment, kept record, or `workspace`.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(help="Another; without it, the workspace.")] = "workspace",
    target: Annotated[
        str | None, typer.Argument(help="Only what is upstream of this artifact, number or stage.", show_default=False)
    ] = None,
    hash_bytes: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Hash the outputs anew, or believe dvc.lock.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two revisions, and through which stage each difference entered.

    A run that is stale was not run again after what it reads was, as by a partial `dvc repro`; that is no fault.

    Exit code 1: a difference that nothing recorded explains, since something was tampered with or doesn't repeat.
    3: not all could be read.
    """
    with hashing() as progress:
        found = diff(here(), a, b, target, hash_bytes, progress)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found, hash_bytes)
    end(wrong=found.is_wrong, partial=bool(found.gaps))


def _print(found: Difference, hashed: bool) -> None:
    out.print(f"[bold]a[/] {_side(found.a)}\n[bold]b[/] {_side(found.b)}")
    if found.a.value is not None or found.b.value is not None:
        out.print(f"{escape(found.target or '')}: {escape(shown(found.a.value))} -> {escape(shown(found.b.value))}")
    if found.is_empty:
        out.print("nothing that could be read differs" if found.gaps else "[green]nothing differs")
    for title, entries in _groups(found.entries):
        out.print(f"\n[bold]{title}")
        show(_entries(entries))
    if found.carried:
        out.print(f"\n[bold]Differ only because of these[/]: {escape(listed(found.carried, SHOWN))}")
    for result in found.results[:SHOWN]:
        out.print(_result(result))
    if len(found.results) > SHOWN:
        out.print(f"\n{len(found.results) - SHOWN:,} more outputs differ (--json has them)")
    for line in grouped(Said(f"on both sides: {f.fault}", f.path, f.what, f.run) for f in found.common):
        out.print(f"[red]{escape(line)}")
    unread(found.gaps)
    if not hashed:
        out.print("[dim]outputs were not hashed: dvc.lock was believed")


def _side(side: Side) -> str:
    commit = f" {side.commit.id[:10]}, {side.commit.author}, {side.commit.time}" if side.commit else ""
    return escape(f"{side.name}{commit}")


def _groups(entries: tuple[Entry, ...]) -> Iterator[tuple[str, list[Entry]]]:
    titles = {
        "entered": "Entered here",
        "stale": "Not run again since what it reads was",
        "nothing": "Differs in the files, and changed no output",
        "waiting": "In the files, and not run since",
        "wrong": "Doesn't repeat, or was tampered with",
    }

    def title(entry: Entry) -> str:
        if entry.kind is Fault.STALE:
            return "stale"
        if not isinstance(entry.kind, Change) or entry.kind is Change.UNEXPLAINED:
            return "wrong"
        return {Effect.IDENTICAL: "nothing", Effect.NOT_RUN: "waiting"}.get(entry.effect, "entered")

    order = [*titles]
    for key, group in groupby(sorted(entries, key=lambda e: order.index(title(e))), title):
        yield titles[key], [*group]


def _entries(entries: list[Entry]) -> Table:
    table = columns("run", "kind", "what", "a", "b", "effect")
    rows: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        effect = ": ".join(word for word in (entry.effect, entry.detail) if word)
        values = (_short(value, entry.kind) for value in entry.sides)
        cells = (entry.kind.value, entry.what, *values, effect)
        rows.setdefault(cells, []).append(entry.run or "(no run)")
    for row, runs in [*rows.items()][:MOST]:
        table.add_row(escape(listed(runs)), *(escape(cell) for cell in row))
    if len(rows) > MOST:
        table.add_row("", "", f"and {len(rows) - MOST:,} more (--json has them)")
    return table


def _short(value: Any, kind: Change | Fault) -> str:
    """A value as JSON writes it where `3` and `"3"` are two; hashes, versions and commands as they are."""
    if value is ABSENT:
        return ""
    return whole(value) if kind in VALUED or not isinstance(value, str) else value


def _result(result: Result) -> str:
    head = f"\n[bold]{escape(result.path)}[/] ({escape(result.run)}): "
    if not result.numbers:
        return head + f"{(result.before or '')[:10]} -> {(result.after or '')[:10]}"
    lines = [f"  {key}: {shown(a)} -> {shown(b)}" for key, a, b in result.numbers[:SHOWN]]
    more = len(result.numbers) - SHOWN
    lines += [f"  and {more} more (--json has them)"] if more > 0 else []
    return head + f"{len(result.numbers)} values differ\n" + "\n".join(map(escape, lines))
