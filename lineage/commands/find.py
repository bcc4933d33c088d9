"""`find`: which runs of history made the bytes in a person's hand."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from lineage.commands.common import AsJson, answer, columns, end, escape, hashing, here, out, show, unread
from lineage.find import Found, find
from lineage.ledger import Known
from lineage.render.grouped import listed

ROWS = 40
"""Runs that a table prints."""


def find_command(
    what: Annotated[str, typer.Argument(help="A file or folder anywhere, or a hash.", metavar="HASH|FILE")],
    as_json: AsJson = False,
) -> None:
    """Say which runs of all commits and experiments made these bytes, and which read them.

    Exit code 1: none did. 3: not all could be read.
    """
    with hashing() as progress:
        found = find(here(), what, progress)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found)
    end(wrong=not (found.made or found.read or found.gaps), partial=bool(found.gaps))


def _print(found: Found) -> None:
    digests = ", ".join(digest for digest in found.hashes if digest != found.asked)
    out.print(f"{escape(found.asked)}{f'  [dim]{escape(digests)}' if digests else ''}")
    for title, places in (("Made", found.made), ("Read", found.read)):
        show_runs(title, ("path", "hash"), [(([p.path], [p.hash[:8]]), p.by) for p in places])
    if not found.made:
        out.print("[yellow]no run of history that is here made it")
    unread(found.gaps)


def show_runs(title: str, names: tuple[str, ...], runs: Sequence[tuple[tuple[list[str], ...], Known]]) -> None:
    """Print a table of runs of history, with who holds each; of many the first of those that something holds now.

    Args:
        names: of the columns that are the command's own.
        runs: the lines in each of these, and the run.
    """
    rest = len(runs) - ROWS
    if runs:
        out.print(f"\n[bold]{title}")
        table = columns("run", *names, "first recorded in", "commits", "held now by")
        for cells, run in sorted(runs, key=lambda row: not row[1].names)[:ROWS] if rest > 0 else runs:
            own = ("\n".join(map(escape, lines)) for lines in cells)
            table.add_row(escape(run.run), *own, *map(escape, when(run)))
        show(table)
    if rest > 0:
        out.print(f"and {rest:,} more (--json has them)")


def when(known: Known) -> Iterator[str]:
    """Cells that say which commits, branches, tags and experiments hold a run."""
    first = known.recorded
    yield f"{first.id[:10]}, {first.time[:10]}, {first.author}"
    yield str(known.commits)
    yield listed(known.names)
