"""A local Prefect server with workers and the project's deployments, on loopback only, until Ctrl-C.

    python -m pipelines.serve [--port N] [--workers N] [--gpus-per-worker N]

Its database and settings lie in `.prefect/` of the checkout. Nothing here is needed where a server and workers run
already: `prefect deploy --all` and `prefect worker start --pool POOL` do there.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer

from pipelines.alone import alone
from pipelines.setup import of_machine
from runner.parent import die_with_parent
from runner.stage import run_command
from softmask.errors import InputError, Unavailable

HOST = "127.0.0.1"
HOME = ".prefect"
START_SECONDS = 300.0
"""For the server: it makes its database at the first start, perhaps on a busy machine."""
STOP_SECONDS = 30.0
WATCH_SECONDS = 1.0
QUICK_SECONDS = 60.0
"""A worker that ends sooner is likely to end again."""
QUICK_ENDS = 3
"""In a row, after which no other worker is started in its place."""
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_COLORS": "false",
    # leases of occupied slots outlive a restart of the server
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # whoever waits for a slot looks again soon: stages are short on a laptop
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "5",
    # so that `prefect deployment run ... --watch` shows a flow's log, and in it why it failed
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
}


def environment(root: Path, port: int) -> dict[str, str]:
    """What server, workers and command line need to find one another."""
    tools, home = str(Path(sys.executable).parent), root / HOME
    path = os.environ.get("PATH", os.defpath)
    own = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        # One connection, which is what Prefect keeps for a URL with ":memory:" in it, wherever that stands. Of several,
        # one that reads and then writes fails when another has written meanwhile (SQLite), and Prefect's clients try
        # again after two seconds (measured: most stages waited so long, some of them twice).
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///file:{home}/prefect.db?uri=true&pool=:memory:",
        "PATH": path if path.split(os.pathsep)[0] == tools else f"{tools}{os.pathsep}{path}",
    }
    return {**os.environ, **SETTINGS, **own}


@contextmanager
def serving(
    root: Path, port: int, workers: int, gpus_per_worker: int, limits: Mapping[str, int] | None = None
) -> Iterator[Callable[[], NoReturn]]:
    """Server, deployments and workers, until the block ends; what to call to keep the workers at work.

    Args:
        root: the checkout that the workers work in.
        port: of the server.
        workers: how many for stages without a GPU.
        gpus_per_worker: how many GPUs each of the others sees.
        limits: how much stages may occupy at the same time. None: what a person has set, or else what this machine has.

    Raises:
        Unavailable: something is served from this checkout already, or from `server`.
        InputError: the deployments can't be made.
    """
    env = environment(root, port)
    with ExitStack() as stack:
        lock = root / HOME / "serve.lock"
        stack.enter_context(alone(lock, f"a server at port {port}", "Use it, or stop it with Ctrl-C"))
        served = stack.enter_context(server(root, port, env))
        _set_up(root, env, limits or {})
        gpus = (limits or of_machine())["gpu"]

        def kept(pool: str, env: Mapping[str, str], *options: str) -> Kept:
            # not what needs clones: this one is the coordinator's
            return Kept(pool, lambda: stack.enter_context(worker(pool, root, env, "--work-queue", "default", *options)))

        at_work = [kept(pool, env) for pool in ("flows", *["cpu"] * workers)]
        for first in range(0, gpus, gpus_per_worker):
            devices = ",".join(map(str, range(first, first + gpus_per_worker)))
            at_work.append(kept("gpu", {**env, "CUDA_VISIBLE_DEVICES": devices}, "--limit", "1"))
        yield partial(_watch, served, at_work)


class Kept:
    """A worker that is followed by another one when it ends.

    Args:
        pool: the worker's.
        start: starts one.
    """

    def __init__(self, pool: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self._pool, self._start, self._quick_ends = pool, start, 0
        self._begin()

    def _begin(self) -> None:
        self._worker, self._since = self._start(), time.monotonic()

    def look(self) -> None:
        """Start another one if it has ended.

        Raises:
            Unavailable: it ends again and again.
        """
        if (code := self._worker.poll()) is None:
            return
        ended = f"worker {self._worker.pid} of the pool {self._pool} has ended with exit code {code}"
        self._quick_ends = self._quick_ends + 1 if time.monotonic() - self._since < QUICK_SECONDS else 0
        if self._quick_ends == QUICK_ENDS:
            raise Unavailable(f"{ended}, as the {QUICK_ENDS - 1} before it, soon after its start; its message is above")
        typer.secho(f"{ended}: another one is started", fg="yellow", err=True)
        self._begin()


def _watch(served: "subprocess.Popen[bytes]", workers: Sequence[Kept]) -> NoReturn:
    """Keep workers at work as long as there is a server.

    Raises:
        Unavailable: the server has ended, or a worker does again and again.
    """
    while (code := served.poll()) is None:
        for each in workers:
            each.look()
        time.sleep(WATCH_SECONDS)
    raise Unavailable(f"the server has ended with exit code {code}, and the workers with it")


@contextmanager
def server(root: Path, port: int, env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that answers, until the block ends.

    Raises:
        Unavailable: somebody else has the port, or the server ends, or doesn't answer in time.
    """
    _check_free(port)
    with started([*_PREFECT, "server", "start", "--host", HOST, "--port", str(port)], root, env) as process:
        await_answer(process, port)
        yield process


