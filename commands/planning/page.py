"""A plan as a table and as JSON."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from commands.planning.pipeline import Planned
from commands.planning.work import Work, together

COLUMNS = ("forwards", "FLOPs", "tokens", "memory", "disk", "unfinished", "devices", "time")
NOTES = (
    "No sign: what the manifest will say. ~ expected, or built on estimates of data that are not there. <= at most.",
    "forwards: of micro-batches in training, of sequences elsewhere; in brackets at nominal NFE, where a step that "
    "changes nothing needs none.",
    "FLOPs: matrix products, by the stages' formulas. time: at one speed for all, with the evaluations during a "
    "finetuning, which no manifest counts. MDLM's sampling and evaluation and the "
    "judge compute in float32, which a GPU is slower at, and small batches don't fill it.",
    "memory of one process, disk of outputs, unfinished: checkpoints while a stage runs. Estimates, all three. DVC's "
    "cache takes the disk again where the file system can't share.",
)
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
THOUSANDS = ("", "K", "M", "G", "T", "P")


def folded(plan: Sequence[Planned]) -> list[Planned]:
    """The instances of a stage as one row each."""
    rows = []
    for stage, group in groupby(plan, key=lambda item: item.stage):
        members = list(group)
        label = members[0].instance if len(members) == 1 else f"{stage} x {len(members)}"
        rows.append(Planned(stage, label, together([item.work for item in members])))
    return rows


def table(plan: Sequence[Planned], title: str, flops: float) -> Table:
    """One row for each of these that takes something, and the sum; time at so many FLOP/s of each device."""
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    shown.add_column("stage", no_wrap=True)
    for column in COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for item in plan:
        if item.work != Work():
            shown.add_row(item.instance, *_cells(item.work, item.work.seconds(flops)))
    total = sum(item.work.seconds(flops) for item in plan)
    shown.add_section()
    shown.add_row("all, one after another", *_cells(together([item.work for item in plan]), total))
    return shown


def notes(plan: Sequence[Planned]) -> str:
    """What the table's signs and columns mean, and which stages have no row."""
    others = [item.instance for item in plan if item.work == Work()]
    return "\n".join((*NOTES, f"Next to nothing: {', '.join(others)}."))


def _cells(work: Work, seconds: float) -> list[str]:
    sign = work.basis.sign
    forwards = f"{sign}{in_thousands(work.forwards)}" if work.forwards else ""
    if work.most_forwards > work.forwards:
        forwards += f" ({in_thousands(work.most_forwards)})"
    return [
        forwards,
        f"{sign}{work.flops:.3g}".replace("e+", "e") if work.flops else "",
        f"{sign}{in_thousands(work.tokens)}" if work.tokens else "",
        *(in_bytes(size) for size in (work.memory, work.disk, work.unfinished)),
        str(work.processes) if work.flops else "",
        in_time(seconds) if work.flops else "",
    ]


def in_thousands(count: int) -> str:
    """A count up to a million in full, a larger one with four digits, such as `60.95 M`."""
    if count < 10**6:
        return f"{count:,}"
    power = min((len(str(count)) - 1) // 3, len(THOUSANDS) - 1)
    return f"{count / 1000**power:.4g} {THOUSANDS[power]}"


def in_bytes(size: int) -> str:
    """A size with its unit, such as `1.9 GiB`; nothing for nothing."""
    if not size:
        return ""
    number, unit = float(size), 0
    while number >= 1000 and unit < len(UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {UNITS[unit]}"


def in_time(seconds: float) -> str:
    """A duration with its unit, such as `2.4 h`."""
    for limit, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (48 * 3600.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def as_json(plan: Sequence[Planned], profile: str, flops: float) -> Mapping[str, Any]:
    """Every instance with its numbers: counts, bytes, seconds."""
    return {
        "profile": profile,
        "flops_per_second": flops,
        "stages": [
            {
                "stage": item.stage,
                "instance": item.instance,
                **vars(item.work),
                "seconds": round(item.work.seconds(flops), 3),
            }
            for item in plan
        ],
    }
