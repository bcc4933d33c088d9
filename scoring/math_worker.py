"""The process that reads generated mathematics: answers questions on stdin with one word each on stdout.

A script of its own, run by `math_scoring`: it limits its own process first, then lets math-verify parse and compare.
Knows nothing of this project.
"""

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

READY = "ready"


class _Timeouts(logging.Handler):
    """math-verify takes its own timeouts for `different` and only logs them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen |= record.getMessage().startswith("Timeout")


def limit(memory_bytes: int) -> None:
    """Bound this process: memory, no written files, no core dump."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def allow_seconds(seconds: int) -> None:
    """Let this process compute so long from now on; then the kernel ends it, also if nobody is left to do so."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def cpu_timeout(timeout_seconds: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """math-verify's own `timeout`, but in CPU time, not by the clock: a busy machine changes no verdict."""

    def decorator(work: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(*args: Any, **named: Any) -> Any:
            signal.setitimer(signal.ITIMER_PROF, timeout_seconds)
            try:
                return work(*args, **named)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

        return bounded

    return decorator


def _time_is_up(number: int, frame: object) -> None:
    from math_verify.errors import TimeoutException

    raise TimeoutException("Operation timed out!")


def answer_questions(replies: int) -> None:
    """Serve until stdin ends; `replies` is the file descriptor that replies go to."""
    from math_verify import grader, parse, parser, verify  # sympy: a second, and only after the limits

    parser.timeout = grader.timeout = cpu_timeout
    signal.signal(signal.SIGPROF, _time_is_up)
    timeouts = _Timeouts()
    library = logging.getLogger("math_verify")
    library.addHandler(timeouts)
    library.propagate = False

    def compare(question: dict[str, Any]) -> str:
        seconds = question["step_seconds"]
        # between dollars, in one line: the only wrapping in which the library reads "50\\%" as a number
        truth = parse(f"${' '.join(question['answer'].split())}$", parsing_timeout=seconds)
        if not truth:
            return "unreadable"
        found = parse(question["text"], parsing_timeout=seconds)
        equal = verify(
            truth,
            found,
            float_rounding=question["float_rounding"],
            numeric_precision=question["numeric_precision"],
            timeout_seconds=seconds,
        )
        return "pass" if equal else "fail"

    os.write(replies, f"{READY}\n".encode())
    for line in sys.stdin:
        question = json.loads(line)
        timeouts.seen = False
        allow_seconds(question["total_seconds"])
        try:
            reply = compare(question)
        except (MemoryError, RecursionError):
            reply = "limit"
        os.write(replies, ("timeout\n" if reply == "fail" and timeouts.seen else f"{reply}\n").encode())


if __name__ == "__main__":
    limit(int(sys.argv[1]))
    own = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no reply
    answer_questions(own)
