"""`make serve`: one in a checkout, on a port of its own; it keeps its workers at work and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.resources import limit
from pipelines.serve import HOST, QUICK_ENDS, START_SECONDS, Kept, server
from pipelines.setup import of_machine
from softmask.errors import Unavailable
from tests.pipelines.conftest import LIMITS, checkout, free_port
from tests.pipelines.projects import Project, until
from tests.pipelines.test_reproduce import timed


class Served:
    """`python -m pipelines.serve` at work in a checkout, with one worker for stages."""

    def __init__(self, root: Path, port: int) -> None:
        self.output = root.with_name(f"{root.name}.{port}.output")
        command = [sys.executable, "-m", "pipelines.serve", "--port", str(port), "--workers", "1"]
        with self.output.open("w", encoding="utf-8") as file:
            self.process = psutil.Popen(
                command,
                cwd=root,
                stdout=file,
                stderr=subprocess.STDOUT,
                # as a terminal's: a background job's children ignore Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def said(self) -> str:
        """All of its output so far."""
        return self.output.read_text(encoding="utf-8")

    def child(self, *words: str) -> psutil.Process:
        """What it has started with these words in the command line."""
        (found,) = (child for child in self.process.children() if set(words) <= set(child.cmdline()))
        return found

    def end(self) -> str:
        """Its last line and exit code, when it has ended with all that it started."""
        family = self.process.children(recursive=True)
        code = self.process.wait(timeout=100)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive
        return f"{code}: {self.said().splitlines()[-1]}"


@contextmanager
def serve(root: Path, port: int) -> Iterator[Served]:
    """One of them, until the block ends."""
    served = Served(root, port)
    try:
        yield served
    finally:
        if served.process.is_running():
            for process in [*served.process.children(recursive=True), served.process]:
                process.kill()
            served.process.wait()


def test_a_port_that_has_a_listener_is_refused_with_its_name(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable) as caught, server(tmp_path, port, {}):
            pass
    taken = f"{HOST}:{port}: no server can listen there: Address already in use"
    assert str(caught.value).startswith(f"{taken}, by process {psutil.Process().pid} in {Path.cwd()} (")


def test_a_worker_that_ends_again_and_again_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept("cpu", lambda: subprocess.Popen(["false"]))
    with pytest.raises(Unavailable, match="of the pool cpu has ended with exit code 1, as the 2 before it"):
        until(kept.look, "the end")
    assert capsys.readouterr().err.count("another one is started") == QUICK_ENDS - 1


USE_IT = "Use it, or stop it with Ctrl-C"


@pytest.mark.slow
def test_it_serves_alone_keeps_its_workers_and_ends_with_its_server(tmp_path: Path, code_for_all: None) -> None:
    home, other, port = checkout(tmp_path / "home"), checkout(tmp_path / "other"), free_port()
    with serve(home, port) as served:
        until(lambda: "ready: " in served.said(), "the server", limit=START_SECONDS)
        with serve(home, free_port()) as second, serve(other, port) as third:
            assert second.end() == f"75: error: {home}: a server at port {port} is at work here. {USE_IT}"
            listener = f"by process {served.child('server').pid} in {home} ("
            assert listener in (end := third.end()) and end.startswith(f"75: error: {HOST}:{port}: ")
        worker = served.child("worker", "cpu")
        worker.kill()
        until(lambda: f"worker {worker.pid} of the pool cpu has ended with exit code -9" in served.said(), "the line")
        assert psutil.STATUS_ZOMBIE not in [child.status() for child in served.process.children()]
        project = Project.of(tmp_path / "project", {"one": timed("one", 0, [])})
        with temporary_settings({PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: home / ".prefect"}):
            assert project.reproduce().is_completed()
        served.child("server").kill()
        assert served.end() == "75: error: the server has ended with exit code -9, and the workers with it"


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_what_a_person_has_set_stays_when_it_is_set_up_again(tmp_path: Path) -> None:
    url, ten = str(PREFECT_API_URL.value()), IntervalSchedule(interval=timedelta(minutes=10))
    env = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(PREFECT_HOME.value())}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/nightly")
        (nightly,) = deployment.schedules
        client.update_deployment_schedule(deployment.id, nightly.id, active=False)
        client.create_deployment_schedules(deployment.id, [DeploymentScheduleCreate(schedule=ten)])
        root, command = checkout(tmp_path / "other"), [sys.executable, "-m", "pipelines.setup", "--memory", "9"]
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        machine = of_machine()
        for name in ("cpu", "gpu"):
            line = f"the limit of {name} stays {LIMITS[name]}, as it was set; this machine has {machine[name]}"
            assert (line in done.stdout) == (machine[name] != LIMITS[name])
        assert [limit(client, name) for name in LIMITS] == [LIMITS["cpu"], 9, LIMITS["gpu"]]
        schedules = client.read_deployment_schedules(deployment.id)
        assert {(type(each.schedule).__name__, each.active) for each in schedules} == {
            ("CronSchedule", False),
            ("IntervalSchedule", True),
        }
        for each in schedules:
            client.update_deployment_schedule(deployment.id, each.id, active=True)
            if each.schedule == ten:
                client.delete_deployment_schedule(deployment.id, each.id)
        client.upsert_global_concurrency_limit_by_name("memory", LIMITS["memory"])
