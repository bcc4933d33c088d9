"""What the flow `reproduce` adds to plain `dvc repro`, and what two workers save: a real server, workers and stages.

In clones of the last commit, under a temporary folder; a few minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.hydra import compose_and_dump
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from benchmarks.table import Cost, Measured
from pipelines.serve import HOST, environment, serving

PORT = 4299
LIMITS = {"cpu": 2, "memory": 8, "gpu": 0}
STAGES = 12
CHAIN = {
    f"s{number}": {"cmd": f"echo {number} > {number}.txt", "deps": [f"{number - 1}.txt"], "outs": [f"{number}.txt"]}
    for number in range(1, STAGES + 1)
}
"""Stages without work, one after another: all that they take is what running them costs."""
ASKED = {"default": {"cpu": 1, "gpu": 0, "memory": 1}, "stages": {}, "retries": 0, "retry_seconds": 1}
ARMS = ("arm@binary-1", "arm@sm_iso_update-1")
SIZES = {"smoke": (), "400 steps": ("arms.training.steps=400", "arms.training.save_every=200")}


def measure() -> list[Measured]:
    """All comparisons."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = _clone(folder / "server")
        home = environment(server, PORT)
        settings = {PREFECT_API_URL: f"http://{HOST}:{PORT}/api", PREFECT_HOME: home["PREFECT_HOME"]}
        with serving(server, PORT, 2, 1, LIMITS), temporary_settings(settings):
            rows = _chain(folder)
            for size, overrides in SIZES.items():
                rows.append(_arms(folder / size, size, overrides))
    return rows


def _chain(folder: Path) -> list[Measured]:
    """Per stage, and where nothing has to run."""
    plain, flow = folder / "plain", folder / "flow"
    for root in (plain, flow):
        root.mkdir()
        (root / "0.txt").write_text("0\n")
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": CHAIN}))
        (root / "params.yaml").write_text(yaml.safe_dump({"orchestration": ASKED}))
        _run(root, "git", "init", "--quiet")
        _run(root, "dvc", "init", "--quiet")
    cold = [_seconds(lambda: _run(plain, "dvc", "repro")), _seconds(lambda: _flow(flow))]
    warm = [_seconds(lambda: _run(plain, "dvc", "repro")), _seconds(lambda: _flow(flow))]
    how = f"{STAGES} stages without work, one after another"
    return [
        Measured(
            "added by the flow, a stage that runs",
            Cost((cold[1] - cold[0]) / STAGES),
            "a second",
            Cost(1.0),
            1.0,
            _note(how, cold),
        ),
        Measured("added by the flow, nothing to do", Cost(warm[1] - warm[0]), note=_note(how, warm)),
    ]


def _arms(folder: Path, size: str, overrides: tuple[str, ...]) -> Measured:
    """Two arms on two workers against one after the other."""
    folder.mkdir()
    serial, parallel = _clone(folder / "serial", *overrides), folder / "parallel"
    _run(serial, "dvc", "repro", "base")
    shutil.copytree(serial, parallel, symlinks=True)
    one = _seconds(lambda: _run(serial, "dvc", "repro", *ARMS))
    two = _seconds(lambda: _flow(parallel, *ARMS))
    return Measured(f"two arms ({size}), two workers", Cost(two), "dvc repro", Cost(one), 0.65, "one thread each")


def _note(how: str, times: list[float]) -> str:
    return f"{how}; dvc repro {times[0]:.1f} s, flow {times[1]:.1f} s"


def _clone(root: Path, *overrides: str) -> Path:
    """A clone of the last commit with the smoke profile."""
    _run(Path.cwd(), "git", "clone", "--quiet", str(Path.cwd()), str(root))
    changes = ["profile=smoke", *overrides]
    compose_and_dump(str(root / "params.yaml"), str(root / "conf"), None, "config", "hydra_plugins", changes)
    return root


def _run(root: Path, *command: str) -> None:
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=root, env={**os.environ, "PATH": tools}, check=True, stdout=subprocess.DEVNULL)


def _seconds(task: Callable[[], object]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def _flow(root: Path, *targets: str) -> None:
    parameters = {"targets": list(targets), "workspace": str(root)}
    run: Any = run_deployment("reproduce/local", parameters=parameters, poll_interval=0.1)
    assert run.state.is_completed(), run.state
