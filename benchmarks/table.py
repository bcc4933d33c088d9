"""What a benchmark gives: named measurements, with what they should be and how they were made."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One number.

    Args:
        name: what was measured.
        value: the number.
        unit: of the number, such as `x` for a ratio, `ms`, `MiB`.
        aim: what it should be; empty where there is no aim.
        note: how it was made, where the name doesn't say it.
    """

    name: str
    value: float
    unit: str
    aim: str = ""
    note: str = ""


def alternate(tasks: Sequence[Callable[[], object]], repeats: int, warm_up: int = 1) -> list[float]:
    """Median seconds of each task. They take turns, so that a busy neighbour slows all of them alike."""
    times: list[list[float]] = [[] for _ in tasks]
    for turn in range(warm_up + repeats):
        for task, taken in zip(tasks, times, strict=True):
            started = time.perf_counter()
            task()
            if turn >= warm_up:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]
