"""`used`: what was made from something, over all of history."""

from typing import Annotated

import typer

from lineage.commands.common import AsJson, answer, end, escape, here, out, unread, working
from lineage.commands.find import show_runs
from lineage.ledger import Known
from lineage.render.grouped import shortened
from lineage.used import Sort, Use, Used, used

SHOWN = 3
"""Reasons and outputs that a row prints."""


def used_command(
    target: Annotated[
        str,
        typer.Argument(help="A file or folder, a run or stage, a parameter (FILE:KEY), or a hash.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what was made from something: every run of all commits and experiments that read it, or what came of it.

    A file is meant in all its versions; a hash is one of them. Exit code 3: not all could be read.
    """
    with working():
        found = used(here(), target)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found)
    end(partial=bool(found.gaps))


def _print(found: Used) -> None:
    count = len(found.uses)
    out.print(f"{escape(found.asked)}, a {found.sort}: {count or 'no'} {'run' if count == 1 else 'runs'} of history")
    first = "Made by it" if found.sort is Sort.RUN else "Read it"
    for title, direct in ((first, True), ("Read what came of it", False)):
        show_runs(title, ("read", "made"), [_row(use) for use in found.uses if use.direct is direct])
    unread(found.gaps)


def _row(use: Use) -> tuple[tuple[list[str], ...], Known]:
    made = [f"{file.path} {(file.hash or '')[:8]}" for file in use.outputs]
    return (shortened([*use.because], SHOWN), shortened(made, SHOWN)), use.by
