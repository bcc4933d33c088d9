"""Workers with clones of their own: every stage runs once, somewhere, and the coordinator computes nothing."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.alone import NOT_HERE
from pipelines.serve import HOST, await_answer, environment, started
from pipelines.shared import Shared
from pipelines.workspace import Workspace
from runner.imported import PACKAGES
from softmask.errors import InputError
from tests.pipelines.conftest import ROOT, free_port
from tests.pipelines.projects import LIMIT, Flow, Project, until
from tests.pipelines.test_reproduce import DIAMOND

pytestmark = pytest.mark.slow


FED = {"fed": {"cmd": "cat data > fed.txt", "deps": ["data"], "outs": ["fed.txt"]}}
"""A stage of what was added to DVC and no stage makes."""
MEASURED = {
    "measured": {
        "cmd": "wc -c < fed.txt > size.json",
        "deps": ["fed.txt"],
        "metrics": [{"size.json": {"cache": False}}],
    },
    "told": {"cmd": "cp size.json told.txt", "deps": ["size.json"], "outs": ["told.txt"]},
}
"""A metric that git tracks, which DVC doesn't push, and what needs it."""
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
PROJECT = {**DIAMOND, **FED, **MEASURED, **CHANGED}
CODE = "grep -A1 -e settings -e seeds params.yaml; cat fed.txt\n"


def add_data(project: Project, text: str = "collected\n") -> None:
    """Have DVC track `data`."""
    (project.root / "data").write_text(text)
    project.run("dvc", "add", "--quiet", "data")


def prepare(root: Path) -> Project:
    """The project, with nothing run."""
    project = Project.of(root, PROJECT, {"settings": {"n": 1}, "seeds": [1]})
    (project.root / "code.sh").write_text(CODE)
    add_data(project)
    return project


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory, code_for_all: None) -> Iterator[Project]:
    """The coordinator's clone; two workers have theirs in `a` and `b` beside it."""
    tmp_path = tmp_path_factory.mktemp("distributed")
    origin = prepare(tmp_path / "origin")
    for name in ("prefect.yaml", "pipelines", "commands", *PACKAGES):
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
    served, set_up, flows, at_work, _ = readme()
    with ExitStack() as stack:
        server = stack.enter_context(started([*served, "--port", str(port)], tmp_path, env))
        await_answer(server, port)
        subprocess.run(set_up, cwd=clones[0], env=env, check=True)
        stack.enter_context(started(flows, clones[0], env))
        for clone in clones[1:]:
            stack.enter_context(started(at_work, clone, env))
        stack.enter_context(temporary_settings(settings))
        yield Project(clones[0])


def readme() -> list[list[str]]:
    """The README's commands for many machines, of two cores and one GPU, and a server that only this one reaches."""
    text = (ROOT / "README.md").read_text().partition("*Many machines.*")[2]
    lines = [line for line in text.partition("The coordinator's clone")[0].splitlines() if line.startswith("    ")]
    commands = [shlex.split(line.replace("0.0.0.0", HOST), comments=True) for line in lines]
    amounts = iter(["2", "8", "1"])
    return [[next(amounts) if word == "N" else word for word in command] for command in commands]


def test_every_stage_runs_once_and_the_coordinator_runs_none(coordinator: Project, tmp_path: Path) -> None:
    clones = [Project(coordinator.root.parent / name) for name in ("a", "b")]
    watched = [*readme()[-1], "--watch"]
    subprocess.run(watched, cwd=tmp_path, env=of_server(coordinator), capture_output=True, check=True, timeout=LIMIT)
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
    assert len(coordinator.runs()) == len(PROJECT)


def test_a_change_that_is_not_committed_is_refused(coordinator: Project) -> None:
    params, before = coordinator.root / "params.yaml", len(coordinator.runs())
    committed = params.read_text()
    params.write_text(yaml.safe_dump({**yaml.safe_load(committed), "new": 1}))
    state = coordinator.reproduce(distributed=True)
    params.write_text(committed)
    assert state.is_failed()
    assert "params.yaml changed since the last commit" in str(state.message)
    coordinator.run("dvc", "pull", "--quiet", "data.dvc")
    data = coordinator.root / "data"
    added = data.read_text()
    data.unlink()
    data.write_text("edited\n")
    state = coordinator.reproduce(distributed=True)
    edited, _ = data.read_text(), data.write_text(added)
    assert state.is_failed() and edited == "edited\n"
    assert "data: it was changed since it was added, so workers have another. dvc add data" in str(state.message)
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
    coordinator.run("python", "-m", "lineage", "rederive", "end.txt", "--yes")


def commit(project: Project, stages: dict[str, Any], **resources: Any) -> None:
    """Commit another pipeline, and push it where the workers' clones fetch from."""
    project.write(stages)
    params = yaml.safe_load((project.root / "params.yaml").read_text())
    params["orchestration"]["stages"] = resources
    (project.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    publish(project)


def publish(project: Project) -> None:
    """Commit and push what is there."""
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=change")
    project.run("git", "push", "--quiet")


def of_server(coordinator: Project) -> dict[str, str]:
    """The environment of who uses the coordinator's server."""
    port = httpx.URL(str(PREFECT_API_URL.value())).port
    assert port is not None
    return environment(coordinator.root, port)


def log(flow: Flow) -> str:
    """What a flow has said; asked gently, since the server is of one connection."""
    time.sleep(0.5)
    with get_client(sync_client=True) as client:
        logs = client.read_logs(log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow.id])))
    return "\n".join(entry.message for entry in logs)


