"""What runs inside the sandbox: a warm process that forks one walled-in child a program, and what that child does.

Started as a script with the standard library only; knows no problem and no verdict. Three processes matter: the
*zygote*, which is warm and never sees a program; a *keeper* a program, which makes its walls and tells how it ends; and
the *program's* process, which reads its source and calls from a pipe of its own and answers one line a call into
another: pipes, because sockets carry more than bytes.
"""

import builtins
import gc
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # it is no part of the installed packages that a program may see
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scoring import plain_data, sandbox_walls
from scoring.system_calls import filter_program

if __name__ == "__main__":
    del sys.path[0]

CALLS, ANSWERS = 3, 4
"""The file descriptors of a program's pipes."""
MESSAGE = 1 << 18
"""Bytes of the largest message to the zygote: settings and limits, no programs."""
_REPEAT_S = 0.1
"""A program that swallows the end of its time is told again."""


@dataclass(frozen=True)
class ZygoteSettings:
    """What the zygote prepares.

    Args:
        isolated: behind namespaces.
        python: behind them, what is started there.
        shown: the files and folders that programs can see behind them, see `sandbox_walls.build_root`.
        masked: folders that are empty for programs.
        path: folders added to where modules are found.
        preload: modules that are there, so that importing them takes no time.
        seed: of NumPy's global generator, if NumPy is there.
    """

    isolated: bool
    python: list[str]
    shown: dict[str, str]
    masked: list[str]
    path: list[str]
    preload: list[str]
    seed: int


@dataclass(frozen=True)
class Header:
    """The first line to a program's process.

    Args:
        source: the program; for an oracle, the source of `check(candidate)`.
        entry_point: the function that is called; None makes this process the oracle, which calls.
        collect: make a set of each output, as EvalPlus's oracle for unordered tasks does.
        patient: go on after an error or an end of time.
        seed: of `random`.
        cpu_s: CPU seconds of one call.
        size: of one output, see `plain_data.Bounds`.
        nesting: of one output.
    """

    source: str
    entry_point: str | None
    collect: bool
    patient: bool
    seed: int
    cpu_s: float
    size: int
    nesting: int

    @property
    def bounds(self) -> plain_data.Bounds:
        """The bounds of one output."""
        return plain_data.Bounds(self.size, self.nesting)


# The zygote


