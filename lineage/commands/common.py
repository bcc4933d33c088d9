"""What the commands share: arguments, exit codes, progress, how a finding is printed."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import rich.console
import typer
from rich import markup
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.segment import Segment

from lineage.errors import AuditError
from lineage.hashing import Progress as Told
from lineage.repository import Repository
from lineage.text import printable, visible


class Console(rich.console.Console):
    """A terminal or file that nothing in a project's names, values and messages can steer."""

    def render(self, renderable: Any, options: rich.console.ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, with its text spelled out; the codes of styles are rich's own, and come later."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


out = Console(highlight=False, emoji=False, soft_wrap=True)
"""Answers."""
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
"""Progress and errors."""


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
    typer.Option(
        "--rev", help="A commit, branch, tag, experiment or kept record; without it, the workspace.", show_default=False
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Write to this file instead of stdout.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]


def here() -> Repository:
    """The repository of the current folder."""
    return Repository(Path.cwd())


def escape(text: str) -> str:
    """A name, value or message of a project for `out` and `err`: on one line, and no markup."""
    return markup.escape(printable(text))


def answer(text: str) -> None:
    """Print an answer that another program may read."""
    typer.echo(visible(text))


def end(wrong: bool = False, partial: bool = False) -> None:
    """End a command with the exit code of what was found."""
    if wrong or partial:
        raise typer.Exit(Exit.WRONG if wrong else Exit.PARTIAL)


@contextmanager
def hashing() -> Iterator[Told]:
    """Shows how many bytes were hashed while it goes on; nothing where no person watches."""
    columns = (TextColumn("hashing"), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda amount: progress.advance(task, amount)


def write(data: bytes, output: Path | None) -> None:
    """Write an answer to a file, or to stdout.

    Raises:
        AuditError: the file can't be written.
    """
    data = visible(data.decode()).encode()
    if output is None:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise AuditError(f"it can't be written: {error.strerror}", where=str(output)) from None