def test_what_workers_can_not_run_goes_to_the_next_one_and_is_no_try(coordinator: Project, tmp_path: Path) -> None:
    stage = {"cmd": "pwd > where.txt", "deps": ["data"], "outs": ["where.txt"]}
    commit(coordinator, {**PROJECT, "on_a_gpu": stage}, on_a_gpu={"cpu": 1, "gpu": 1, "memory": 1})
    env, here = of_server(coordinator), tmp_path / "another project"
    here.mkdir()
    command = readme()[3]
    command[command.index("cpu")] = "gpu"
    flow = coordinator.start(["on_a_gpu"], distributed=True)
    with started([*command, "--name", "stray"], here, env):
        foreign = f"worker 'stray' in {here}, which is no clone of this project, could not begin it"
        until(lambda: foreign in log(flow), "the first refusal", flow)
    with started([*command, "--name", "coordinators"], coordinator.root, env):
        root = coordinator.root
        own = f"worker 'coordinators' in {root} on {platform.node()} can't run it: {root}: flow run"
        until(lambda: own in log(flow), "the second refusal", flow)
    clone = coordinator.root.parent / "a"
    with started(command, clone, env):
        assert flow.end().is_completed()
    assert (coordinator.root / "where.txt").read_text() == f"{clone}\n"
    assert {run.name for run in coordinator.runs() if run.state_name == "NotHere"} == {"on_a_gpu"}


def test_a_stage_whose_runs_dvc_does_not_keep_is_refused_until_its_record_is_committed(coordinator: Project) -> None:
    said = {"cmd": "echo said > said.txt", "outs": ["said.txt"]}
    fixed = {"cmd": "cat data > fixed.txt", "deps": ["data"], "outs": ["fixed.txt"]}
    used = {"cmd": "cat said.txt fixed.txt > used.txt", "deps": ["said.txt", "fixed.txt"], "outs": ["used.txt"]}
    commit(coordinator, {"said": said, "fixed": fixed, "used": used})
    before = {run.id for run in coordinator.runs()}
    refused = str(coordinator.reproduce(distributed=True).message)
    assert "dvc.yaml: workers can't share said, since DVC's run cache keeps no runs of it: it has no dep" in refused
    assert {run.id for run in coordinator.runs()} == before
    for command in ("dvc repro --single-item said", "dvc push said"):
        assert f"({command})" in refused
        coordinator.run(*command.split())
    coordinator.run("dvc", "repro", "--single-item", "fixed")
    coordinator.run("dvc", "push", "--quiet", "fixed")
    coordinator.run("dvc", "freeze", "fixed")
    publish(coordinator)
    shutil.rmtree(coordinator.root / ".dvc/cache")
    for name in ("said.txt", "fixed.txt"):
        (coordinator.root / name).unlink()
    assert coordinator.reproduce(distributed=True).is_completed()
    assert [run.name for run in coordinator.runs() if run.id not in before] == ["used"]
    assert (coordinator.root / "used.txt").read_text() == "said\n" + (coordinator.root / "data").read_text()


NOT_KEPT: dict[str, tuple[dict[str, Any], str]] = {
    "always": ({"always_changed": True}, "it always runs"),
    "fixed": ({"frozen": True}, "it is frozen"),
    "none": ({"outs": []}, "it has no outputs"),
    "persistent": ({"outs": [{"persistent.txt": {"persist": True}}]}, "its output persistent.txt has persist: true"),
    "of_git": ({"outs": [{"of_git.txt": {"cache": False}}]}, "its output of_git.txt has cache: false"),
    "outside": ({"outs": ["/tmp/outside.txt"]}, "its output /tmp/outside.txt lies outside the project"),
}
"""Stages whose runs DVC doesn't keep, and why."""


def test_what_dvc_does_not_keep_is_named(tmp_path: Path) -> None:
    usual = {"cmd": "true", "deps": ["params.yaml"]}
    project = Project.of(tmp_path / "project", {name: {**usual, **stage} for name, (stage, _) in NOT_KEPT.items()})
    project.run("dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store"))
    with chdir(project.root):
        shared = Shared(Workspace(project.root))
        for name, (_, why) in NOT_KEPT.items():
            with pytest.raises(InputError, match=f"workers can't share {name}, .* no runs of it: {why}"):
                shared.check_kept(name)


@pytest.mark.parametrize("stores", [0, 1])
def test_a_project_that_is_no_clone_leaves_the_stage_to_other_workers(tmp_path: Path, stores: int) -> None:
    project = Project.of(tmp_path / "another", {"one": {"cmd": "touch ran", "deps": ["params.yaml"], "outs": ["ran"]}})
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=another")
    if stores:
        project.run("dvc", "remote", "add", "--local", "--quiet", "--default", "store", str(tmp_path / "store"))
    command = [sys.executable, "-m", "pipelines.once", "one", str(os.getpid()), "0" * 40]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=False)
    why = f"{'0' * 40} can't be checked out" if stores else "DVC has no default remote"
    assert (done.returncode, f"error: {project.root}: {why}" in done.stderr) == (NOT_HERE, True), done.stderr
    assert not (project.root / "ran").exists()
