"""`history`: one metric over all commits and experiments."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lineage.changes import Entry
from lineage.commands.common import AsJson, end, here, out
from lineage.history import History, history
from lineage.values import shown

EXPLAINED = 3
"""Differences that a row prints."""


def history_command(
    metric: Annotated[str, typer.Argument(help="PATH:KEY, such as reports/metrics.json:lm.sm.ppl", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show one metric in every commit that changed it and every experiment, and what explains each change.

    Exit code 3: not all could be read.
    """
    found = history(here(), metric)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found)
    end(partial=bool(found.gaps))


def _print(found: History) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", title=escape(found.metric), title_justify="left")
    for column in ("when", "name", "value", "against", "because of"):
        table.add_column(column, overflow="fold")
    for row in found.rows:
        because = "\n".join(explained(list(row.entries)))
        cells = (row.commit.time[:16].replace("T", " "), row.name, shown(row.value), row.against or "", because)
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table if found.rows else f"no revision that could be read has {escape(found.metric)}")
    for gap in found.gaps:
        out.print(f"[yellow]partial answer: {escape(f'{gap.where}: {gap.what}')}")


def explained(entries: list[Entry]) -> list[str]:
    """One line for each difference, the same difference at several runs once."""
    lines: dict[str, list[str]] = {}
    for entry in entries:
        values = (
            "" if entry.before is None and entry.after is None else f" {shown(entry.before)} -> {shown(entry.after)}"
        )
        lines.setdefault(f"{entry.kind.value} {entry.what}{values}", []).append(entry.run or "(no run)")
    texts = [f"{', '.join(runs)}: {what}" for what, runs in lines.items()]
    return [*texts[:EXPLAINED], f"and {len(texts) - EXPLAINED} more"] if len(texts) > EXPLAINED else texts
