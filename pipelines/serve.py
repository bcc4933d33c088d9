"""A local Prefect server with workers and the project's deployments, on loopback only, until Ctrl-C.

    python -m pipelines.serve [--port N] [--workers N] [--gpus-per-worker N]

Its database and settings lie in `.prefect/` of the checkout. Nothing here is needed where a server and workers run
already: `prefect deploy --all` and `prefect worker start --pool POOL` do there.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated
from urllib.error import URLError

import psutil
import typer

from pipelines.setup import of_machine
from softmask.errors import InputError
from stages.component import run_command
from stages.parent import die_with_parent

HOST = "127.0.0.1"
HOME = ".prefect"
START_SECONDS = 120.0
"""For the server: it makes its database at the first start, perhaps on a busy machine."""
STOP_SECONDS = 30.0
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
def serving(root: Path, port: int, workers: int, gpus_per_worker: int, limits: Mapping[str, int]) -> Iterator[None]:
    """Server, deployments and workers, until the block ends.

    Args:
        root: the checkout that the workers work in.
        port: of the server.
        workers: how many for stages without a GPU.
        gpus_per_worker: how many GPUs each of the others sees.
        limits: how much stages may occupy at the same time.
    """
    env = environment(root, port)
    with ExitStack() as stack:
        stack.enter_context(server(root, port, env))
        _set_up(root, env, limits)
        for pool in ("flows", *["cpu"] * workers):
            stack.enter_context(worker(pool, root, env))
        for first in range(0, limits["gpu"], gpus_per_worker):
            devices = ",".join(map(str, range(first, first + gpus_per_worker)))
            stack.enter_context(worker("gpu", root, {**env, "CUDA_VISIBLE_DEVICES": devices}, "--limit", "1"))
        yield


@contextmanager
def server(root: Path, port: int, env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that answers, until the block ends.

    Raises:
        InputError: it doesn't answer in time.
    """
    with _process([*_PREFECT, "server", "start", "--host", HOST, "--port", str(port)], root, env) as process:
        _wait_for(port)
        yield process


@contextmanager
def worker(pool: str, root: Path, env: Mapping[str, str], *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of a pool, in the checkout `root`, until the block ends."""
    command = [sys.executable, "-m", "pipelines.warm", "worker", "start", "--pool", pool, *options]
    with _process(command, root, env) as process:
        try:
            yield process
        finally:
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
def _process(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that ends with this one, and gently with the block."""
    me = os.getpid()
    started = subprocess.Popen(command, cwd=cwd, env=env, preexec_fn=lambda: die_with_parent(me))
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        try:
            started.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise InputError(f"the server did not answer within {START_SECONDS:.0f} seconds", where=f"{HOST}:{port}")


def _set_up(root: Path, env: Mapping[str, str], limits: Mapping[str, int]) -> None:
    options = [part for name, limit in limits.items() for part in (f"--{name}", str(limit))]
    if subprocess.run([sys.executable, "-m", "pipelines.setup", *options], cwd=root, env=env, check=False).returncode:
        raise InputError("the deployments can't be made; the reason is above", where=str(root))


def main(
    port: Annotated[int, typer.Option(help="Of the server and its page")] = 4200,
    workers: Annotated[int, typer.Option(min=1, help="Workers for stages without a GPU")] = 2,
    gpus_per_worker: Annotated[int, typer.Option(min=1, help="GPUs that each worker for GPU stages has")] = 1,
) -> None:
    """The command line."""
    with serving(Path.cwd(), port, workers, gpus_per_worker, of_machine()):
        typer.secho(f"ready: http://{HOST}:{port}", fg="green")
        typer.echo(
            f"  export PREFECT_API_URL=http://{HOST}:{port}/api   # for the prefect command, in another terminal"
        )
        typer.echo("  prefect deployment run reproduce/local            # run the pipeline")
        typer.echo("  prefect deployment run retrain/nightly            # train on new documents; else at 3:00 UTC")
        typer.echo("Ctrl-C stops server and workers; stages that run are interrupted and go on the next time")
        signal.pause()


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
