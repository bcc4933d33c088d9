"""Runs benchmarks and shows what they measured: `python -m benchmarks` all that need minutes at most, or those named.

The numbers go to reports/bench.json, which DVC doesn't know: they are of one machine and one moment.
"""

import os
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.table import Measured
from stages.component import run_command
from stages.files import read_json, write_json

REPORT = Path("reports/bench.json")
MODULES = {
    "stages": "how long each stage took when it last ran",
    "training": "a soft-masked training step against a binary one",
    "flows": "what Prefect adds to dvc repro, and what two workers save",
    "lineage": "trace, diff, verify and history of many experiments, and of 10 GB",
    "decoding": "mixing, decoding steps and caches at Dream's shapes",
}
"""Modules of this package with a function `measure`, and what they measure."""


def show(name: str, rows: list[Measured], console: Console) -> None:
    """One benchmark's table."""
    table = Table(title=f"{name}: {MODULES[name]}", title_justify="left")
    for column, justify in (("what", "left"), ("measured", "right"), ("aim", "left"), ("how", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for row in rows:
        table.add_row(row.name, f"{row.value:,.3f} {row.unit}", row.aim, row.note)
    console.print(table)


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(MODULES)}; none: all.")] = None,
    threads: Annotated[int, typer.Option(help="Intra-op threads.")] = os.cpu_count() or 1,
) -> None:
    """Run benchmarks one after the other; each one's numbers replace its former ones in reports/bench.json."""
    for name in names or []:
        if name not in MODULES:
            raise typer.BadParameter(f"{name!r} is none; expected {', '.join(MODULES)}")
    torch.set_num_threads(threads)
    console = Console()
    report = read_json(REPORT) if REPORT.exists() else {}
    for name in names or list(MODULES):
        measure: Callable[[], list[Measured]] = import_module(f"benchmarks.{name}").measure
        rows = measure()
        show(name, rows, console)
        machine = {"processor": platform.processor() or platform.machine(), "threads": threads}
        report[name] = {"machine": machine, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        write_json(REPORT, report)
    console.print(f"[dim]written to {REPORT}[/dim]")


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
