"""`find`: which runs of history made the bytes in a person's hand."""

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer
from rich.table import Table

from lineage.commands.common import AsJson, answer, columns, end, escape, hashing, here, out, show
from lineage.find import Found, Place, find
from lineage.ledger import Known
from lineage.model import Gap
from lineage.render.grouped import listed


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
    out.print(f"{escape(found.asked)}  [dim]{escape(', '.join(h for h in found.hashes if h != found.asked))}")
    for title, places in (("Made", found.made), ("Read", found.read)):
        if places:
            out.print(f"\n[bold]{title}")
            show(_table(places))
    if not found.made:
        out.print("[yellow]no run of history that is here made it")
    gaps(found.gaps)


def _table(places: Iterable[Place]) -> Table:
    table = columns("run", "path", "hash", "recorded in", "commits", "held now by")
    for place in places:
        table.add_row(*(escape(cell) for cell in (place.by.run, place.path, place.hash[:8], *when(place.by))))
    return table


def when(known: Known) -> Iterator[str]:
    """Cells that say which commits, branches, tags and experiments hold a run."""
    first = known.recorded
    yield f"{first.id[:10]}, {first.time[:10]}, {first.author}"
    yield str(known.commits)
    yield listed(known.names)


def gaps(found: Iterable[Gap]) -> None:
    """What could not be read."""
    for gap in found:
        out.print(f"[yellow]partial answer: {escape(f'{gap.where}: {gap.what}')}")
