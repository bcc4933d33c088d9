"""`export`: a closure for other tools."""

from typing import Annotated

import typer

from lineage.commands.common import Output, Revision, Target, end, hashing, here, write
from lineage.export.kinds import Format


def export_command(
    target: Target,
    format: Annotated[Format, typer.Option("--format", help="For which tools.", show_default=False)],
    rev: Revision = None,
    output: Output = None,
) -> None:
    """Write where a target came from as OpenLineage events, PROV-JSON or a CycloneDX bill of materials.

    Exit code 3: not all could be read.
    """
    from lineage.export.formats import export  # a second to import, and only this command needs it

    with hashing() as progress:
        made = export(here(), target, format, rev, progress)
    write(made.data, output)
    end(partial=not made.complete)
