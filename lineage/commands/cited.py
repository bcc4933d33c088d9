"""`cited`: the page of traces that a report's numbers link to."""

from pathlib import Path
from typing import Annotated

import typer

from lineage.cited import cited
from lineage.commands.common import Revision, end, err, here, working
from lineage.commands.trace import write
from lineage.render.page import page


def cited_command(
    report: Annotated[str, typer.Argument(help="An HTML file whose numbers cite.", show_default=False)],
    html: Annotated[Path, typer.Option(help="The page to write.", show_default=False, metavar="FILE")],
    rev: Revision = None,
) -> None:
    """Write one page with the trace of every number that a report cites, which the report's numbers link to.

    Exit code 3: not all could be read.
    """
    with working():
        found = cited(here(), report, rev)
    write(html, page(found))
    err.print(f"wrote {html}", markup=False)
    end(partial=any(trace.gaps for trace in found))
