"""Sandboxes with small limits for tests, and a problem that nobody can guess."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from scoring.sandbox import SandboxSettings
from scoring.sandbox_kinds import Isolation
from scoring.sandbox_walls import Limits

LIMITS = Limits(wall_s=1, memory_mib=256, files_mib=8, files=64, open_files=64, threads=16)
SETTINGS = SandboxSettings(
    isolation=Isolation.NAMESPACES,
    importable=("numpy",),
    limits=LIMITS,
    call_cpu_s=0.2,
    call_wall_s=0.5,
    output_mib=1,
    nesting=64,
    seed=0,
)
PATIENT = replace(
    SETTINGS, limits=replace(LIMITS, wall_s=20, memory_mib=1024), call_cpu_s=4.0, call_wall_s=10.0, output_mib=16
)
"""For honest programs."""


@dataclass(frozen=True)
class TestProblem:
    """A `CodeProblem`."""

    __test__ = False

    entry_point: str = "f"
    base_input: list[Any] = field(default_factory=list)
    base_expected: list[Any] = field(default_factory=list)
    plus_input: list[Any] = field(default_factory=list)
    plus_expected: list[Any] = field(default_factory=list)
    task_id: str = "test/0"
    atol: float = 0
    check: str | None = None


SECRET = TestProblem(base_input=[[1], [2]], base_expected=[987654321012, 987654321099])
GOOD = "def f(x):\n    return {1: 987654321012, 2: 987654321099}[x]\n"
CHECK = "def check(candidate):\n    assert candidate(1) == 987654321012\n    assert candidate(2) == 987654321099\n"


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds before long."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def busy_core() -> Iterator[None]:
    """One core for everything that is started here, which has other people's work to do."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for process in busy:
            process.kill()
            process.wait()
