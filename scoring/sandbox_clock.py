"""How long a program waits, as the kernel sees it from outside: a busy machine doesn't count, nor can it be stopped."""

import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SCHEDULED = 2
"""Of the kernel's CPUCLOCK_SCHED, in the number of a process's clock, see clock_getcpuclockid(3) and include/linux."""
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class _Thread:
    runnable: bool
    busy_s: float
    """It has run, or stood in the queue of those that want to."""


class WaitingClock:
    """The time in which no thread of a process runs or wants to, added up in looks at it.

    Args:
        process: its pidfd; this object's from now on.
        started_s: when it began, by the monotonic clock.
    """

    def __init__(self, process: int, started_s: float) -> None:
        self._process = process
        self._quiet_s, self._busy_s = started_s, dict[str, float]()
        """The last moment at which all threads were seen to wait, and what each had done by then."""

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._process)

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def over(self) -> bool:
        """Whether it has ended; then its number is nobody's, or this process's own."""
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return bool(poll.poll(0))

    def cpu_s(self) -> float:
        """CPU seconds of it so far; exact, unlike RLIMIT_CPU, which counts in ticks of the scheduler."""
        try:
            return time.clock_gettime(~self._pid() << 3 | _SCHEDULED)
        except OSError:
            return 0.0  # it has ended

    def look(self, seconds: float) -> float:
        """How many of the last `seconds` the process has waited.

        What a thread has done is exact only once it waits, so while one can run nothing counts. Seconds between two
        moments of waiting count as far as no single thread was busy in them.
        """
        threads = _threads(self._pid())
        if any(thread.runnable for thread in threads.values()):
            return 0.0
        now = time.monotonic()
        busy = max((thread.busy_s - self._busy_s.get(name, 0.0) for name, thread in threads.items()), default=0.0)
        waited = min(seconds, now - self._quiet_s - max(0.0, busy))
        self._quiet_s, self._busy_s = now, {name: thread.busy_s for name, thread in threads.items()}
        return max(0.0, waited)

    def _pid(self) -> int:
        """Its number, as long as it has one; see the kernel's description of /proc/PID/fdinfo."""
        return int(Path(f"/proc/self/fdinfo/{self._process}").read_text(encoding="ascii").split("\nPid:")[1].split()[0])


def _threads(pid: int) -> dict[str, _Thread]:
    """The threads of a process, by name; none if it has ended, or if /proc hides it: then all time is waiting."""
    try:
        return {folder.name: _thread(folder) for folder in Path(f"/proc/{pid}/task").iterdir()}
    except _GONE:
        return {}


def _thread(folder: Path) -> _Thread:
    """See proc(5) for `stat`, the kernel's scheduler/sched-stats for `schedstat`, which some kernels don't have."""
    try:
        state = (folder / "stat").read_bytes().rpartition(b") ")[2][:1]
    except _GONE:
        return _Thread(runnable=True, busy_s=0)  # it ran until now
    try:
        ran, queued, _ = (folder / "schedstat").read_text(encoding="ascii").split()
    except _GONE:
        ran = queued = "0"
    return _Thread(state == b"R", (int(ran) + int(queued)) / 1e9)
