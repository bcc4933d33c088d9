"""What a benchmark gives: comparisons of times and of memory, each with its aim, and how both are measured.

Knows no benchmark, and not where results go.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

MIB = 1 << 20
Task = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """What a task takes: seconds, and MiB held at once; None where it wasn't measured."""

    seconds: float | None = None
    peak_mib: float | None = None


@dataclass(frozen=True)
class Measured:
    """One comparison, or one cost alone.

    Args:
        name: what was measured.
        cost: what it takes.
        against: what it is compared with; empty where there is nothing.
        against_cost: what that takes.
        at_most: the aim for `ratio`, or None.
        note: how it was made, where the names don't say it.
    """

    name: str
    cost: Cost
    against: str = ""
    against_cost: Cost = Cost()
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Of the seconds, or of the memory where only that was measured; None where nothing is compared."""
        for ours, theirs in (
            (self.cost.seconds, self.against_cost.seconds),
            (self.cost.peak_mib, self.against_cost.peak_mib),
        ):
            if ours is not None and theirs is not None:
                return ours / theirs
        return None

    @property
    def aim(self) -> str:
        """The aim in words, and whether it is met; empty where there is none."""
        if self.at_most is None or self.ratio is None:
            return ""
        return f"<= {self.at_most:.3g}, {'met' if self.ratio <= self.at_most else 'missed'}"

    def row(self) -> dict[str, str | float | None]:
        """The object of reports/bench.json."""
        return {
            "name": self.name,
            "against": self.against or None,
            "ratio": self.ratio,
            "seconds": self.cost.seconds,
            "against_seconds": self.against_cost.seconds,
            "peak_mib": self.cost.peak_mib,
            "against_peak_mib": self.against_cost.peak_mib,
        }


def alternate(tasks: Sequence[Task], repeats: int, warm_up: int = 1) -> list[float]:
    """Median seconds of each task. They take turns, so that a busy neighbour slows all of them alike."""
    times: list[list[float]] = [[] for _ in tasks]
    for turn in range(warm_up + repeats):
        for task, taken in zip(tasks, times, strict=True):
            started = time.perf_counter()
            task()
            if turn >= warm_up:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def peak_mib(task: Task) -> float:
    """MiB that `task` holds at once beyond what there was before, by torch's own account of tensors on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        task()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / MIB


def costs(tasks: dict[str, Task], repeats: int, warm_up: int = 1) -> dict[str, Cost]:
    """The cost of each task: seconds as `alternate` measures them, then memory."""
    seconds = alternate(list(tasks.values()), repeats, warm_up)
    return {name: Cost(taken, peak_mib(task)) for (name, task), taken in zip(tasks.items(), seconds, strict=True)}
