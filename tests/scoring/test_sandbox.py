"""The sandbox does what it says for honest programs, under limits, beside others, and where it can't be had."""

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scoring import sandbox_inside
from scoring.plain_data import Bounds, encode
from scoring.sandbox import Answer, Outcome, Program, Record, Sandbox
from scoring.sandbox_kinds import Isolation
from scoring.sandbox_process import Process
from scoring.sandbox_walls import landlock_version
from softmask.errors import InputError
from tests.scoring.sandboxes import CHECK, GOOD, LIMITS, PATIENT, SECRET, SETTINGS, busy_core, within

REPOSITORY = Path(__file__).parents[2]
BURNER = """
import hashlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def burn():
    while True:
        hashlib.sha256(bytes(1 << 20)).digest()
"""
WEAK = replace(PATIENT, isolation=Isolation.PROCESS)


@pytest.fixture(scope="module", params=[PATIENT, WEAK], ids=["namespaces", "process"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def walled() -> Iterator[Sandbox]:
    with Sandbox(SETTINGS) as made:
        yield made


def program(body: str, *inputs: list[Any]) -> Program:
    return Program(f"def f(x):\n    {body}\n", "f", inputs or ([1],))


def orphans() -> set[int]:
    processes = psutil.process_iter(["cmdline", "ppid"])
    ours = [process for process in processes if sandbox_inside.__file__ in (process.info["cmdline"] or ())]
    return {process.pid for process in ours if process.info["ppid"] == 1}


def value(outcome: Outcome) -> Any:
    (record,) = outcome.records
    assert record.answer is Answer.VALUE, record
    return record.value


def test_each_input_has_an_output_in_its_order(sandbox: Sandbox) -> None:
    outcome = sandbox.run(program("return [x, x * 2]", [3], ["a"], [1.5]))
    assert [record.value for record in outcome.records] == [[3, 6], ["a", "aa"], [1.5, 3.0]]
    assert outcome.failure is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers() | st.text() | st.tuples(st.floats(allow_nan=False)) | st.sets(st.integers()), max_size=4))
def test_what_goes_in_comes_out(sandbox: Sandbox, values: list[Any]) -> None:
    data = encode([values], Bounds(10**6, 20)).data
    assert value(sandbox.run(program("return x", data))) == values


def test_no_input_is_no_output(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("def f(x):\n    return x\n", "f", ())) == Outcome(())


def test_a_failure_is_the_last_record_and_keeps_what_came_before(sandbox: Sandbox) -> None:
    outcome = sandbox.run(program("return 1 // x", [1], [0], [2]))
    assert outcome.records == (Record(Answer.VALUE, 1, 1), Record(Answer.ERROR, detail="ZeroDivisionError"))
    assert outcome.failure == outcome.records[-1]


@pytest.mark.parametrize(
    ("body", "answer", "detail"),
    [
        ("return open", Answer.OPAQUE, ""),
        ("while True: pass", Answer.TIMEOUT, "a call took too long"),
        ("import time; time.sleep(9)", Answer.TIMEOUT, "a call took too long"),
        ("return bytearray(1 << 30)", Answer.LIMIT, "memory"),
        ("return 'x' * (1 << 22)", Answer.LIMIT, "output"),
        ("import os; os._exit(7)", Answer.ERROR, "exited with 7"),
        ("import sys; sys.exit(7)", Answer.ERROR, "SystemExit"),
        ("import ctypes; ctypes.string_at(0)", Answer.ERROR, f"killed by signal {signal.SIGSEGV.value}"),
        (
            "import os, signal; [os.kill(0, n) for n in (15, 19, 9)]; signal.pause()",
            Answer.TIMEOUT,
            "a call took too long",
        ),
        ("return undefined", Answer.ERROR, "NameError"),
    ],
)
def test_how_a_program_fails_is_told(body: str, answer: Answer, detail: str, walled: Sandbox) -> None:
    assert walled.run(program(body, [1], [2])).records[0] == Record(answer, detail=detail)


def test_time_is_counted_per_call(walled: Sandbox) -> None:
    outcome = walled.run(program("import time; time.sleep(9 if x == 2 else 0.1)", [0], [1], [2]))
    assert [record.answer for record in outcome.records] == [Answer.VALUE, Answer.VALUE, Answer.TIMEOUT]
    endless = walled.run(program("import time; time.sleep(0.3)", *[[0]] * 9))
    assert endless.failure == Record(Answer.TIMEOUT, detail="the program took too long")
    assert 1 < len(endless.records) < 9


