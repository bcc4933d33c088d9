"""Work on what a hostile program or text has made, in a process of its own with hard bounds.

The work is trusted; what it is done on may be made to cost any amount of time and memory. So the process is ended when
it breaks a bound, and replaced. Knows neither programs nor verdicts.
"""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["evalplus.eval", "evalplus.sanitize"])  # a second, once
_END_S = 10.0
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGKILL)
"""What ends a process that has broken no bound."""


@dataclass(frozen=True)
class Bounds:
    """What one piece of work may cost.

    Args:
        cpu_s: CPU seconds of the process itself, however busy the machine is.
        memory_mib: memory on top of what the process has when its tool is ready.
    """

    cpu_s: int
    memory_mib: int


class BeyondBounds(Exception):
    """A piece of work took more than its bounds."""


class BoundedProcess(Generic[S]):
    """Does one piece of work after the other with a tool that lives in its process; started when first needed."""

    def __init__(self, tool: Callable[[], AbstractContextManager[S]], bounds: Bounds) -> None:
        """`tool`, like all work, is something that can be pickled."""
        self._tool, self._bounds = tool, bounds
        self._running: tuple[Connection[Any, Any], ForkServerProcess] | None = None

    def __enter__(self) -> "BoundedProcess[S]":
        return self

    def __exit__(self, *_: object) -> None:
        self._end(_END_S)

    def call(self, work: Callable[[T, S], R], item: T) -> R:
        """What `work` returns or raises.

        Raises:
            BeyondBounds: it was ended.
        """
        done = self._done(work, item)
        if isinstance(done, int) and -done in _FROM_OUTSIDE:
            done = self._done(work, item)  # killed by a person, or for want of memory on the machine
        if isinstance(done, int):
            raise BeyondBounds
        made, error = done
        if error is not None:
            raise error
        result: R = made
        return result

    def _done(self, work: Callable[[T, S], R], item: T) -> tuple[Any, Exception | None] | int:
        """Result and error, or the exit status of a process that was ended."""
        connection, process = self._running = self._running or self._start()
        try:
            connection.send((work, item))
            made: tuple[Any, Exception | None] = connection.recv()
        except (EOFError, OSError):
            process.join()
            status = process.exitcode or 0
            self._end(0)
            return status
        return made

    def _start(self) -> "tuple[Connection[Any, Any], ForkServerProcess]":
        ours, theirs = _FORKS.Pipe()
        process = _FORKS.Process(target=_serve, args=(theirs, self._tool, self._bounds), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def _end(self, patience: float) -> None:
        if self._running is not None:
            connection, process = self._running
            self._running = None
            connection.close()
            process.join(patience)
            process.kill()
            process.join()
            process.close()


def _serve(connection: "Connection[Any, Any]", tool: Callable[[], AbstractContextManager[S]], bounds: Bounds) -> None:
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the parent's
    with tool() as tools:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        memory = pages * os.sysconf("SC_PAGE_SIZE") + (bounds.memory_mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
        while True:
            try:
                work, item = connection.recv()
            except EOFError:
                return
            connection.send(_within(bounds.cpu_s, work, item, tools))


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _within(cpu_s: int, work: Callable[[T, S], R], item: T, tools: S) -> tuple[R | None, Exception | None]:
    """Result or error; the kernel ends this process when its time is up, also in the middle of a long operation."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        return work(item, tools), None
    except MemoryError:
        os._exit(1)  # who knows what else lacks memory
    except Exception as error:
        return None, error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
