"""`keep`: write a finished run's record into a folder that git keeps."""

from pathlib import Path
from typing import Annotated

import typer

from lineage.commands.common import escape, hashing, here, out
from lineage.keep import LARGEST, keep


def keep_command(
    folder: Annotated[Path, typer.Argument(help="A folder, for its record.tar.xz.", show_default=False, metavar="DIR")],
    revision: Annotated[
        str | None,
        typer.Argument(help="A commit, branch, tag or experiment; without it, the workspace.", show_default=False),
    ] = None,
    largest: Annotated[int, typer.Option(help="Keep outputs of at most so many bytes.", min=0)] = LARGEST,
) -> None:
    """Write dvc.lock, dvc.yaml, parameters and small outputs into one file in DIR, a REV for every other command then.

    All that is here is verified first; a record that doesn't hold, or whose code isn't committed, is refused (exit
    code 1). A record shows edits, but not those of someone who makes its hashes, and a number wherever it stands, agree
    again: to rule that out, sign it (`attest TARGET --rev DIR`).
    """
    with hashing() as progress:
        made = keep(here(), folder, revision, largest, progress)
    out.print(escape(f"kept {made.revision}, made by commit {made.commit[:10]}, in {folder}"))
    out.print(
        f"[dim]{made.files} files, {made.bytes / 1e6:,.1f} MB; by hash only: {made.left_out} outputs, "
        f"{made.left_out_bytes / 1e6:,.1f} MB"
    )
