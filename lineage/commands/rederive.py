"""`rederive`: run everything upstream of a target again, and say whether the record is true."""

import codecs
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lineage.agreement import Again, Agreement
from lineage.commands.common import AsJson, Revision, Target, answer, columns, end, err, escape, here, out, show
from lineage.errors import AuditError
from lineage.model import Run
from lineage.rederive import Answer, Rederived, rederive
from lineage.text import visible
from lineage.values import shown

SHOWN = 12
"""Numbers of a metrics file, and commands, that are printed."""
DECODER = codecs.getincrementaldecoder("utf-8")("replace")
"""Of what stages write, which comes in pieces."""
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
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            help="Let the commands see this environment variable, too; give it again for more.",
            show_default=False,
            metavar="NAME",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run the commands without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run everything upstream of a target again, in a clean clone with an empty cache, and compare with the record.

    These are the project's own commands, and they may do all that you may: they are shown, and you are asked. Of your
    environment they see PATH, HOME, the language and the like, and what --env names.

    Exit code 0: the bytes are identical, or the metrics agree within the tolerance. 1: they are not, with the stage
    where the difference entered. 3: it could not be run.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    agree = partial(_agree, yes=yes)
    found = rederive(here(), target, rev, tolerance, keep, _shown, elsewhere, env or (), agree)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found, keep)
    end(wrong=found.answer is Answer.DIFFERS, partial=found.answer is Answer.FAILED)


def _agree(runs: Sequence[Run], yes: bool) -> None:
    """Say what will be run, and ask.

    Raises:
        AuditError: the answer isn't yes, or there is nobody to ask.
    """
    err.print(f"These {len(runs)} commands of the project run on this machine, with all your rights:")
    for run in runs[:SHOWN]:
        err.print(f"  {escape(run.name)}: {escape(' && '.join(run.command))}")
    if len(runs) > SHOWN:
        err.print(f"  and {len(runs) - SHOWN} more")
    if yes:
        return
    if not sys.stdin.isatty() or not err.is_terminal:
        raise AuditError("nobody is here to be asked, so nothing was run", todo="Say --yes if you trust the project")
    try:
        said = err.input("Run them? [y/N] ", markup=False)
    except EOFError:
        said = ""
    if said.strip().lower() not in ("y", "yes"):
        raise AuditError("nothing was run")


def _stop(number: int, frame: object) -> None:
    """The first signal stops what runs and cleans up; later ones must not stop the cleaning."""
    for later in (signal.SIGINT, signal.SIGTERM):
        signal.signal(later, signal.SIG_IGN)
    raise KeyboardInterrupt


def _shown(piece: bytes) -> None:
    """What DVC and the stages write is progress, no answer."""
    sys.stderr.write("\r".join(map(visible, DECODER.decode(piece).split("\r"))))
    sys.stderr.flush()


def _print(found: Rederived, keep: Path | None) -> None:
    name = f"{found.revision} ({found.commit.id[:10]})" if found.commit else found.revision
    within = f" of {found.tolerance:g}" if found.answer is Answer.WITHIN else ""
    out.print(
        f"{escape(found.target.asked)} of {escape(name)}: [{COLOURS[found.answer]}]{found.answer.value}{within}[/]"
    )
    if found.answer is Answer.FAILED:
        out.print(f"the stage that failed: {escape(found.failed or '(DVC itself)')}\n[dim]{_lines(found.said)}")
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


def _lines(said: str) -> str:
    return "\n".join(map(escape, said.splitlines()))


def _why(found: Rederived) -> str:
    if not found.because:
        return "whose inputs agree: it doesn't repeat, or the record of it is false"
    return f"which did not run as recorded: {', '.join(found.because)}"


def _table(outputs: list[Again]) -> Table:
    table = columns("run", "output", "agreement", "how")
    for again in outputs:
        numbers = [f"{n.key}: {shown(n.recorded)} -> {shown(n.made)}" for n in again.numbers[:SHOWN]]
        numbers += [f"and {len(again.numbers) - SHOWN} more"] if len(again.numbers) > SHOWN else []
        how = "\n".join(map(escape, [again.what, *numbers])).strip()
        table.add_row(*map(escape, (again.run, again.path, again.agreement.value)), how)
    return table
