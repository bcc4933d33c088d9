"""Workers with clones of their own: every stage runs once, somewhere, and the coordinator computes nothing."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.serve import HOST, environment, serving, worker
from tests.pipelines.conftest import LIMITS, ROOT, free_port
from tests.pipelines.projects import Project
from tests.pipelines.test_reproduce import DIAMOND

pytestmark = pytest.mark.slow


FED = {"fed": {"cmd": "cat data > fed.txt", "deps": ["data"], "outs": ["fed.txt"]}}
"""A stage of what was added to DVC and no stage makes."""


def add_data(project: Project) -> None:
    """Have DVC track `data`."""
    (project.root / "data").write_text("collected\n")
    project.run("dvc", "add", "--quiet", "data")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory, code_for_all: None) -> Iterator[Project]:
    """The coordinator's clone; two workers have theirs in `a` and `b` beside it."""
    tmp_path = tmp_path_factory.mktemp("distributed")
    origin = Project.of(tmp_path / "origin", {**DIAMOND, **FED})
    for name in ("prefect.yaml", "pipelines", "stages", "softmask"):
        (origin.root / name).symlink_to(ROOT / name)
    (origin.root / ".gitignore").write_text("/*.txt\n/times\n/.prefect\n/times\n/data\n")
    origin.run("dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    add_data(origin)
    origin.run("dvc", "push", "--quiet")
    origin.run("git", "add", "--all")
    origin.run("git", "commit", "--quiet", "--message=project")
    clones = [tmp_path / name for name in ("coordinator", "a", "b")]
    for clone in clones:
        origin.run("git", "clone", "--quiet", str(origin.root), str(clone))
    port = free_port()
    env = environment(clones[0], port)
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: clones[0] / ".prefect"}
    with ExitStack() as stack:
        stack.enter_context(serving(clones[0], port, 0, 1, {**LIMITS, "gpu": 0}))
        for clone in clones[1:]:
            stack.enter_context(worker("cpu", clone, env, "--limit", "1"))
        stack.enter_context(temporary_settings(settings))
        yield Project(clones[0])


def test_every_stage_runs_once_and_the_coordinator_runs_none(coordinator: Project, tmp_path: Path) -> None:
    clones = [Project(coordinator.root.parent / name) for name in ("a", "b")]
    assert coordinator.reproduce(distributed=True).is_completed()
    ran = [line for clone in clones for line in clone.said("times")]
    assert sorted(line.split()[0] for line in ran) == ["bottom", "bottom", "left", "left", "right", "right"]
    assert all(clone.said("times") for clone in clones)
    assert coordinator.said("times") == []
    coordinator.run("dvc", "status", "--quiet")
    plain = Project.of(tmp_path / "plain", {**DIAMOND, **FED})
    add_data(plain)
    plain.run("dvc", "repro")
    assert coordinator.lock() == plain.lock()
    shutil.rmtree(coordinator.root / ".dvc/cache")
    assert coordinator.reproduce(distributed=True).is_completed()
    assert len(coordinator.runs()) == 5


def test_a_change_that_is_not_committed_is_refused(coordinator: Project) -> None:
    params, before = coordinator.root / "params.yaml", len(coordinator.runs())
    committed = params.read_text()
    params.write_text(yaml.safe_dump({**yaml.safe_load(committed), "new": 1}))
    state = coordinator.reproduce(distributed=True)
    params.write_text(committed)
    assert state.is_failed()
    assert "params.yaml changed since the last commit" in str(state.message)
    assert len(coordinator.runs()) == before
