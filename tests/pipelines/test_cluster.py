"""The templates for clusters: the Kubernetes pool is in order, and the Slurm worker ends before its time limit."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.serve import environment, serving, worker
from runner.imported import PACKAGES
from tests.pipelines.conftest import LIMITS, ROOT, free_port
from tests.pipelines.projects import Project
from tests.pipelines.test_reproduce import GATE, begun

TEMPLATE: Any = json.loads((ROOT / "pipelines/cluster/kubernetes.json").read_text())
CONFIGURATION, VARIABLES = TEMPLATE["job_configuration"], TEMPLATE["variables"]["properties"]
POD: Any = CONFIGURATION["job_manifest"]["spec"]["template"]["spec"]
SCRIPT = str(ROOT / "pipelines/cluster/worker.slurm")
JOB = "4711"


def test_the_pod_uses_every_variable_and_no_other() -> None:
    assert set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(CONFIGURATION))) == set(VARIABLES)


def test_a_pod_runs_one_flow_run_once() -> None:
    (container,) = POD["containers"]
    assert container["args"] == CONFIGURATION["command"] == "{{ command }}"
    assert VARIABLES["command"]["default"] == "python -m prefect.engine"
    assert (CONFIGURATION["job_manifest"]["spec"]["backoffLimit"], POD["restartPolicy"]) == (0, "Never")


def test_a_pod_has_time_to_save_and_no_privileges_and_its_loss_is_noticed() -> None:
    (container,) = POD["containers"]
    assert POD["terminationGracePeriodSeconds"] == 60
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert VARIABLES["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def in_slurm(root: Path, **variables: str) -> dict[str, str]:
    """The environment of a job that was submitted from `root`."""
    mine = {"SLURM_SUBMIT_DIR": str(root), "SLURM_JOB_ID": JOB, "VENV": sys.prefix, "PREFECT_API_URL": "nowhere"}
    return {**os.environ, **mine, **variables}


def of_job() -> list[psutil.Process]:
    """The processes of the job, the batch shell included."""
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get("SLURM_JOB_ID") == JOB]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "start it with sbatch"),
        ({"PREFECT_API_URL": ""}, "PREFECT_API_URL is not set"),
        ({}, "is no clone of the repository"),
        ({"SLURM_SUBMIT_DIR": str(ROOT), "VENV": "/nowhere"}, "/nowhere has no Prefect"),
    ],
)
def test_what_the_worker_lacks_is_named(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    env = in_slurm(tmp_path, **variables)
    done = subprocess.run(["bash", SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert message in done.stderr


Second = Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]]


@pytest.fixture
def allocation(tmp_path: Path, code_for_all: None) -> Iterator[tuple["subprocess.Popen[bytes]", Second]]:
    """The script at work for the pool `cpu` of a server that has no other worker there, and how to start one."""
    root = tmp_path / "server"
    root.mkdir()
    for name in ("prefect.yaml", "pipelines", "commands", *PACKAGES):
        (root / name).symlink_to(ROOT / name)
    port = free_port()
    env = environment(root, port)
    api, home = env["PREFECT_API_URL"], env["PREFECT_HOME"]
    with serving(root, port, 0, 1, {**LIMITS, "gpu": 0}):
        variables = in_slurm(root, POOL="cpu", PREFECT_API_URL=api, PREFECT_HOME=home)
        started = subprocess.Popen(["bash", SCRIPT], cwd=root, env=variables)
        try:
            with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: Path(home)}):
                yield started, lambda: worker("cpu", root, env)
        finally:
            for process in of_job():
                process.kill()
            started.wait()


@pytest.mark.slow
def test_before_the_time_limit_the_stage_is_interrupted_and_another_worker_finishes(
    allocation: tuple["subprocess.Popen[bytes]", Second], tmp_path: Path
) -> None:
    started, second = allocation
    project = Project.of(tmp_path / "project", {"gate": GATE})
    flow = project.start()
    begun(project, flow)
    assert len(of_job()) >= 4  # the shell, its worker, the run, the stage
    started.send_signal(signal.SIGTERM)  # to the batch shell alone, as --signal=B:TERM@180 has it
    assert started.wait(timeout=60) == 0
    assert of_job() == []
    assert "Crashed" in {run.state_name for run in project.runs()}
    (project.root / "go").touch()
    with second():
        assert flow.end().is_completed()
    assert sorted(str(run.state_name) for run in project.runs()) == ["Completed", "Crashed"]
    project.run("dvc", "status", "--quiet")