@pytest.mark.slow
def test_a_busy_machine_changes_no_verdict() -> None:
    """Beside a program that burns 15 threads, and beside other people's work, on one core."""
    limits = replace(LIMITS, wall_s=1, memory_mib=1024, threads=32)
    small = replace(SETTINGS, limits=limits, call_cpu_s=0.3, call_wall_s=0.6)
    burning = "import threading as t; [t.Thread(target=burn).start() for _ in range(14)]; burn()"
    burner = Program(BURNER + f"def f(x):\n    {burning}\n", "f", ([1],))
    computing = (
        "import time; start = time.process_time()\n    while time.process_time() < start + 0.1: pass\n    return x"
    )
    with busy_core(), Sandbox(small) as sandbox, Sandbox(small) as neighbour, ThreadPoolExecutor(1) as pool:
        assert sandbox.available() is None and neighbour.available() is None
        burnt = pool.submit(neighbour.run, burner)
        for body in (computing, "import time; time.sleep(0.3); return x"):
            assert value(sandbox.run(program(body))) == 1
        asked = "def check(candidate):\n    assert [candidate(n) for n in range(2)] == [0, 1]\n"
        assert sandbox.check(program(computing), asked).passed
        started = time.monotonic()
        asleep = sandbox.run(program("import time; time.sleep(60)"))
        assert asleep.failure == Record(Answer.TIMEOUT, detail="a call took too long")
        assert time.monotonic() - started < 50
        assert burnt.result().failure == Record(Answer.TIMEOUT, detail="the program took too long")


def test_a_program_sees_python_and_its_own_empty_folder(walled: Sandbox) -> None:
    seen = value(walled.run(program("import os; return [os.getcwd(), os.listdir('.'), sorted(os.listdir('/dev'))]")))
    assert seen == ["/scratch", [], ["null", "random", "urandom", "zero"]]
    own = value(
        walled.run(program("import os; return [os.getpid(), os.getppid(), os.getuid(), os.path.exists('/proc')]"))
    )
    assert own == [1, 0, 1000, False]
    hidden = "from importlib.util import find_spec as f; return [n for n in ('torch', 'pip', 'numpy', 'json') if f(n)]"
    assert value(walled.run(program(hidden))) == ["numpy", "json"]
    assert 0 <= value(walled.run(program("import numpy; return numpy.random.random()"))) < 1  # a part not loaded before


LIBRARY = """
def waits():
    import asyncio, concurrent.futures, select, signal, threading, time
    async def main():
        return await asyncio.gather(asyncio.sleep(0.001, 1), asyncio.to_thread(abs, -1))
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.02)
    threading.Timer(0.001, seen.append, [2]).start()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [*asyncio.run(main()), sum(pool.map(abs, [-1, -2])), seen[0]]
def files():
    import fcntl, glob, mmap, os, pathlib, shutil, sqlite3, tempfile, zipfile
    path = pathlib.Path("a")
    path.write_text("hello")
    os.utime(path, (1, 1)), os.chmod(path, 0o600), os.symlink("a", "b"), os.link("a", "c"), os.mkfifo("d")
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as room:
        fcntl.flock(file, fcntl.LOCK_EX)
        room[0:1] = b"j"
    shutil.copy2("a", "e"), os.mkdir("f"), shutil.move("e", "f/e"), shutil.copytree("f", "g"), shutil.rmtree("f")
    zipfile.ZipFile("h", "w").write("a")
    base = sqlite3.connect("i")
    base.execute("create table t(x)"), base.execute("insert into t values(1)"), base.commit()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        rows = base.execute("select x from t").fetchall()
        return [path.read_text(), rows, file.write(b"x"), sorted(glob.glob("[ag]"))]
def numbers():
    import numpy, numpy.testing
    made = numpy.random.random((200, 200))
    numpy.save("n.npy", numpy.arange(10))
    inverse = numpy.allclose(numpy.linalg.inv(made) @ made, numpy.eye(200))
    return [bool(inverse), int(numpy.load("n.npy", mmap_mode="r").sum())]
def machine():
    import datetime, os, resource, secrets, shutil, ssl, sys, uuid, zoneinfo
    shutil.get_terminal_size(), os.cpu_count(), os.sched_getaffinity(0), resource.getrusage(0), os.uname()
    resource.prlimit(0, resource.RLIMIT_NOFILE), uuid.uuid4(), secrets.token_hex()
    paris = datetime.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    return [sys.stdin.read(), sys.stdout.isatty(), str(paris)]
def f(x):
    return [waits(), files(), numbers(), machine()]
"""


