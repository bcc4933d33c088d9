"""Whether a generated text ends in the right answer, judged by the math-verify library.

Generated text is untrusted. math-verify runs none of it as code (LaTeX goes through a grammar; what reaches sympy's
`parse_expr` is digits and operators only), but a short formula can ask for more time and memory than there is. So the
library works in a process of its own with hard bounds, which is replaced when it breaks one. Knows no problems.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from scoring import math_worker  # so that it is in the import closure of who scores
from scoring.sandbox_clock import WaitingClock
from softmask.errors import InputError

WORKER = Path(str(math_worker.__file__))
START_SECONDS = 120
"""For a process to wait for what it imports."""
_TICK_S = 0.05
"""Seconds between two looks at whether it waits."""


@dataclass(frozen=True)
class MathSettings:
    """How answers are compared, and what that may cost.

    Args:
        float_rounding: decimals that count where one side is a decimal fraction.
        numeric_precision: digits of a numeric comparison.
        step_seconds: CPU seconds for reading a text and for each comparison; math-verify's own timeout, after which it
            goes on.
        total_seconds: CPU seconds for one verdict, and seconds that its process may wait; then it is ended.
        memory_mib: of that process.
    """

    float_rounding: int
    numeric_precision: int
    step_seconds: int
    total_seconds: int
    memory_mib: int


class MathOutcome(StrEnum):
    """What became of one answer; only PASS is right."""

    PASS = "pass"
    FAIL = "fail"
    TIMEOUT = "timeout"
    """Not shown to be right in the time there was."""
    LIMIT = "limit"
    """It took more memory or a deeper stack than there was."""


class MathScorer:
    """Gives verdicts, one after the other; a context manager, as it owns a process (started when first needed)."""

    def __init__(self, settings: MathSettings) -> None:
        self.settings = settings
        self._worker: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def outcome(self, answer: str, text: str) -> MathOutcome:
        """Judge a text by the last answer that it gives (a boxed one, or after "answer is", comes first).

        Args:
            answer: the right one, as a number or as LaTeX without dollar signs.
            text: what a model generated.

        Raises:
            InputError: the right answer can't be read.
        """
        question = {
            "answer": answer,
            "text": text,
            "float_rounding": self.settings.float_rounding,
            "numeric_precision": self.settings.numeric_precision,
            "step_seconds": self.settings.step_seconds,
            "total_seconds": self.settings.total_seconds,
        }
        reply = self._ask(json.dumps(question))
        if reply == "unreadable":
            raise InputError(f"the right answer {answer!r} can't be read", expected="a number or LaTeX")
        return MathOutcome(reply)

    def _ask(self, question: str) -> str:
        worker = self._worker or self._start()
        assert worker.stdin is not None, "started with a pipe"
        stdin = worker.stdin
        reply = _line(worker, self.settings.total_seconds, lambda: stdin.write(f"{question}\n"))
        if not reply:  # it was ended: too deep a stack, or its time was up
            status = self._end()
            return MathOutcome.TIMEOUT if status in (-signal.SIGXCPU, -signal.SIGALRM) else MathOutcome.LIMIT
        return reply

    def _start(self) -> "subprocess.Popen[str]":
        self._worker = subprocess.Popen(
            # -P: no folder of this project on its path
            [sys.executable, "-P", "-s", str(WORKER), str(self.settings.memory_mib * 2**20)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            bufsize=1,
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if not _line(self._worker, START_SECONDS):
            self._end()
            raise InputError(
                "the process that reads answers doesn't start",
                expected=f"math-verify to be installed and {self.settings.memory_mib} MiB to be enough for it",
            )
        return self._worker

    def _end(self) -> int:
        """End the worker, if there is one, and tell its exit status."""
        worker, self._worker = self._worker, None
        if worker is None:
            return 0
        worker.kill()
        worker.communicate()
        return worker.returncode


def verdict(answer: str, text: str, settings: MathSettings) -> bool:
    """Whether a text ends in the right answer; for one, or use a `MathScorer` (a process takes a second to start)."""
    with MathScorer(settings) as scorer:
        return scorer.outcome(answer, text) is MathOutcome.PASS


def _line(worker: "subprocess.Popen[str]", seconds: float, ask: Callable[[], object] = lambda: None) -> str:
    """The worker's next line, empty if it has ended. It writes whole lines.

    Args:
        seconds: that it may wait; then it is ended by SIGALRM.
    """
    assert worker.stdout is not None, "started with a pipe"
    try:
        ask()
    except BrokenPipeError:
        return ""
    with closing(WaitingClock(os.pidfd_open(worker.pid), time.monotonic())) as clock:
        while not select.select([worker.stdout], [], [], _TICK_S)[0]:
            seconds -= clock.look(_TICK_S)
            if seconds <= 0:
                clock.tell(signal.SIGALRM)
    return worker.stdout.readline().strip()
