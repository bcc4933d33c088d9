"""Work on hostile data: whatever it costs, the process is ended in time, and the next piece of work is done."""

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from threading import Timer
from typing import Any

import psutil
import pytest

from scoring.bounded import BeyondBounds, BoundedProcess, Bounds
from tests.scoring.sandboxes import within

BOUNDS = Bounds(cpu_s=1, memory_mib=64)


def with_tool(tool: Any) -> BoundedProcess[Any]:
    return BoundedProcess(partial(nullcontext, tool), BOUNDS)


def test_results_and_errors_come_back_from_a_process_that_ends_with_its_context() -> None:
    with with_tool(2) as process:
        assert process.call(operator.pow, 3) == 9
        with pytest.raises(TypeError, match="unsupported operand"):
            process.call(operator.pow, "x")
        assert process.call(operator.add, 1) == 3
        assert process._running is not None
        child = psutil.Process(process._running[1].pid)
    assert not child.is_running()


@pytest.mark.parametrize(("work", "item"), [(operator.pow, 3), (operator.mul, "x")], ids=["time", "memory"])
def test_what_costs_too_much_is_ended_and_the_next_is_done(work: Callable[[Any, Any], Any], item: object) -> None:
    """Both are single operations of C, which no signal handler of Python interrupts."""
    with with_tool(10**8) as process:
        with pytest.raises(BeyondBounds):
            process.call(work, item)
        assert process.call(operator.add, 1) == 10**8 + 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_work_whose_process_is_killed_from_outside_is_done_again(number: int) -> None:
    with with_tool(0.5) as process:
        assert process.call(operator.add, 1) == 1.5
        assert process._running is not None
        killing = Timer(0.2, os.kill, (process._running[1].pid, number))
        killing.start()
        assert process.call(operator.call, time.sleep) is None
        killing.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_work_that_ends_its_process_each_time_is_beyond_bounds(number: int) -> None:
    with with_tool(number) as process:
        with pytest.raises(BeyondBounds):
            process.call(operator.call, signal.raise_signal)
        assert process.call(operator.add, 1) == number + 1


@pytest.mark.slow
def test_it_ends_in_the_middle_of_its_work_when_its_parent_is_killed() -> None:
    source = (
        "import operator\n"
        "from calendar import leapdays\n"
        "from contextlib import nullcontext\n"
        "from functools import partial, reduce\n"
        "from scoring.bounded import BoundedProcess, Bounds\n"
        "process = BoundedProcess(partial(nullcontext, range(10**12)), Bounds(60, 64))\n"
        "process.call(operator.is_, 1)\n"
        "print(process._running[1].pid, flush=True)\n"
        "process.call(reduce, leapdays)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        begun = within(60, lambda: child.cpu_times().user > 1)
        parent.kill()
    assert begun
    assert within(5, lambda: not child.is_running())
