"""What the commands share: arguments, exit codes, progress, how a finding is printed."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from threading import Timer
from typing import Annotated, Any

import rich.console
import typer
from rich import filesize, markup
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table

from lineage.errors import AuditError
from lineage.hashing import Progress as Told
from lineage.model import Gap
from lineage.render.grouped import Said, grouped
from lineage.repository import Repository
from lineage.text import printable, visible


class Console(rich.console.Console):
    """A terminal or file that nothing in a project's names, values and messages can steer."""

    def render(self, renderable: Any, options: rich.console.ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, with its text spelled out; the codes of styles are rich's own, and come later."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


UNFOLDED = 10_000
"""Columns where no terminal folds lines."""
DELAY = 2.0
"""Seconds before progress is shown."""
out = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNFOLDED)
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
def working() -> Iterator[Callable[[str], object]]:
    """Shows from two seconds on what goes on, and how long it has; nothing where no person watches.

    It gives the function that says what.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    task = progress.add_task("reading", total=None)
    later = Timer(DELAY, progress.start)
    later.start()
    try:
        yield lambda words: progress.update(task, description=words)
    finally:
        later.cancel()
        later.join()
        progress.stop()


@contextmanager
def hashing() -> Iterator[Told]:
    """Shows how many bytes were hashed."""
    hashed = 0

    def told(amount: int) -> None:
        nonlocal hashed
        hashed += amount
        say(f"hashed {filesize.decimal(hashed)}")

    with working() as say:
        yield told


@contextmanager
def counting(noun: str) -> Iterator[Callable[[int, int], object]]:
    """Shows how many of something were read, and of how many."""
    with working() as say:
        yield lambda done, total: say(f"{done:,} of {total:,} {noun}")


def columns(*names: str, title: str | None = None) -> Table:
    """A table as all commands have it; to be shown by `show`."""
    table = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def unread(gaps: Iterable[Gap]) -> None:
    """Say what could not be read, so that the answer is partial."""
    for line in grouped(Said("partial answer", gap.where, gap.what) for gap in gaps):
        out.print(f"[yellow]{escape(line)}")


def show(table: Table) -> None:
    """Print a table without spaces at the ends of its lines."""
    with out.capture() as made:
        out.print(table)
    for line in made.get().splitlines():
        typer.echo(line.rstrip())


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
