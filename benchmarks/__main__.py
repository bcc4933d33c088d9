"""Runs benchmarks and shows what they measured: `python -m benchmarks` those of speed, or the named ones.

The rows go to reports/bench.json, which DVC doesn't know: they are of one machine and one moment.
"""

import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from artifacts.files import read_json, write_json
from benchmarks.table import Measured
from runner.stage import run_command
from softmask.errors import InputError

REPORT = Path("reports/bench.json")
MODULES = {
    "mdlm": "training and sampling steps of MDLM, soft-masked, binary and the plain way",
    "packing": "tokenising and packing of text",
    "stages": "how long each stage took when it last ran",
    "training": "a soft-masked training step of Dream against a binary one",
    "flows": "what Prefect adds to dvc repro, and what two workers save",
    "lineage": "trace, diff, verify and history of many experiments, and of 10 GB",
    "decoding": "mixing, decoding steps and caches at Dream's shapes",
}
"""Modules of this package with a function `measure`, and what they measure."""
UNASKED = ("mdlm", "packing")
"""What runs without names."""
COLUMNS = ("what", "against", "ratio", "aim", "s", "s, against", "MiB", "MiB, against", "how")
WORDS = ("what", "against", "aim", "how")
WIDE = 200
"""Characters a line where there is no terminal to ask."""


def show(name: str, rows: list[Measured], console: Console) -> None:
    """One benchmark's table."""
    table = Table(title=f"{name}: {MODULES[name]}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in WORDS else "right", no_wrap=column not in WORDS)
    for row in rows:
        ours, theirs = row.cost, row.against_cost
        numbers = [_number(value) for value in (ours.seconds, theirs.seconds, ours.peak_mib, theirs.peak_mib)]
        table.add_row(row.name, row.against, _number(row.ratio), row.aim, *numbers, row.note)
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def former() -> list[dict[str, Any]]:
    """The rows in reports/bench.json.

    Raises:
        InputError: it holds something else.
    """
    rows = read_json(REPORT) if REPORT.exists() else []
    if not isinstance(rows, list):
        raise InputError("not a list of rows", where=str(REPORT), todo="Delete it: it is measured anew")
    return rows


def keep(rows: list[Measured]) -> None:
    """Put rows in reports/bench.json, in place of those that compare the same."""
    made = [row.row() for row in rows]
    pairs = {(row["name"], row["against"]) for row in made}
    write_json(REPORT, [row for row in former() if (row["name"], row["against"]) not in pairs] + made)


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(MODULES)}; none: {', '.join(UNASKED)}.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Intra-op threads.")] = os.cpu_count() or 1,
) -> None:
    """Run benchmarks one after the other."""
    for name in names or []:
        if name not in MODULES:
            raise typer.BadParameter(f"{name!r} is none; expected {', '.join(MODULES)}")
    former()  # not only after minutes
    torch.set_num_threads(threads)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    machine = platform.processor() or platform.machine()
    console.print(f"{machine}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}")
    for name in names or UNASKED:
        measure: Callable[[], list[Measured]] = import_module(f"benchmarks.{name}").measure
        rows = measure()
        show(name, rows, console)
        keep(rows)
    console.print(f"[dim]written to {REPORT}[/dim]")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
