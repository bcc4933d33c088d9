"""A memory cgroup: what it bounds, that nothing of it stays, and that the sandbox works with one and without."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring import memory_group
from scoring.sandbox import Program, Sandbox
from tests.scoring.sandboxes import PATIENT, within

PROGRAM = Program("def f(x):\n    return len(bytes(x << 20))\n", "f", ([100],))


@pytest.fixture
def waiting() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that takes 200 MiB when it is told to."""
    code = "input(); print(len(bytearray(200 << 20)))"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def group(process: int, mib: int) -> Path:
    made = memory_group.memory_group(process, mib << 20)
    if made is None:
        pytest.skip("no memory cgroup can be made here")
    return made


@pytest.mark.parametrize(("mib", "code"), [(100, -9), (400, 0)])
def test_who_wants_more_than_its_group_may_hold_is_killed(
    mib: int, code: int, waiting: "subprocess.Popen[bytes]"
) -> None:
    made = group(waiting.pid, mib)
    waiting.communicate(b"\n")
    assert waiting.returncode == code
    memory_group.remove(made)
    assert not made.exists()


def test_the_group_of_a_killed_judge_is_removed_by_the_next(waiting: "subprocess.Popen[bytes]") -> None:
    made = group(waiting.pid, 100)
    left = made.with_name("softmask-999999999-1")
    left.mkdir()
    with Sandbox(PATIENT) as sandbox:
        sandbox.available()
        assert not left.exists() and made.exists()
    waiting.communicate(b"\n")
    memory_group.remove(made)


def test_the_sandbox_uses_one_and_leaves_none() -> None:
    with Sandbox(PATIENT) as sandbox:
        assert sandbox.run(PROGRAM).records[0].value == 100 << 20
        if sandbox.memory_bound == "limits":
            pytest.skip("no memory cgroup can be made here")
        (folder,) = {zygote.group for zygote in sandbox._zygotes.values()}
        assert folder is not None and len((folder / "cgroup.procs").read_text().split()) >= 2
    assert within(2, lambda: not folder.exists())


def test_the_sandbox_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_group, "_parents", lambda: iter([(Path("/sys/fs"), "memory.max")]))  # nobody may there
    with Sandbox(PATIENT) as sandbox:
        assert sandbox.run(PROGRAM).records[0].value == 100 << 20
        assert sandbox.memory_bound == "limits"
