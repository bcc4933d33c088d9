"""What the flow `reproduce` adds to plain `dvc repro`, and what two workers save: a real server, workers and stages.

In fresh clones under a temporary folder; a few minutes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from benchmarks.table import Measured
from pipelines.serve import HOST, serving
from tests.pipeline.clones import ROOT, Clone, snapshot
from tests.pipelines.conftest import LIMITS, free_port
from tests.pipelines.projects import Project

STAGES = 12
CHAIN = {
    f"s{number}": {"cmd": f"echo {number} > {number}.txt", "deps": [f"{number - 1}.txt"], "outs": [f"{number}.txt"]}
    for number in range(1, STAGES + 1)
}
"""Stages without work, one after another: all that they take is what running them costs."""
ARMS = ("arm@binary-1", "arm@sm_iso_update-1")
SHORT, LONGER = (), ("arms.training.steps=200", "arms.training.save_every=100")


def measure() -> list[Measured]:
    """All comparisons."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "dvc"))
        patch.setenv("PYTHONPATH", str(ROOT))
        port = free_port()
        settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: ROOT / ".prefect"}
        (folder / "origin").mkdir()
        origin = snapshot(folder / "origin")
        server = Clone.of(origin, folder / "server")
        with serving(server.root, port, 2, 1, {**LIMITS, "gpu": 0}), temporary_settings(settings):
            rows = _chain(folder)
            for size, overrides in (("smoke", SHORT), ("200 steps", LONGER)):
                rows.append(_arms(origin, folder / size.replace(" ", "-"), size, overrides))
    return rows


def _seconds(task: Callable[[], object]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def _flow(project: Project, *targets: str) -> None:
    state = project.start(targets).end(limit=900)
    assert state.is_completed(), state


def _chain(folder: Path) -> list[Measured]:
    """Per stage, and where nothing has to run."""
    plain, flow = (Project.of(folder / name, CHAIN) for name in ("plain", "flow"))
    for project in (plain, flow):
        (project.root / "0.txt").write_text("0\n")
    cold = [_seconds(lambda: plain.run("dvc", "repro")), _seconds(lambda: _flow(flow))]
    warm = [_seconds(lambda: plain.run("dvc", "repro")), _seconds(lambda: _flow(flow))]
    note = f"{STAGES} stages without work, one after another; flow {{1:.1f}} s, dvc repro {{0:.1f}} s"
    return [
        Measured("added by the flow, a stage that runs", (cold[1] - cold[0]) / STAGES, "s", "< 1", note.format(*cold)),
        Measured("added by the flow, nothing to do", warm[1] - warm[0], "s", "", note.format(*warm)),
    ]


def _arms(origin: Path, folder: Path, size: str, overrides: tuple[str, ...]) -> Measured:
    """Two arms on two workers against one after the other."""
    folder.mkdir()
    serial = Clone.of(origin, folder / "serial", *overrides)
    serial.repro("base")
    parallel = serial.copy(folder / "parallel")
    alone = _seconds(lambda: serial.repro(*ARMS))
    together = _seconds(lambda: _flow(Project(parallel.root), *ARMS))
    note = f"one thread each; flow {together:.1f} s, dvc repro {alone:.1f} s"
    return Measured(f"two arms ({size}), two workers / serial", together / alone, "x", "<= 0.65", note)
