"""`trace`: where a number came from, as a tree, JSON, a flowchart or a page."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lineage.commands.common import AsJson, Revision, Target, answer, end, err, here, out, working
from lineage.errors import AuditError
from lineage.render.mermaid import mermaid
from lineage.render.page import page
from lineage.render.tree import tree
from lineage.trace import trace


def trace_command(
    target: Target,
    rev: Revision = None,
    full: Annotated[bool, typer.Option("--full", help="With every parameter and every code file.")] = False,
    as_json: AsJson = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write one page that needs nothing else.", show_default=False, metavar="FILE"),
    ] = None,
) -> None:
    """Say where something came from: every run upstream of it, down to the raw sources.

    Exit code 3: not all could be read.
    """
    if as_json + as_mermaid + (html is not None) > 1:
        raise AuditError("these exclude each other", where="--json, --mermaid, --html", todo="Give one of them")
    with working():
        found = trace(here(), target, rev)
    if as_json:
        answer(found.model_dump_json(indent=2))
    elif as_mermaid:
        answer(mermaid([found]))
    elif html is not None:
        write(html, page([found]))
        err.print(f"wrote {html}", markup=False)
    else:
        out.print(tree(found, full), soft_wrap=False)
    end(partial=bool(found.gaps))


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        AuditError: it can't be written there.
    """
    part: Path | None = None
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=file.parent, delete=False) as opened:
            part = Path(opened.name)
            opened.write(text)
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(file)
    except OSError as error:
        raise AuditError(f"it can't be written: {error.strerror}", where=str(file)) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
