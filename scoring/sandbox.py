"""The trusted side of the sandbox: hands a program and inputs to it, gets outputs back as plain data, in bounded time.

Generated code is hostile until proven otherwise. Its process gets inputs only, never an expected value, and what it
says is data: a program can lie about its own outputs, and about nothing else. Knows no problem and no verdict.
"""

import json
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from scoring import memory_group, plain_data, sandbox_inside
from scoring.sandbox_inside import Header, ZygoteSettings
from scoring.sandbox_kinds import Isolation
from scoring.sandbox_process import Process, SandboxBroken, TooMuch
from scoring.sandbox_walls import CODE, PACKAGES, PYTHON, SCRATCH, Limits, unsupported
from softmask.errors import InputError

_START_S = 60.0
"""Seconds until a sandbox that doesn't start counts as broken."""
_WARM = 1 << 28
"""Bytes of the warm process and of what the kernel keeps for programs, at most."""
_ORACLE_S = 5
"""Seconds of an oracle on top of the program that it asks."""
_FOLDERS = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
"""What modules of the standard library load."""
_CHECKOUT = Path(__file__).parents[1]
_CODE = [f"scoring/{name}.py" for name in ("sandbox_inside", "sandbox_walls", "system_calls", "plain_data")]
"""The modules that run inside."""
_INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
_FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8")
_PRELOAD = (
    *("abc", "array", "ast", "base64", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "math"),
    *("numbers", "operator", "queue", "random", "re", "statistics", "string", "textwrap", "threading", "typing"),
)

T = TypeVar("T")


@dataclass(frozen=True)
class SandboxSettings:
    """How programs are run.

    Args:
        isolation: how strongly they are walled in.
        importable: installed packages that they may import, beside the standard library.
        limits: of a program.
        call_cpu_s: CPU seconds of one call.
        call_wall_s: seconds that one call may wait.
        output_mib: all outputs of a program together.
        nesting: depth of containers in an output.
        seed: of `random`, NumPy's global generator and hashes in the program's process.
    """

    isolation: Isolation
    importable: tuple[str, ...]
    limits: Limits
    call_cpu_s: float
    call_wall_s: float
    output_mib: int
    nesting: int
    seed: int

    @property
    def bounds(self) -> plain_data.Bounds:
        """The bounds of one output."""
        return plain_data.Bounds(self.output_mib << 20, self.nesting)


@dataclass(frozen=True)
class Program:
    """What is to be run.

    Args:
        source: Python, executed as a module of its own.
        entry_point: the function that is called.
        inputs: arguments of each call, each the encoding (`plain_data`) of a list.
        collect: make a set of each output, as EvalPlus's oracle for unordered tasks does.
    """

    source: str
    entry_point: str
    inputs: tuple[Any, ...]
    collect: bool = False


class Answer(StrEnum):
    """How a call, or a program, came out."""

    VALUE = "value"
    """An output that is plain data."""
    OPAQUE = "opaque"
    """An output that is something else, and not None."""
    ERROR = "error"
    """An exception, or the process ended itself."""
    TIMEOUT = "timeout"
    LIMIT = "limit"
    """Too much memory or output."""


@dataclass(frozen=True)
class Record:
    """The answer to one call.

    Args:
        answer: how it came out.
        data: the output's encoding, for VALUE.
        value: the output itself, for VALUE.
        exact: the output's own type is the built-in one, see `plain_data.Encoded`.
        detail: for people; comes from the program.
    """

    answer: Answer
    data: Any = None
    value: Any = None
    exact: bool = True
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """The answers to a program's calls, in their order; the first one that is no output is the last one."""

    records: tuple[Record, ...]

    @property
    def failure(self) -> Record | None:
        """The record of what stopped the program, or None if every call has an output."""
        last = self.records[-1] if self.records else None
        return None if last is None or last.answer in (Answer.VALUE, Answer.OPAQUE) else last


@dataclass(frozen=True)
class OracleOutcome:
    """What a `check(candidate)` says: passed, or it failed (`trouble` None), or the program gave no output."""

    passed: bool
    trouble: Record | None = None
    detail: str = ""


