"""`history`: one metric over all commits and experiments."""

from typing import Annotated

import typer

from lineage.changes import Entry
from lineage.commands.common import AsJson, answer, columns, counting, end, escape, here, out, show, unread
from lineage.history import History, history
from lineage.render.grouped import listed
from lineage.render.words import when
from lineage.values import ABSENT, shown

EXPLAINED = 3
"""Differences that a row prints."""


def history_command(
    metric: Annotated[str, typer.Argument(help="PATH:KEY, such as reports/metrics.json:lm.sm.ppl", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show one metric in every commit that changed it and every experiment, and what explains each change.

    Exit code 3: not all could be read.
    """
    with counting("revisions") as progress:
        found = history(here(), metric, progress)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found)
    end(partial=bool(found.gaps))


def _print(found: History) -> None:
    table = columns("when", "name", "value", "against", "because of", title=escape(found.metric))
    for row in found.rows:
        because = "\n".join(map(escape, explained(list(row.entries))))
        cells = (when(row.commit), row.name, shown(row.value), row.against or "")
        table.add_row(*map(escape, cells), because)
    if found.rows:
        show(table)
    else:
        out.print(f"no revision that could be read has {escape(found.metric)}")
    unread(found.gaps)


def explained(entries: list[Entry]) -> list[str]:
    """One line for each difference, the same difference at several runs once."""
    lines: dict[str, list[str]] = {}
    for entry in entries:
        before, after = entry.sides
        values = "" if before is after is ABSENT else f" {shown(before)} -> {shown(after)}"
        lines.setdefault(f"{entry.kind.value} {entry.what}{values}", []).append(entry.run or "(no run)")
    texts = [f"{listed(runs)}: {what}" for what, runs in lines.items()]
    return [*texts[:EXPLAINED], f"and {len(texts) - EXPLAINED} more"] if len(texts) > EXPLAINED else texts
