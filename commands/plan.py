"""What a run would take, before anything is computed: `python -m commands.plan --profile paper`.

A command, no stage of the pipeline: it prints each stage's forwards, FLOPs, tokens, memory and disk, and how long that
is, and writes nothing. What earlier runs with the same parameters have made is counted; the rest is estimated.
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.measure import Measurement

from artifacts.files import dump_json
from commands.planning.composing import composed
from commands.planning.page import as_json, folded, notes, table
from commands.planning.pipeline import planned
from runner.stage import declared_stages, run_command
from softmask.errors import InputError

FLOPS = {"cuda": 4e14, "cpu": 2e10}
"""By `compute.device`: an H100 in bf16 at 40 % of its 989 TFLOP/s; small matrices on two cores."""
WIDEST = 400
"""Characters that the table may be wide."""


def main(
    profile: Annotated[str | None, typer.Option(help="A profile of conf/; without it: what params.yaml has.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated.")
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="FLOP/s of one device. Without it: 4e14 for CUDA (H100, bf16, 40 %), 2e10 for a CPU."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="A row for every instance of a stage.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON, with a row for every instance.")] = False,
) -> None:
    """Print the plan of a run; nothing is written."""
    if flops is not None and not flops > 0:
        raise InputError(f"{flops} is wrong", where="--flops", expected="a number above 0, such as 4e14")
    raw, params = composed(profile, override or [])
    speed = flops or FLOPS[params.compute.device]
    plan = planned(declared_stages(), raw, params)
    if json:
        print(dump_json(as_json(plan, params.profile, speed)), end="")
        return
    title = f"Plan of profile {params.profile}, at {speed:.3g} FLOP/s of each device ({params.compute.device})".replace(
        "e+", "e"
    )
    rows = plan if every else folded(plan)
    shown, console = table(rows, title, speed), Console()
    whole = Measurement.get(console, console.options.update(width=WIDEST), shown).maximum
    console.width = whole  # a narrow terminal breaks the lines; no number is cut
    console.print(shown)
    console.print(notes(rows), highlight=False)


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
