"""Tell what a process says while it says it; stop it with everything that it started. Knows no Prefect."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Protocol

import psutil

PROGRESS_SECONDS = 10.0
"""Between two reports of a progress bar, which writes many times a second."""
GRACE_SECONDS = 15.0
"""For an interrupted command to keep its work and end."""
LAST_LINES = 30
"""Of what a process says, kept for whoever asks why it failed."""


class Started(Protocol):
    """A process with a process group of its own. Its output and errors are one stream."""

    pid: int
    stdout: IO[bytes] | None

    def wait(self) -> int:
        """Its exit code, at its end; less than zero for a signal."""


def follow(process: Started, say: Callable[[str], None]) -> tuple[int, list[str]]:
    """Await a process's end; its exit code, and its last lines.

    If this call is interrupted in any way, the process's group is interrupted as Ctrl-C does, and killed if it doesn't
    end in time; nothing that it started is left.

    Args:
        process: what was just started.
        say: gets each line of its output, and now and then where a progress bar is.
    """
    assert process.stdout is not None
    last = deque[str](maxlen=LAST_LINES)

    def tell(line: str) -> None:
        last.append(line)
        say(line)

    reader = threading.Thread(target=_tell, args=(process.stdout, tell), daemon=True)
    reader.start()
    try:
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    finally:
        reader.join(timeout=5)
    return code, list(last)


def _stop(process: Started) -> None:
    """Interrupt the group, wait, and kill what is left of it and of its descendants."""
    family = _family(process.pid)
    _signal(process.pid, signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for one in {*alive, *_family(process.pid)}:
        if one.is_running():
            one.kill()
    process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(group, number)


def _tell(stream: IO[bytes], say: Callable[[str], None]) -> None:
    """Whole lines at once; of what a carriage return overwrites, the last of a line and one every few seconds."""
    said, rest = time.monotonic(), b""
    while chunk := os.read(stream.fileno(), 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _say(line, say)
        if b"\r" in rest and time.monotonic() - said > PROGRESS_SECONDS:
            _say(rest, say)
            said, rest = time.monotonic(), b""
    _say(rest, say)


def _say(line: bytes, say: Callable[[str], None]) -> None:
    shown = line.rstrip(b"\r\n ").rpartition(b"\r")[2].decode("utf-8", errors="replace")
    if shown:
        say(shown)