class Sandbox:
    """Runs programs, one at a time. A context manager; holds warm processes from its first program on."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._zygotes: dict[str, _Zygote] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the warm processes."""
        while self._zygotes:
            self._zygotes.popitem()[1].close()

    def available(self) -> str | None:
        """Why this machine can't have this sandbox, or None."""
        try:
            self._zygote("program")
        except _Refused as error:
            return str(error)
        return None

    @property
    def memory_bound(self) -> str:
        """What bounds the memory of programs here, for people."""
        return "limits and a cgroup" if self._zygote("program").group is not None else "limits"

    def run(self, program: Program) -> Outcome:
        """Call the program's function with each input, in one fresh process; stops at the first call without output.

        Raises:
            InputError: the sandbox can't be had here, or an importable package is not installed.
            SandboxBroken: it died twice in a row.
        """
        return self._twice(lambda: self._run(program))

    def check(self, program: Program, oracle: str) -> OracleOutcome:
        """Run an oracle against the program, each in a process of its own: plain data is all that passes between them.

        Args:
            program: its inputs don't matter.
            oracle: trusted source that defines `check(candidate)`.

        Raises:
            InputError: the sandbox can't be had here, or an importable package is not installed.
            SandboxBroken: it died twice in a row.
        """
        return self._twice(lambda: self._check(program, oracle))

    def _twice(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except SandboxBroken:
            self.close()
            return work()
        except _Refused as error:
            raise unavailable(self._settings.isolation, str(error)) from None

    def _zygote(self, role: str) -> "_Zygote":
        """One for programs, one for oracles, so that a program's threads can't keep an oracle from running."""
        if role not in self._zygotes:
            self._zygotes[role] = _Zygote(self._settings)
        return self._zygotes[role]

    def _run(self, program: Program) -> Outcome:
        lines = [_line({"args": arguments, "named": {"dict": []}}) for arguments in program.inputs]
        records: list[Record] = []
        with self._zygote("program").process(self._settings.limits, self._settings.call_wall_s) as process:
            process.send(_line(asdict(self._header(program, patient=False))) + b"".join(lines), last=True)
            loaded = self._record(process)
            if loaded.answer is not Answer.VALUE:
                return Outcome((loaded,)[: len(lines)])
            while len(records) < len(lines):
                records.append(self._record(process))
                if records[-1].answer not in (Answer.VALUE, Answer.OPAQUE):
                    break
        return Outcome(tuple(records))

    def _check(self, program: Program, oracle: str) -> OracleOutcome:
        judge = Program(source=oracle, entry_point="", inputs=())
        limits = self._settings.limits
        longer = replace(limits, wall_s=limits.wall_s + _ORACLE_S)
        with (
            self._zygote("program").process(limits, self._settings.call_wall_s) as process,
            self._zygote("oracle").process(longer, call_wall_s=longer.wall_s) as judging,
        ):
            process.send(_line(asdict(self._header(program, patient=True))))
            judging.send(_line({**asdict(self._header(judge, patient=True)), "entry_point": None}))
            self._record(process)  # of loading; what went wrong is said again to each call
            while (asked := judging.read(self._settings.output_mib << 20)) is not None:
                request = plain_data.loads(asked)
                if "verdict" in request:
                    return _verdict(request["verdict"])
                process.send(_line(request["call"]))
                record = self._record(process)
                judging.send(_line(_reply(record)))
            return OracleOutcome(False, _ended(judging.report(), longer))

    def _header(self, program: Program, patient: bool) -> Header:
        settings = self._settings
        return Header(
            source=program.source,
            entry_point=program.entry_point,
            collect=program.collect,
            patient=patient,
            seed=settings.seed,
            cpu_s=settings.call_cpu_s,
            size=settings.bounds.size,
            nesting=settings.nesting,
        )

    def _record(self, process: Process) -> Record:
        """The program's next answer, or how its process ended."""
        try:
            line = process.read(self._settings.output_mib << 20)
            if line is None:
                return _ended(process.report(), self._settings.limits)
            return _parsed(plain_data.loads(line), self._settings.bounds)
        except TooMuch:
            return Record(Answer.LIMIT, detail="output")
        except plain_data.Malformed as error:
            return Record(Answer.ERROR, detail=f"malformed output ({error})")


def unavailable(isolation: Isolation, why: str) -> InputError:
    """The message for a machine that can't have the sandbox of `isolation`."""
    return InputError(
        f"generated code can't be walled in by {isolation.value} here: {why}",
        expected="Linux 5.12 or newer that allows user namespaces to this user",
        todo="Allow them (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container: "
        "--security-opt seccomp=unconfined), or choose the weaker isolation 'process' in params.yaml if you trust "
        "the code not to be malicious",
    )


# Records


def _line(value: Any) -> bytes:
    return plain_data.dumps(value).encode("ascii") + b"\n"


def _parsed(data: Any, bounds: plain_data.Bounds) -> Record:
    """A line of a program's process, which may say anything."""
    match data:
        case {"value": encoded, "exact": bool(exact)}:
            return Record(Answer.VALUE, encoded, plain_data.decode(encoded, bounds), exact)
        case {"opaque": True}:
            return Record(Answer.OPAQUE)
        case {"timeout": True}:
            return Record(Answer.TIMEOUT, detail="a call took too long")
        case {"limit": str(what)}:
            return Record(Answer.LIMIT, detail=_word(what))
        case {"error": str(name)}:
            return Record(Answer.ERROR, detail=_word(name))
    raise plain_data.Malformed("an unknown record")


def _word(text: str) -> str:
    """A name that comes from a program, for people."""
    return text if text.isascii() and text.isidentifier() and len(text) <= 100 else "an unnamed exception"


def _reply(record: Record) -> Any:
    """A record as the oracle's process reads it: rebuilt, so that nothing else of the program's words gets there."""
    if record.answer is Answer.VALUE:
        return {"value": record.data, "exact": record.exact}
    return {record.answer.value: record.detail}


def _verdict(verdict: Any) -> OracleOutcome:
    """The oracle's last word; it is trusted, and repeats `_reply` where the program gave no output."""
    if "passed" in verdict:
        return OracleOutcome(True)
    if "failed" in verdict:
        return OracleOutcome(False, detail=verdict["failed"])
    ((answer, detail),) = verdict.items()
    return OracleOutcome(False, Record(Answer(answer), detail=detail), detail)


def _ended(report: Any, limits: Limits) -> Record:
    """Why a process has ended before its last answer."""
    if report["late"] or report["cpu_s"] >= limits.wall_s:
        return Record(Answer.TIMEOUT, detail="the program took too long")
    code = report["code"]
    return Record(Answer.ERROR, detail=f"killed by signal {-code}" if code < 0 else f"exited with {code}")


# Processes


class _Refused(Exception):
    pass


class _Zygote:
    """The warm process; see `sandbox_inside`."""

    def __init__(self, settings: SandboxSettings) -> None:
        if (why := unsupported()) is not None:
            raise _Refused(why)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *_FLAGS, sandbox_inside.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_environment(settings.seed),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        limits = settings.limits
        most = (2 * (limits.memory_mib + limits.files_mib) << 20) + _WARM  # one program may end while the next begins
        self.group = memory_group.memory_group(self._process.pid, most)
        self._control = ours
        ours.settimeout(_START_S)
        try:
            ours.send(json.dumps(asdict(_zygote_settings(settings))).encode())
            ready = json.loads(ours.recv(sandbox_inside.MESSAGE) or b"{}")
        except (OSError, ValueError) as error:
            ready = {"refused": str(error)}
        if "ready" not in ready:
            self.close()
            raise _Refused(ready.get("refused", "its process ended"))

    def close(self) -> None:
        """End it and everything that it started."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.group is not None:
            memory_group.remove(self.group)

    @contextmanager
    def process(self, limits: Limits, call_wall_s: float) -> Iterator[Process]:
        """A fresh process for a program; over when the context is left."""
        calls, calling = os.pipe()
        answering, answers = os.pipe()
        report, reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = Process(calling, answering, report, limits.wall_s, call_wall_s)
        try:
            order, theirs = json.dumps(asdict(limits)).encode(), [calls, answers, reporting.fileno()]
            socket.send_fds(self._control, [order], theirs)
        except OSError as error:
            process.close()
            raise SandboxBroken(str(error)) from None
        finally:
            reporting.close()
            os.close(answers)
            os.close(calls)
        try:
            yield process
        finally:
            process.close()


# What programs see


def _environment(seed: int) -> dict[str, str]:
    return {
        "PYTHONHASHSEED": str(seed),
        "HOME": SCRATCH,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _zygote_settings(settings: SandboxSettings) -> ZygoteSettings:
    found = [path for name in settings.importable for path in _package(name)]
    isolated = settings.isolation is Isolation.NAMESPACES
    base = {"platbase": sys.base_exec_prefix}  # the interpreter's own folder, not that of a virtual environment
    libraries = sorted({Path(sysconfig.get_path(name, vars=base)).resolve() for name in ("stdlib", "platstdlib")})
    return ZygoteSettings(
        isolated=isolated,
        python=[str(_inside(_INTERPRETER)), *_FLAGS, f"{CODE}/{_CODE[0]}"],
        shown={
            **{folder: folder for folder in _FOLDERS if os.path.lexists(folder)},
            **{str(_inside(path)): str(path) for path in (_INTERPRETER, *(folder.parent for folder in libraries))},
            **{f"{PACKAGES}/{path.name}": str(path) for path in found},
            **{f"{CODE}/{name}": str(_CHECKOUT / name) for name in _CODE},
        },
        masked=[
            "/usr/lib/python3/dist-packages",
            *(str(_inside(folder / name)) for folder in libraries for name in ("site-packages", "dist-packages")),
        ],
        path=[PACKAGES] if isolated else sorted({str(path.parent) for path in found}),
        preload=[*_PRELOAD, *(path.name for path in found if (path / "__init__.py").exists())],
        seed=settings.seed,
    )


def _inside(path: Path) -> Path:
    """Where programs find a part of Python: elsewhere, unless it is the system's, as its path may name a person."""
    home = Path(sys.base_prefix).resolve()
    return path if home == Path("/usr") or not path.is_relative_to(home) else PYTHON / path.relative_to(home)


def _package(name: str) -> Sequence[Path]:
    """Files and folders of an installed package.

    Raises:
        InputError: it is not installed.
    """
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        raise InputError(f"the package {name!r} is not installed", where="importable", todo="Install it") from None
    tops = {file.parts[0]: file for file in files if file.parts[0] != ".." and not file.parts[0].endswith(".dist-info")}
    roots = [Path(str(file.locate())).resolve().parents[len(file.parts) - 1] for file in tops.values()]
    return sorted(root / top for root, top in zip(roots, tops, strict=True))
