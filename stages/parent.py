"""Processes that never outlive whoever started them, however that one ended."""

import ctypes
import os
import signal
import sys

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
