"""The command line: `python -m lineage COMMAND` from any folder of a DVC project.

Exit codes: 0, 1 where something is found wrong, 2 for a mistake of the user, 3 where an answer is partial.
"""

import logging
import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from lineage.errors import AuditError
from lineage.repository import Repository

app = typer.Typer(
    help="Where a number came from, how two experiments differ, and whether the bytes are what the lock says.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Exit(IntEnum):
    """Exit codes."""

    WRONG = 1
    MISTAKE = 2
    PARTIAL = 3


Target = Annotated[
    str, typer.Argument(help="An artifact, a number (PATH:KEY), a stage, or a hash.", show_default=False)
]
Revision = Annotated[
    str | None,
    typer.Option("--rev", help="A commit, branch, tag or experiment; without it, the workspace.", show_default=False),
]


def here() -> Repository:
    """The repository of the current folder."""
    return Repository(Path.cwd())


def main() -> None:
    """Run a command; a mistake of the user is one plain message."""
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        app()
    except AuditError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(Exit.MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)
