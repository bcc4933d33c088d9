"""Workers with clones of their own: every stage runs once, somewhere, and the coordinator computes nothing."""

import re
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


CHANGED = {
    "scaled": {
        "cmd": "sh code.sh > scaled.txt",
        "deps": ["code.sh", "fed.txt"],
        "params": ["settings.n", "seeds"],
        "outs": ["scaled.txt"],
    },
    "end": {"cmd": "sort scaled.txt > end.txt", "deps": ["scaled.txt"], "outs": ["end.txt"]},
}
"""Two more below it, of code and parameters as well."""
CODE = "grep -A1 -e settings -e seeds params.yaml; cat fed.txt\n"


def add_data(project: Project, text: str = "collected\n") -> None:
    """Have DVC track `data`."""
    (project.root / "data").write_text(text)
    project.run("dvc", "add", "--quiet", "data")


def prepare(root: Path) -> Project:
    """The project, with nothing run."""
    project = Project.of(root, {**DIAMOND, **FED, **CHANGED}, {"settings": {"n": 1}, "seeds": [1]})
    (project.root / "code.sh").write_text(CODE)
    add_data(project)
    return project


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory, code_for_all: None) -> Iterator[Project]:
    """The coordinator's clone; two workers have theirs in `a` and `b` beside it."""
    tmp_path = tmp_path_factory.mktemp("distributed")
    origin = prepare(tmp_path / "origin")
    for name in ("prefect.yaml", "pipelines", "stages", "softmask"):
        (origin.root / name).symlink_to(ROOT / name)
    (origin.root / ".gitignore").write_text("/*.txt\n/times\n/.prefect\n/times\n/data\n")
    origin.run("dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    origin.run("dvc", "push", "--quiet")
    origin.run("git", "config", "receive.denyCurrentBranch", "ignore")
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
    plain = prepare(tmp_path / "plain")
    plain.run("dvc", "repro")
    assert coordinator.lock() == plain.lock()
    shutil.rmtree(coordinator.root / ".dvc/cache")
    assert coordinator.reproduce(distributed=True).is_completed()
    assert len(coordinator.runs()) == 7


def test_a_change_that_is_not_committed_is_refused(coordinator: Project) -> None:
    params, before = coordinator.root / "params.yaml", len(coordinator.runs())
    committed = params.read_text()
    params.write_text(yaml.safe_dump({**yaml.safe_load(committed), "new": 1}))
    state = coordinator.reproduce(distributed=True)
    params.write_text(committed)
    assert state.is_failed()
    assert "params.yaml changed since the last commit" in str(state.message)
    assert len(coordinator.runs()) == before


def test_after_a_change_exactly_that_is_run_which_dvc_repro_would_run(coordinator: Project, tmp_path: Path) -> None:
    """Of a parameter, a seed, code, data, and what another stage makes; each after a run that is committed."""
    plain = Project(tmp_path / "plain")
    coordinator.run("git", "clone", "--quiet", "../origin", str(plain.root))
    plain.run("dvc", "pull", "--quiet", "data.dvc")
    plain.run("dvc", "repro", "--quiet", "end")
    assert coordinator.reproduce(["end"], distributed=True).is_completed()
    params, pipeline = coordinator.root / "params.yaml", coordinator.root / "dvc.yaml"
    for change, changed in (
        (lambda: params.write_text(params.read_text().replace("n: 1", "n: 2")), {"scaled", "end"}),
        (lambda: params.write_text(params.read_text().replace("- 1", "- 3")), {"scaled", "end"}),
        (lambda: (coordinator.root / "code.sh").write_text(f"echo edited; {CODE}"), {"scaled", "end"}),
        (lambda: add_data(coordinator, "collected anew\n"), {"fed", "scaled", "end"}),
        (
            lambda: pipeline.write_text(pipeline.read_text().replace("cat data >", "cat data data >")),
            {"fed", "scaled", "end"},
        ),
    ):
        before = {run.id for run in coordinator.runs()}
        change()
        coordinator.run("dvc", "push", "--quiet", "data.dvc")
        coordinator.run("git", "add", "--all")
        coordinator.run("git", "commit", "--quiet", "--message=change")
        coordinator.run("git", "push", "--quiet")
        plain.run("git", "fetch", "--quiet")
        plain.run("git", "checkout", "--quiet", "FETCH_HEAD", "--", "params.yaml", "dvc.yaml", "code.sh", "data.dvc")
        plain.run("dvc", "pull", "--quiet", "data.dvc")
        assert coordinator.reproduce(["end"], distributed=True).is_completed()
        ran = {str(run.name) for run in coordinator.runs() if run.id not in before}
        assert ran == set(re.findall(r"^Running stage '(.+)':$", plain.run("dvc", "repro", "end"), re.MULTILINE))
        assert ran == changed
        theirs, ours = (yaml.safe_load(project.lock())["stages"] for project in (plain, coordinator))
        assert {name: ours[name] for name in theirs} == theirs
        coordinator.run("dvc", "status", "--quiet", "end")
    coordinator.run("git", "commit", "--quiet", "--all", "--message=record")
    coordinator.run("python", "-m", "lineage", "rederive", "end.txt")
