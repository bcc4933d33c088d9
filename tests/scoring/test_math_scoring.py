"""Answers to maths problems: what counts as right, and that no text outlasts its bounds or runs as code."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

import psutil
import pytest

from scoring.math_scoring import MathOutcome, MathScorer, MathSettings, verdict
from softmask.errors import InputError
from tests.scoring.sandboxes import busy_core

SETTINGS = MathSettings(float_rounding=6, numeric_precision=15, step_seconds=1, total_seconds=4, memory_mib=1024)


@pytest.fixture(scope="module")
def scorer() -> Iterator[MathScorer]:
    with MathScorer(SETTINGS) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("42", "17 + 25 = 42. The answer is 42."),
        ("1234", "She pays $1,234 in all. The answer is $1,234."),
        ("18", "9 * 2 = 18\n#### 18"),
        ("10,080", "The answer is 10080."),
        (r"\frac{14}{3}", "So the answer is 14/3"),
        (r"\frac{14}{3}", r"So \boxed{\dfrac{14}{3}}"),
        (r"50\%", "The answer is 50%."),
        (r"50\%", r"\boxed{50\%}"),
        (r"\$18.90", r"\boxed{18.90}"),
        (r"5.4 \text{ cents}", r"\boxed{5.4}"),
        (r"11\frac{1}{2}", r"\boxed{11.5}"),
        (r"90^\circ", r"\boxed{90}"),
        ("3\\sqrt{13}", r"\boxed{3\sqrt{13}}"),
        ("p - q", "Thus $-q+p$."),
        ("6 - 5i", r"$\boxed{6-5i}$"),
        ("1,2,3", r"\boxed{3,2,1}"),
        (r"\text{(C)}", r"\boxed{C}"),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}"),
        (r"(0,9) \cup (9,36)", r"$\boxed{(0,9)\cup(9,36)}$"),
        ("\\begin{pmatrix} -1/3 \\\\\n 2/3 \\end{pmatrix}", r"\boxed{\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}}"),
    ],
)
def test_an_equal_answer_is_right_however_it_is_written(scorer: MathScorer, answer: str, text: str) -> None:
    assert scorer.outcome(answer, text) is MathOutcome.PASS


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("42", "17 + 25 = 42. The answer is 41."),
        ("42", ""),
        ("42", "I do not know."),
        ("42", "4 2"),
        ("-42", "The answer is 42."),
        (r"\frac{14}{3}", "The answer is 4.67"),
        ("(3, 4)", r"\boxed{(4, 3)}"),
        ("7", "7\nor rather 9"),
    ],
)
def test_another_answer_is_wrong(scorer: MathScorer, answer: str, text: str) -> None:
    assert scorer.outcome(answer, text) is MathOutcome.FAIL


HOSTILE = {
    "a tower of powers": "The answer is $9^{9^{9^{9}}}$",
    "one large power": "The answer is 7**10000000000",
    "a factorial": r"\boxed{(10^{10})!}",
    "a long sum": r"\boxed{\sum_{n=1}^{10^{12}} \frac{1}{n^3}}",
    "an integral": r"$\int_0^1 \sin(x^{x^x}) e^{\cos x} dx$",
    "a matrix power": r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{10^9}}",
    "deep parentheses": r"\boxed{" + "(" * 3000 + "42" + ")" * 3000 + "}",
    "deep plain parentheses": "The answer is " + "(" * 5000 + "1+1" + ")" * 5000,
    "many dollars": "$" * 3000,
    "many boxes": r"\boxed{" * 1000,
    "many digits": "The answer is " + "9" * 6000,
    "many numbers": "1 " * 4000 + "+",
    "a wide polynomial": r"\boxed{(x+1)^{5000}}",
    "code in plain text": "The answer is __import__('os').system('touch {folder}/pwned')",
    "code in dollars": "$__import__('os').system('touch {folder}/pwned')$",
    "broken characters": "\0\ud800\r\n\x1b[2J 43",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_wrong_in_time_and_the_next_verdict_is_right(
    scorer: MathScorer, tmp_path: Path, name: str
) -> None:
    started = time.monotonic()
    outcome = scorer.outcome("42", HOSTILE[name].replace("{folder}", str(tmp_path)))
    assert outcome is not MathOutcome.PASS
    assert time.monotonic() - started < SETTINGS.total_seconds + 3
    assert not list(tmp_path.iterdir())
    assert scorer.outcome("42", "The answer is 42.") is MathOutcome.PASS


def test_the_process_is_ended_where_the_library_does_not_stop_itself() -> None:
    settings = replace(SETTINGS, step_seconds=60, total_seconds=1)
    with MathScorer(settings) as scorer:
        started = time.monotonic()
        assert scorer.outcome("42", r"\boxed{(10^{10})!}") in (MathOutcome.TIMEOUT, MathOutcome.LIMIT)
        assert time.monotonic() - started < 10  # a process starts, and works for a second
        assert scorer.outcome("42", "42") is MathOutcome.PASS


@pytest.mark.slow
def test_a_busy_machine_changes_no_verdict() -> None:
    """A third of the second that there is."""
    with MathScorer(replace(SETTINGS, total_seconds=1)) as scorer:
        assert scorer.outcome("42", "42") is MathOutcome.PASS
        worker = scorer._worker
        with busy_core():
            assert worker is not None
            os.sched_setaffinity(worker.pid, os.sched_getaffinity(0))
            assert scorer.outcome("80200", rf"\boxed{{{'+'.join(map(str, range(1, 401)))}}}") is MathOutcome.PASS
        assert scorer._worker is worker


def test_a_process_that_waits_for_ever_is_ended() -> None:
    with MathScorer(replace(SETTINGS, total_seconds=1)) as scorer:
        assert scorer.outcome("42", "42") is MathOutcome.PASS
        assert scorer._worker is not None
        scorer._worker.send_signal(signal.SIGSTOP)
        Timer(1.5, scorer._worker.send_signal, [signal.SIGCONT]).start()
        assert scorer.outcome("42", "42") is MathOutcome.TIMEOUT
        assert scorer.outcome("42", "42") is MathOutcome.PASS


def test_the_process_is_bounded_in_memory_and_writes_no_file() -> None:
    with MathScorer(SETTINGS) as scorer:
        before = psutil.Process().children()
        scorer.outcome("42", "42")
        (worker,) = (process for process in psutil.Process().children() if process not in before)
        assert worker.rlimit(psutil.RLIMIT_AS) == (SETTINGS.memory_mib * 2**20,) * 2
        assert worker.rlimit(psutil.RLIMIT_FSIZE) == worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert 0 < worker.rlimit(psutil.RLIMIT_CPU)[0] <= SETTINGS.total_seconds + 60
    assert not worker.is_running()


def test_one_verdict_by_itself() -> None:
    assert verdict("42", "The answer is 42.", SETTINGS)
    assert not verdict("42", "The answer is 43.", SETTINGS)


def test_a_right_answer_that_cannot_be_read_is_the_users_mistake(scorer: MathScorer) -> None:
    with pytest.raises(InputError, match="right answer '' can't be read"):
        scorer.outcome("", "42")


def test_too_little_memory_for_the_library_is_said() -> None:
    with MathScorer(replace(SETTINGS, memory_mib=8)) as scorer, pytest.raises(InputError, match="8 MiB to be enough"):
        scorer.outcome("42", "42")