def test_honest_programs_find_the_library_working(sandbox: Sandbox) -> None:
    assert value(sandbox.run(Program(LIBRARY, "f", ([1],)))) == [
        [1, 1, 3, 1],
        ["jello", [(1,)], 1, ["a", "g"]],
        [True, 45],
        ["", False, "2024-01-01 00:00:00+01:00"],
    ]


def test_no_path_tells_a_program_of_this_machine() -> None:
    source = """
import gc, os, sys, types
def f(x):
    frame, found = sys._getframe(), [sys.orig_argv, sys.argv, sys.executable, sys.prefix, sys.path, dict(os.environ)]
    while frame is not None:
        found.append([frame.f_globals, frame.f_locals])
        frame = frame.f_back
    found += [vars(module) for module in list(sys.modules.values())]
    found += [made.__code__ for made in gc.get_objects() if isinstance(made, types.FunctionType)]
    text = repr(found)
    words = [word[::-1] for word in x]
    return [word for word in words if word in text or os.path.exists(word)] or len(text) > 10 ** 5
"""
    paths = {str(REPOSITORY), sys.prefix, sys.base_prefix} - {"/usr"}
    backwards = [path[::-1] for path in sorted(paths)]  # it is asked in no words that it could find
    with Sandbox(PATIENT) as walled:
        assert value(walled.run(Program(source, "f", ([backwards],)))) is True


def test_a_plain_user_has_the_same_walls() -> None:
    code = (
        "import sys; sys.path += ['.', 'tests/scoring']\n"
        "from sandboxes import CHECK, GOOD, PATIENT\n"
        "from scoring.sandbox import Program, Sandbox\n"
        "with Sandbox(PATIENT) as made:\n"
        "    source = 'import os\\ndef f(x):\\n    return [os.getuid(), os.listdir(), os.path.exists(\"/proc\")]'\n"
        "    print(made.run(Program(source, 'f', ([1],))).records[0].value)\n"
        "    print(made.check(Program(GOOD, 'f', ()), CHECK).passed)\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[1000, [], False]\nTrue\n"


def test_files_of_one_program_are_gone_for_the_next(walled: Sandbox) -> None:
    assert value(walled.run(program("return open('left', 'w').write('x')"))) == 1
    assert value(walled.run(program("import os; return os.listdir('.')"))) == []


def test_what_a_program_writes_is_bounded(walled: Sandbox) -> None:
    body = "\n    ".join(
        [
            "import os",
            "for number in range(1000):",
            "    try:",
            "        open(str(number), 'wb').write(bytes(1 << 18))",
            "    except OSError:",
            "        pass",
            "return [sum(os.path.getsize(name) for name in os.listdir('.')), len(os.listdir('.'))]",
        ]
    )
    size, files = value(walled.run(program(body)))
    assert size == LIMITS.files_mib << 20 and files < LIMITS.files


def test_the_same_program_gives_the_same_outputs(sandbox: Sandbox) -> None:
    lucky = program(
        "import random, numpy as n; return [random.random(), hash('x'), n.random.random(), list({'a', 'b'})]"
    )
    first = value(sandbox.run(lucky))
    with Sandbox(PATIENT) as another:
        assert value(another.run(lucky)) == first
    with Sandbox(replace(PATIENT, seed=1)) as different:
        assert value(different.run(lucky))[:3] != first[:3]


def test_only_packages_that_are_named_can_be_imported() -> None:
    with Sandbox(replace(SETTINGS, importable=())) as bare:
        assert bare.run(program("import numpy")).failure == Record(Answer.ERROR, detail="ModuleNotFoundError")
    with (
        Sandbox(replace(SETTINGS, importable=("no-such-package",))) as wrong,
        pytest.raises(InputError, match="no-such-package"),
    ):
        wrong.run(program("return x"))


def test_sandboxes_work_beside_each_other() -> None:
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        with Sandbox(SETTINGS) as own:
            results[number] = [value(own.run(program("return x + 1", [number + n]))) for n in range(10)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number + n + 1 for n in range(10)] for number in range(4)}


def test_a_sandbox_whose_processes_were_killed_starts_again() -> None:
    before = psutil.Process().children(recursive=True)
    with Sandbox(SETTINGS) as made:
        assert value(made.run(program("return 1"))) == 1
        started = [child for child in psutil.Process().children(recursive=True) if child not in before]
        started[1].kill()  # the first process of the namespace: the others end with it
        assert within(5, lambda: all(not child.is_running() or child.status() == "zombie" for child in started))
        assert value(made.run(program("return 2"))) == 2
        assert made.check(Program(GOOD, "f", ()), CHECK).passed


