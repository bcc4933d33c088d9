"""No hostile program passes, escapes or outlives its limits, and the good problem beside each still passes."""

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring.code_scoring import Judged, Score, Verdict, check, judge, score
from scoring.sandbox import Program, Sandbox
from tests.scoring.hostile import PROGRAMS
from tests.scoring.sandboxes import CHECK, GOOD, LIMITS, SECRET, SETTINGS, within

REPOSITORY = Path(__file__).parents[2]
CANARY = "a secret that no program may see"
RIGHT = Judged(Verdict.PASS)
ESCAPED = ("made", "read", "found", "out", "root", "done", "raised", "grown")
"""Outputs of programs that have reached what they tried to."""
WORDS = [
    b"\n",
    b'{"value": 1, "exact": true}\n',
    b'{"timeout": true}\n',
    b'{"verdict": {"passed": true}}\n',
    b"[" * 5000,
]
"""What means something there, or might."""
SLACK_S = 30.0
"""Seconds on top of a program's limit: that is one of its own time, and the machine runs other tests, too."""
TRUSTED_S = 1.0
"""CPU seconds that a program can cost on the trusted side."""


class World:
    """What a program might reach: a secret in the environment and in a file, a listening port, this process."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "canary"
        self.file.write_text(CANARY)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(self.server.getsockname())
        self.server.setblocking(False)
        self.datagrams.setblocking(False)
        self.sandbox = Sandbox(SETTINGS)

    def source(self, name: str) -> str:
        """The program, told where everything is."""
        known = {
            "REPOSITORY": REPOSITORY,
            "CANARY": self.file,
            "PORT": self.server.getsockname()[1],
            "JUDGE": os.getpid(),
        }
        text = PROGRAMS[name]
        for word, value in known.items():
            text = text.replace(word, str(value))
        return text

    def program(self, name: str) -> Program:
        """The program, to be asked for the secret problem's outputs."""
        return Program(self.source(name), "f", tuple(SECRET.base_input))

    def untouched(self) -> bool:
        """Nothing has happened outside."""
        for listening in (self.server.accept, lambda: self.datagrams.recv(100)):
            with pytest.raises(BlockingIOError):
                listening()
        kept = self.file.read_text() == CANARY and (REPOSITORY / "pyproject.toml").exists()
        return kept and not (REPOSITORY.parent / "escaped").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    os.environ["SOFTMASK_CANARY"] = CANARY
    made = World(tmp_path_factory.mktemp("outside"))
    made.sandbox.available()
    yield made
    made.sandbox.close()
    made.server.close()
    made.datagrams.close()
    del os.environ["SOFTMASK_CANARY"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_neither_passes_nor_escapes_nor_outlives_its_limits(name: str, world: World) -> None:
    started, worked = time.monotonic(), time.process_time()
    made = world.sandbox.run(world.program(name))
    assert time.monotonic() - started < LIMITS.wall_s + SLACK_S
    assert time.process_time() - worked < TRUSTED_S
    assert judge(SECRET, SECRET.base_input, SECRET.base_expected, made).verdict is not Verdict.PASS
    assert not [secret for secret in (CANARY, "escaped", *map(str, SECRET.base_expected)) if secret in repr(made)]
    assert all(record.value is not True and record.value not in ESCAPED for record in made.records)
    assert world.untouched()
    assert score(SECRET, GOOD, world.sandbox) == Score(base=RIGHT, plus=None)


@pytest.mark.parametrize("name", ["equality_overriding_object", "int_subclass", "os_exit", "endless_loop_that_goes_on"])
def test_a_hostile_program_does_not_pass_an_oracle(name: str, world: World) -> None:
    assert check(CHECK, "f", world.source(name), world.sandbox).verdict is not Verdict.PASS
    assert check(CHECK, "f", GOOD, world.sandbox) == RIGHT


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(st.binary(max_size=40) | st.sampled_from(WORDS), max_size=12), closed=st.sampled_from(["", "3", "4"])
)
def test_whatever_is_said_on_the_channel_is_a_verdict_of_that_answer(
    said: list[bytes], closed: str, world: World
) -> None:
    end = f"    os.close({closed})\n" if closed else ""
    body = f"    for part in {said!r}:\n        os.write(4, part)\n{end}    return 1\n"
    made = world.sandbox.run(Program(f"import os\ndef f(x):\n{body}", "f", tuple(SECRET.base_input)))
    assert judge(SECRET, SECRET.base_input, SECRET.base_expected, made).verdict is not Verdict.PASS
    assert score(SECRET, GOOD, world.sandbox) == Score(base=RIGHT, plus=None)


def test_many_open_descriptors_change_no_verdict(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(2000)]
    try:
        assert score(SECRET, GOOD, world.sandbox) == Score(base=RIGHT, plus=None)
        assert check(CHECK, "f", GOOD, world.sandbox) == RIGHT
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_corpus_is_large() -> None:
    assert len(PROGRAMS) >= 25


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_nothing_is_left_of_a_program(world: World) -> None:
    before = descendants()
    with Sandbox(SETTINGS) as sandbox:
        for name in ("leftover_threads", "leftover_processes", "fork_bomb", "signal_handlers"):
            sandbox.run(world.program(name))
        assert within(1, lambda: len(descendants() - before) == 2)  # the warm process and its parent
    assert within(1, lambda: descendants() <= before)


def test_nothing_is_left_when_the_judge_is_killed(world: World) -> None:
    judge_itself = (
        "import sys; sys.path += ['.', 'tests/scoring']\n"
        "from sandboxes import PATIENT\n"
        "from scoring.sandbox import Program, Sandbox\n"
        "print(Sandbox(PATIENT).available(), flush=True)\n"
        "Sandbox(PATIENT).run(Program('import time\\ndef f(x):\\n    time.sleep(9)', 'f', ([1],)))"
    )
    with subprocess.Popen([sys.executable, "-c", judge_itself], cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"None\n"
        assert within(5, lambda: len(psutil.Process(process.pid).children(recursive=True)) >= 5)
        left = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert within(2, lambda: not any(child.is_running() for child in left))
