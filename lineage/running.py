"""One command and all that it starts: its output passed on while it runs, nothing of it left when it is interrupted.

Knows nothing of DVC.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

KEPT = 8000
"""Bytes at the end of the output that are kept."""
PATIENCE = 5.0
"""Seconds between asking a process to stop and ending it."""
Listener = Callable[[bytes], object]
"""Is told every piece of output."""


def run_streaming(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], listener: Listener | None = None
) -> tuple[int, str]:
    """Run a command to its end: its exit code, and the end of what it wrote.

    Whatever stops this function (Ctrl-C, an error of the listener) stops the command and all that it started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C comes here first; what is stopped, and how, is decided here
    )
    said = b""
    try:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            said = (said + piece)[-KEPT:]
            if listener is not None:
                listener(piece)
        code = process.wait()
    except BaseException:
        stop_all(process.pid)
        process.wait()
        raise
    return code, said.decode(errors="replace")


def stop_all(pid: int) -> None:
    """End a process, its session's group and everything that they have started; at once where they don't listen."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    with suppress(ProcessLookupError):  # whatever lost its parent meanwhile is still in the group
        os.killpg(pid, signal.SIGKILL)