@contextmanager
def worker(pool: str, root: Path, env: Mapping[str, str], *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of a pool, in the checkout `root`, until the block ends."""
    command = [sys.executable, "-m", "pipelines.warm", "worker", "start", "--pool", pool, *options]
    with started(command, root, env) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # else its number may be another's by now
                _interrupt_runs(process.pid)


def _interrupt_runs(worker: int) -> None:
    """Let a worker's runs keep their work, report themselves crashed, and end: told to stop, the worker kills them."""
    try:  # they are children of its fork server
        runs = [run for child in psutil.Process(worker).children() for run in child.children()]
    except psutil.NoSuchProcess:
        return
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.terminate()
    psutil.wait_procs(runs, timeout=STOP_SECONDS)


_PREFECT = (sys.executable, "-m", "prefect")


@contextmanager
def started(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with this one, and gently with the block."""
    me = os.getpid()
    begun = subprocess.Popen(command, cwd=cwd, env=env, preexec_fn=lambda: die_with_parent(me))
    try:
        yield begun
    finally:
        begun.send_signal(signal.SIGINT)
        try:
            begun.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            begun.kill()
            begun.wait()


def _check_free(port: int) -> None:
    """See that a server can listen there.

    Raises:
        Unavailable: it can't.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: ended connections don't count
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Unavailable(
                f"no server can listen there: {error.strerror}{_listener(port)}",
                where=f"{HOST}:{port}",
                todo="Stop what does, or take another port: make serve PORT=N",
            ) from None


def _listener(port: int) -> str:
    """Who listens there, as far as it may be seen."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if _is_listener(connection, port) and connection.pid is not None:
                process = psutil.Process(connection.pid)
                return f", by process {process.pid} in {process.cwd()} ({' '.join(process.cmdline())})"
    return ""


def _is_listener(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port)


def await_answer(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until this very process listens, which a server does when it can answer.

    Raises:
        Unavailable: it has ended, or doesn't in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise Unavailable(f"the server has ended with exit code {code}; its message is above")
        with suppress(psutil.Error):
            if any(_is_listener(each, port) for each in psutil.Process(process.pid).net_connections("tcp")):
                return
        time.sleep(0.2)
    raise Unavailable(f"the server did not answer within {START_SECONDS:.0f} seconds", where=f"{HOST}:{port}")


def _set_up(root: Path, env: Mapping[str, str], limits: Mapping[str, int]) -> None:
    options = [part for name, limit in limits.items() for part in (f"--{name}", str(limit))]
    if subprocess.run([sys.executable, "-m", "pipelines.setup", *options], cwd=root, env=env, check=False).returncode:
        raise InputError("the deployments can't be made; the reason is above", where=str(root))


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the server and its page")] = 4200,
    workers: Annotated[int, typer.Option(min=0, help="Workers for stages without a GPU")] = 2,
    gpus_per_worker: Annotated[int, typer.Option(min=1, help="GPUs that each worker for GPU stages has")] = 1,
) -> None:
    """The command line."""
    with serving(Path.cwd(), port, workers, gpus_per_worker) as keep_at_work:
        typer.secho(f"ready: http://{HOST}:{port}", fg="green")
        typer.echo(
            f"  export PREFECT_API_URL=http://{HOST}:{port}/api   # for the prefect command, in another terminal"
        )
        typer.echo("  prefect deployment run reproduce/local            # run the pipeline")
        typer.echo("  prefect deployment run retrain/nightly            # train on new documents; else at 3:00 UTC")
        typer.echo("Ctrl-C stops server and workers; stages that run are interrupted and go on the next time")
        keep_at_work()


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