def test_the_weak_sandbox_leaves_no_file_and_no_process() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Sandbox(WEAK) as weak:
        folder = value(weak.run(program("import os; open('x', 'w').write('x'); return os.getcwd()")))
        assert within(1, lambda: not Path(folder).exists())
        for body in ("import os; os.fork()", "import socket; socket.socket()", "import os; os.kill(os.getppid(), 9)"):
            assert weak.run(program(body)).failure == Record(Answer.ERROR, detail="PermissionError")
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_the_weak_sandbox_reaches_no_socket_and_no_other_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, Sandbox(WEAK) as weak:
        listening.bind(f"\0{tmp_path}")
        listening.setblocking(False)
        for body in (
            "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', name)",
            "socket.socketpair()[0].sendto(b'x', name)",
            "socket.socketpair()[0].connect(name)",
            "socket.socketpair()[0].sendmsg([b'x'], [], 0, name)",
            "fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())",
            "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
            "os.setpriority(os.PRIO_USER, 0, 19)",
            "os.sched_setaffinity(os.getppid(), {0})",
            "fcntl.ioctl(0, 0x5412, b'x')",
        ):
            imports = f"import fcntl, os, resource, socket; name = chr(0) + {str(tmp_path)!r}; "
            assert weak.run(program(imports + body)).failure == Record(Answer.ERROR, detail="PermissionError"), body
        with pytest.raises(BlockingIOError):
            listening.recv(1)


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_the_weak_sandbox_keeps_to_its_folder_where_the_kernel_has_landlock(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with Sandbox(WEAK) as weak:
        for body in (
            f"return open({str(secret)!r}).read()",
            f"open({str(tmp_path / 'new')!r}, 'w')",
            f"os.unlink({str(secret)!r})",
            f"os.truncate({str(secret)!r}, 0)",
            f"open('x', 'w'); os.rename('x', {str(secret)!r})",
            "return open('/proc/self/environ').read()",
            f"return os.listdir({str(REPOSITORY)!r})",
        ):
            failure = weak.run(program(f"import os; {body}")).failure
            assert failure == Record(Answer.ERROR, detail="PermissionError"), body
    assert [path.read_text() for path in tmp_path.iterdir()] == ["secret"]


def test_without_user_namespaces_the_message_says_what_to_do_and_nothing_is_left() -> None:
    before = orphans()
    code = (
        "import sys; sys.path += ['.', 'tests/scoring']\n"
        "from sandboxes import PATIENT\n"
        "from scoring.sandbox import Program, Sandbox\n"
        "from softmask.errors import InputError\n"
        "try:\n    Sandbox(PATIENT).run(Program('', 'f', ()))\n"
        "except InputError as error:\n    print(error)\n"
    )
    forbid = f'echo 0 > /proc/sys/user/max_user_namespaces && exec "{sys.executable}" -c "$0"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, code],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "can't be walled in by namespaces here: unshare(CLONE_NEWUSER)" in done.stdout
    assert "choose the weaker isolation 'process'" in done.stdout
    assert within(2, lambda: orphans() <= before)


def test_an_unknown_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with Sandbox(SETTINGS) as made:
        assert "riscv64" in str(made.available())
        with pytest.raises(InputError, match="riscv64"):
            made.run(program("return x"))


def test_a_hanging_problem_changes_no_other_s_verdict(walled: Sandbox) -> None:
    alone = walled.run(Program(GOOD, "f", tuple(SECRET.base_input)))
    for body in ("while True: pass", "import os; os._exit(0)", "return x"):
        walled.run(program(body))
        assert walled.run(Program(GOOD, "f", tuple(SECRET.base_input))) == alone


def test_a_program_that_has_ended_is_not_late_however_long_its_keeper_takes_to_say_so() -> None:
    """Its number is gone by then: what the clock reads instead is the judge's own time."""
    while time.process_time() < 0.3:
        pass
    (calls, calling), (answering, answers) = os.pipe(), os.pipe()
    report, reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(["true"]) as ended:
        socket.send_fds(reporting, [b"started"], [os.pidfd_open(ended.pid)])
    process = Process(calling, answering, report, wall_s=0.2, call_wall_s=9)
    saying = threading.Timer(0.5, reporting.send, [b'{"code": 7, "cpu_s": 0.1}'])
    saying.start()
    assert process.report() == {"late": False, "code": 7, "cpu_s": 0.1}
    process.close()
    for descriptor in (calls, answers):
        os.close(descriptor)
    reporting.close()
