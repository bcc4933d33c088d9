"""Processes that never outlive whoever started them, however that one ended.

python -m runner.parent PID MODULE [ARGUMENT ...]    runs a module that ends with its parent PID
"""

import ctypes
import os
import runpy
import select
import signal
import sys
from threading import Thread

import psutil

PR_SET_PDEATHSIG = 1
"""Of <linux/prctl.h>: the signal that a process gets when its parent dies."""


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the system send a signal to this process when its parent is gone (Linux).

    Args:
        parent: the process that must be the parent; if it isn't any more, the signal comes at once.
        number: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it was gone before
        os.kill(os.getpid(), number)


def die_with_dvc() -> None:
    """Let this process, which DVC has started, be killed when DVC is gone; also through a shell between them.

    Where `SHELL` is not set, as in a container or a service, DVC's shell is often one that stays beside its command
    and outlives a DVC that was killed.
    """
    parent = psutil.Process(os.getppid())
    if "DVC_STAGE" in parent.environ():  # not DVC, which sets it for its command
        die_with(parent.ppid())
    die_with_parent(parent.pid)


def die_with(other: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let this process get a signal when another one is gone, whoever that is (Linux)."""
    if sys.platform == "linux":
        Thread(target=_die_with, args=(os.pidfd_open(other), number), daemon=True).start()


def _die_with(other: int, number: signal.Signals) -> None:
    select.select([other], [], [])
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs' children ignore it
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
