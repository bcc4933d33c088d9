"""`rederive`: run everything upstream of a target again, and say whether the record is true."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lineage.agreement import Again, Agreement
from lineage.commands.common import AsJson, Revision, Target, end, here, out, show
from lineage.rederive import Answer, Rederived, rederive
from lineage.values import shown

SHOWN = 12
"""Numbers of a metrics file that are printed."""
COLOURS = {Answer.IDENTICAL: "green", Answer.WITHIN: "green", Answer.DIFFERS: "red", Answer.FAILED: "yellow"}


def rederive_command(
    target: Target,
    rev: Revision = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the clone in this new folder.", show_default=False, metavar="FOLDER")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="How much metrics may differ, relative; without it the bytes decide.",
            show_default=False,
            metavar="RELATIVE",
        ),
    ] = None,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere",
            help="The record was made on another machine: metrics may differ by lineage.tolerance of params.yaml.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run everything upstream of a target again, in a clean clone with an empty cache, and compare with the record.

    Exit code 0: the bytes are identical, or the metrics agree within the tolerance. 1: they are not, with the stage
    where the difference entered. 3: it could not be run.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    found = rederive(here(), target, rev, tolerance, keep, _shown, elsewhere)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found, keep)
    end(wrong=found.answer is Answer.DIFFERS, partial=found.answer is Answer.FAILED)


def _stop(number: int, frame: object) -> None:
    """The first signal stops what runs and cleans up; later ones must not stop the cleaning."""
    for later in (signal.SIGINT, signal.SIGTERM):
        signal.signal(later, signal.SIG_IGN)
    raise KeyboardInterrupt


def _shown(piece: bytes) -> None:
    """What DVC and the stages write is progress, no answer."""
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()


def _print(found: Rederived, keep: Path | None) -> None:
    name = f"{found.revision} ({found.commit.id[:10]})" if found.commit else found.revision
    within = f" of {found.tolerance:g}" if found.answer is Answer.WITHIN else ""
    out.print(
        f"{escape(found.target.asked)} of {escape(name)}: [{COLOURS[found.answer]}]{found.answer.value}{within}[/]"
    )
    if found.answer is Answer.FAILED:
        out.print(f"the stage that failed: {escape(found.failed or '(DVC itself)')}\n[dim]{escape(found.said)}")
    differing = [again for again in found.outputs if again.agreement is not Agreement.IDENTICAL]
    if differing:
        show(_table(differing))
    if found.entered is not None:
        out.print(f"first: [bold]{escape(found.entered)}[/], {escape(_why(found))}")
    for note in found.notes:
        out.print(f"[dim]note: {escape(note)}")
    if found.outputs:
        identical = len(found.outputs) - len(differing)
        out.print(f"[dim]{len(found.runs)} stages, {identical} of {len(found.outputs)} outputs are identical bytes")
    if keep is not None:
        out.print(f"[dim]the clone is in {escape(str(keep / 'clone'))}")


def _why(found: Rederived) -> str:
    if not found.because:
        return "whose inputs agree: it doesn't repeat, or the record of it is false"
    return f"which did not run as recorded: {', '.join(found.because)}"


def _table(outputs: list[Again]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "output", "agreement", "how"):
        table.add_column(column, overflow="fold")
    for again in outputs:
        numbers = [f"{n.key}: {shown(n.recorded)} -> {shown(n.made)}" for n in again.numbers[:SHOWN]]
        numbers += [f"and {len(again.numbers) - SHOWN} more"] if len(again.numbers) > SHOWN else []
        how = "\n".join([again.what, *numbers]).strip()
        table.add_row(*(escape(cell) for cell in (again.run, again.path, again.agreement.value, how)))
    return table