def main(control: socket.socket, behind: int | None = None) -> None:
    """Prepare, say so, then fork a keeper for every order: the limits, and three descriptors.

    Args:
        behind: the file descriptor of the settings, if this process has been started again behind the walls.
    """
    message = control.recv(MESSAGE) if behind is None else os.read(behind, MESSAGE)
    settings = ZygoteSettings(**json.loads(message))
    try:
        if settings.isolated and behind is None:
            _start_behind_walls(settings)
        _prepare(settings)
    except (OSError, ImportError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        control.send(json.dumps({"refused": why or str(error)}).encode())
        return
    gc.freeze()  # forked children share the memory instead of copying it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(json.dumps({"ready": True}).encode())
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 3)
        if not order:
            return
        if os.fork() == 0:
            control.close()
            limits = sandbox_walls.Limits(**json.loads(order))
            _as_child(partial(_keep, limits, settings, *descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _start_behind_walls(settings: ZygoteSettings) -> None:
    """Start Python anew where no path tells of this machine: programs can look at everything in their own process."""
    sandbox_walls.enter_namespaces()
    _continue_in_child()
    sandbox_walls.build_root(settings.shown, settings.masked)
    sandbox_walls.keep_mounting()
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.write(writing, json.dumps(asdict(replace(settings, shown={}))).encode())
    libraries = str(Path(settings.python[0]).parents[1] / sys.platlibdir)
    command = [*settings.python, sys.argv[1], str(reading)]
    os.execve(command[0], command, {**os.environ, "LD_LIBRARY_PATH": libraries})


def _prepare(settings: ZygoteSettings) -> None:
    os.environ.pop("LD_LIBRARY_PATH", None)
    filter_program(platform.machine(), settings.isolated)  # children find it in its cache
    sandbox_walls.die_with_parent()
    sandbox_walls.refuse_huge_pages()
    sys.path += settings.path
    for name in settings.preload:
        builtins.__import__(name)
    if "numpy" in settings.preload:
        sys.modules["numpy"].random.seed(settings.seed)


def _continue_in_child() -> None:
    """Go on as the first process of the new process namespace; this one waits for it, so that neither outlives."""
    child = os.fork()
    if child != 0:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    sandbox_walls.die_with_parent()


def _as_child(work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


# The keeper


def _keep(limits: sandbox_walls.Limits, settings: ZygoteSettings, calls: int, answers: int, report: int) -> None:
    """Wall in one program, hand it out, and tell how it ended; end it when nobody wants to know any more."""
    sandbox_walls.die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    scratch = None if settings.isolated else Path(tempfile.mkdtemp(prefix="softmask-scratch-"))
    if scratch is None:
        sandbox_walls.enter_scratch(limits)
    else:
        os.chdir(scratch)
        tempfile.tempdir = str(scratch)
    child = os.fork()
    if child == 0:
        os.dup2(calls, CALLS)
        os.dup2(answers, ANSWERS)
        os.closerange(ANSWERS + 1, os.sysconf("SC_OPEN_MAX"))
        _as_child(partial(_be_program, limits, settings))
    os.close(calls)
    os.close(answers)
    with socket.socket(fileno=report) as reporting:
        _wait(child, reporting)
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        code, cpu_s = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        with suppress(BrokenPipeError):
            reporting.send(json.dumps({"code": code, "cpu_s": cpu_s}).encode())


def _wait(child: int, reporting: socket.socket) -> None:
    """Wait until the child ends or nobody listens any more."""
    process = os.pidfd_open(child)
    with suppress(BrokenPipeError):
        socket.send_fds(reporting, [b"started"], [process])
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(reporting, 0)  # a hang-up is reported unasked
    poll.poll()


# The program's process


def _be_program(limits: sandbox_walls.Limits, settings: ZygoteSettings) -> None:
    sandbox_walls.limit_resources(limits, count_threads=settings.isolated)
    if settings.isolated:
        sandbox_walls.drop_privileges()
    else:
        sandbox_walls.limit_files(list(settings.shown.values()), settings.path)
    sandbox_walls.die_with_parent()
    sandbox_walls.filter_system_calls(settings.isolated)
    talk = _Talk()
    header = Header(**talk.read())
    random.seed(header.seed)
    if header.entry_point is None:
        _Oracle(header, talk).run()
    else:
        _Candidate(header, talk).run()


class _Talk:
    """Lines of JSON over pipes."""

    def __init__(self) -> None:
        self._calls, self._answers = BufferedReader(FileIO(CALLS)), FileIO(ANSWERS, "w")

    def read(self) -> Any:
        """The next line's value; None at the end."""
        line = self._calls.readline()
        return plain_data.loads(line) if line else None

    def write(self, value: Any) -> None:
        line = memoryview(plain_data.dumps(value).encode("ascii") + b"\n")
        while line:
            line = line[self._answers.write(line) :]


class _TimeIsUp(BaseException):
    pass


class _Candidate:
    """Answers calls with the program's function."""

    def __init__(self, header: Header, talk: _Talk) -> None:
        self._header, self._talk = header, talk
        self._counting, self._until_s = False, 0.0
        self._function: Callable[..., object] = len
        for kind in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(kind, self._time_is_up)

    def run(self) -> None:
        """One record of loading the program, then one a call, in their order."""
        loaded = self._within_time(self._load)
        trouble = None if "value" in loaded else loaded
        self._talk.write(loaded)
        if trouble is not None and not self._header.patient:
            return None
        while (call := self._talk.read()) is not None:
            record = trouble or self._within_time(partial(self._answer, call))
            self._talk.write(record)
            if not self._header.patient and "value" not in record and "opaque" not in record:
                return None
        return None

    def _load(self) -> Any:
        namespace: dict[str, Any] = {}
        builtins.exec(self._header.source, namespace)
        self._function = namespace[str(self._header.entry_point)]
        return {"value": True, "exact": True}

    def _answer(self, call: Any) -> Any:
        bounds = self._header.bounds
        arguments = plain_data.decode(call["args"], bounds)
        named = plain_data.decode(call["named"], bounds)
        value = self._function(*arguments, **named)
        if self._header.collect:
            value = set(value)  # type: ignore[call-overload]
        try:
            encoded = plain_data.encode(value, bounds)
        except plain_data.NotPlain:
            return {"opaque": True}
        return {"value": encoded.data, "exact": encoded.exact}

    def _within_time(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, or the record of what went wrong."""
        try:
            try:
                self._count(self._header.cpu_s, _REPEAT_S)
                return work()
            finally:
                self._count(0, 0)
        except _TimeIsUp:
            self._count(0, 0)
            return {"timeout": True}
        except MemoryError:
            return {"limit": "memory"}
        except plain_data.TooLarge:
            return {"limit": "output"}
        except BaseException as error:
            return {"error": type(error).__name__[:100]}

    def _count(self, cpu_s: float, repeat_s: float) -> None:
        """CPU time; SIGALRM comes from outside, for waiting."""
        self._counting, self._until_s = cpu_s > 0, time.process_time() + cpu_s
        signal.setitimer(signal.ITIMER_PROF, cpu_s, repeat_s)

    def _time_is_up(self, number: int, frame: object) -> None:
        left_s = self._until_s - time.process_time()
        if number == signal.SIGPROF and left_s > 0:  # the timer counts in ticks of the scheduler
            signal.setitimer(signal.ITIMER_PROF, left_s, _REPEAT_S)
        elif self._counting:
            raise _TimeIsUp


class CandidateError(Exception):
    """The program, asked by the oracle, gave no output."""


class _Opaque:
    """An output that is no plain data: equal to nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False


class _Oracle:
    """Runs `check(candidate)`, where each call of `candidate` is answered by the program's own process."""

    def __init__(self, header: Header, talk: _Talk) -> None:
        self._header, self._talk = header, talk
        self._trouble: dict[str, Any] | None = None

    def run(self) -> None:
        """One last record: passed, or what failed."""
        try:
            namespace: dict[str, Any] = {}
            builtins.exec(self._header.source, namespace)
            namespace["check"](self._candidate)
        except CandidateError:
            self._talk.write({"verdict": self._trouble})
        except BaseException as error:
            self._talk.write({"verdict": {"failed": type(error).__name__[:100]}})
        else:
            self._talk.write({"verdict": {"passed": True}})

    def _candidate(self, *args: object, **named: object) -> Any:
        bounds = self._header.bounds
        call = {"args": plain_data.encode(list(args), bounds).data, "named": plain_data.encode(named, bounds).data}
        self._talk.write({"call": call})
        record = self._talk.read()
        if record is None:
            raise EOFError
        if "value" in record:
            return plain_data.decode(record["value"], bounds)
        if "opaque" in record:
            return _Opaque()
        self._trouble = record
        raise CandidateError


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), *map(int, sys.argv[2:]))
