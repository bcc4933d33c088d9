"""Processes that are forked instead of started: a Prefect run, and the stage that it brings up to date.

The first is forked from a worker's fork server (`warm.py`), the second from the first, before that has threads.
"""

import atexit
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from prefect.context import refresh_global_settings_context

from pipelines.follow import Started
from runner.parent import die_with, die_with_parent

_spares: list["_Spare"] = []
"""That of this process, until it is used; forked before Prefect starts threads, whose locks it would inherit."""


def start(module: str, arguments: Sequence[str], folder: Path) -> Started:
    """Start `python -m MODULE ARGUMENTS` in a folder; in the spare process, if this one was forked and has it yet."""
    if _spares:
        return _spares.pop().become(module, arguments, folder)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def engine(worker: int, folder: Path, environment: Mapping[str, str]) -> None:
    """Be `python -m prefect.engine`, in a process that was forked for it.

    Args:
        worker: the process whose end this one must not outlive.
        folder: where to be.
        environment: all of it.
    """
    os.environ.clear()
    os.environ.update(environment)
    _spares.append(_Spare())
    die_with(worker, signal.SIGTERM)  # Prefect turns it into a crash of this run
    die_with_parent(os.getppid(), signal.SIGTERM)  # the fork server
    refresh_global_settings_context()
    _become("prefect.engine", [], folder)


class _Spare:
    """A process that waits for what it is to be. It ends with this one."""

    def __init__(self) -> None:
        read, write = os.pipe()
        self._orders, theirs = multiprocessing.Pipe()
        arguments = (theirs, self._orders, write)
        self._process = multiprocessing.get_context("fork").Process(target=_await_orders, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        os.close(write)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stdout: IO[bytes] | None = os.fdopen(read, "rb")

    def become(self, module: str, arguments: Sequence[str], folder: Path) -> "_Spare":
        self._orders.send((module, arguments, folder, dict(os.environ)))
        return self

    def wait(self) -> int:
        self._process.join()
        code = self._process.exitcode
        return 0 if code is None else code  # somebody else has asked for it, as with subprocess


def _await_orders(orders: Connection, not_mine: Connection, output: int) -> None:
    not_mine.close()
    os.setsid()
    try:
        module, arguments, folder, environment = orders.recv()
    except EOFError:
        return
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.clear()
    os.environ.update(environment)
    ours = {name.partition(".")[0] for name in (__name__, die_with.__module__)}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]  # the folder may hold other code
    logging.basicConfig(handlers=[], level=logging.WARNING, force=True)  # Prefect's are not for what this becomes
    _become(module, arguments, folder)


def _become(module: str, arguments: Sequence[str], folder: Path) -> None:
    os.chdir(folder)
    sys.argv[1:] = arguments
    sys.path[0] = str(folder)
    sys.modules.pop(module, None)  # run_module warns of one that is there
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without
