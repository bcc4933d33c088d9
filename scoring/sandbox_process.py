"""The trusted side's connection to one program's process, which may lie, flood, drip, wait or die: nothing blocks here.

Knows no line's meaning.
"""

import json
import os
import select
import signal
import socket
import time
from io import FileIO
from typing import Any

from scoring.sandbox_clock import WaitingClock

_TICK_S = 0.05
"""Seconds of waiting for a program between two looks at whether it waits itself."""
_REPEAT_S = 0.1
"""A program that swallows the end of its time is told again."""
_READ = 1 << 16
_MESSAGE = 4096


class TooMuch(Exception):
    """The program has written more than it may."""


class SandboxBroken(Exception):
    """The sandbox's own processes have died."""


class Process:
    """Lines to a program and from it, and the end of it when its time is up.

    Args:
        calls: the pipe to it; this object's from now on, as the other two.
        answers: the pipe from it.
        report: from its keeper: the program's pidfd, then how it ended.
        wall_s: seconds that it may compute, and that it may wait, in all.
        call_wall_s: seconds that it may wait before a line; then it is told by a signal.
    """

    def __init__(self, calls: int, answers: int, report: socket.socket, wall_s: float, call_wall_s: float) -> None:
        self._calls, self._answers = FileIO(calls, "w"), FileIO(answers)
        self._report, self._ended = report, b""
        self._wall_s, self._call_wall_s = wall_s, call_wall_s
        self._unsent, self._received = bytearray(), bytearray()
        self._searched = self._total = 0
        self._last = self._late = False
        self._clock: WaitingClock | None = None
        self._started_s = time.monotonic()
        self._unlooked_s = self._waited_s = self._call_waited_s = 0.0
        os.set_blocking(calls, False)
        os.set_blocking(answers, False)

    def close(self) -> None:
        """Let go; its keeper ends it."""
        self._calls.close()
        self._answers.close()
        self._report.close()
        if self._clock is not None:
            self._clock.close()

    def send(self, data: bytes, last: bool = False) -> None:
        """Queue lines for it; sent while reading.

        Args:
            last: nothing will follow.
        """
        self._unsent += data
        self._last = last

    def read(self, most: int) -> bytes | None:
        """Its next line, or None if it has ended.

        Args:
            most: bytes that it may have written in all.

        Raises:
            TooMuch: it has written more.
            SandboxBroken: its keeper has died.
        """
        while (end := self._received.find(b"\n", self._searched)) < 0:
            self._searched = len(self._received)
            if not self._exchange():
                return None
            if self._total > most:
                raise TooMuch
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched, self._call_waited_s = 0, 0.0
        return line

    def report(self) -> Any:
        """How it ended: `late` if its time was up, exit `code`, `cpu_s`.

        Raises:
            SandboxBroken: nobody says.
        """
        self._calls.close()
        self._answers.close()
        while not self._ended:
            if self._poll({self._report.fileno(): select.POLLIN}):
                self._hear()
        return {"late": self._late, **json.loads(self._ended)}

    def _exchange(self) -> bool:
        """Send and receive what is possible now; False at the end."""
        wanted = {self._answers.fileno(): select.POLLIN}
        if self._unsent:
            wanted[self._calls.fileno()] = select.POLLOUT
        ready = self._poll(wanted)
        if self._unsent and self._calls.fileno() in ready:
            self._push()
        if self._answers.fileno() not in ready:
            return True
        data = self._answers.read(_READ)
        self._received += data or b""
        self._total += len(data or b"")
        return data != b""

    def _push(self) -> None:
        try:
            del self._unsent[: self._calls.write(self._unsent) or 0]
        except BrokenPipeError:
            self._unsent.clear()  # it reads no more, and may still answer
        if self._last and not self._unsent:
            self._calls.close()

    def _poll(self, wanted: dict[int, int]) -> set[int]:
        """Which descriptors are ready, within a tick; the time until then is the program's."""
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        started = time.monotonic()
        ready = {descriptor for descriptor, _ in poll.poll(_TICK_S * 1000)}
        self._unlooked_s += time.monotonic() - started
        if self._unlooked_s >= _TICK_S:
            self._look()
        return ready

    def _look(self) -> None:
        """Count what it has waited, and tell or end it."""
        seconds, self._unlooked_s = self._unlooked_s, 0.0
        if self._clock is None:
            self._hear()
        if self._clock is None:
            return
        waited, computed_s = self._clock.look(seconds), self._clock.cpu_s()
        if self._clock.over():
            return  # so what was seen may not be its own
        self._waited_s += waited
        self._call_waited_s += waited
        if max(self._waited_s, computed_s) >= self._wall_s:
            self._late = True
            self._clock.tell(signal.SIGKILL)
        elif self._call_waited_s >= self._call_wall_s:
            self._call_waited_s -= _REPEAT_S
            self._clock.tell(signal.SIGALRM)

    def _hear(self) -> None:
        """Take what its keeper has said, if anything.

        Raises:
            SandboxBroken: it says nothing any more.
        """
        try:
            text, descriptors, _, _ = socket.recv_fds(self._report, _MESSAGE, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not text:
            raise SandboxBroken("a program's keeper has died")
        if descriptors:
            self._clock = WaitingClock(descriptors[0], self._started_s)
        else:
            self._ended = text
