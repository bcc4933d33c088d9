"""The real pipeline through workers: the bytes of `dvc repro`, also where workers, flows and servers come to grief."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.serve import HOST, environment, serving, worker
from tests.pipeline.clones import Clone
from tests.pipelines.conftest import LIMITS, free_port
from tests.pipelines.projects import Flow, Project, above, logged, until

pytestmark = pytest.mark.slow

TIMED = "speed"
"""The stage whose outputs hold times."""
LONG = ("base.training.steps=100", "base.training.save_every=10", "orchestration.retry_seconds=1")
RESUMED = re.compile(r"resuming from \S*checkpoint-(\d+)")


@pytest.fixture(scope="module")
def undisturbed(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `dvc repro base` has run. To be read, not changed."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("undisturbed") / "clone", *LONG)
    clone.repro("base")
    return clone


@pytest.fixture
def clone(origin: Path, undisturbed: Clone, tmp_path: Path) -> Clone:
    """A fresh one, whose base is still to be trained."""
    return Clone.of(origin, tmp_path / "clone", *LONG)


def without_times(lock: bytes) -> str:
    """dvc.lock without the hashes of what was timed."""
    entries = re.split(r"(?m)^(?=  \S)", lock.decode())
    timed = f"  {TIMED}:"
    return "".join(re.sub(r"(md5|size): .*", r"\1:", entry) if entry.startswith(timed) else entry for entry in entries)


def training(clone: Clone) -> list[psutil.Process]:
    """The processes that train the base in a clone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline()[1:3] == ["-m", "stages.base"] and Path(process.cwd()) == clone.root:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def in_training(clone: Clone, flow: Flow) -> psutil.Process:
    """The process that trains the base, when it has come to its third checkpoint."""
    until(lambda: clone.progress("base") >= 30, "the training", flow)
    (process,) = training(clone)
    return process


def await_resume(project: Project) -> None:
    """Wait for the line that says so: a run's last lines reach the server after its final state."""

    def resumed() -> bool:
        return any(RESUMED.search(entry.message) for entry in logged([run.id for run in project.runs()]))

    until(resumed, "a stage that goes on from a checkpoint")


def assert_same(clone: Clone, undisturbed: Clone) -> None:
    assert clone.content("base") == undisturbed.content("base")
    assert (clone.root / "dvc.lock").read_bytes() == (undisturbed.root / "dvc.lock").read_bytes()


@pytest.mark.usefixtures("server")
def test_the_smoke_profile_in_another_fresh_clone_leaves_the_lock_of_dvc_repro(
    origin: Path, smoke: Clone, tmp_path: Path
) -> None:
    clone = Clone.of(origin, tmp_path / "clone")
    project = Project(clone.root)
    assert project.start().end(limit=1800).is_completed()
    assert without_times(project.lock()) == without_times((smoke.root / "dvc.lock").read_bytes())
    clone.run("dvc", "status", "--quiet")
    assert len(project.runs()) == len(clone.stages())
    assert project.reproduce().is_completed()
    assert len(project.runs()) == len(clone.stages())


@pytest.mark.usefixtures("server")
def test_a_machine_lost_in_training_is_given_up_and_there_are_never_two_writers(
    clone: Clone, undisturbed: Clone
) -> None:
    project = Project(clone.root)
    flow = project.start(["base"])
    trainer = in_training(clone, flow)
    once = psutil.Process(os.getsid(trainer.pid))
    run, fork_server, worker, *_ = once.parents()
    assert worker == above(trainer, "pipelines.warm")
    for process in (worker, fork_server, run, once):  # and neither the training process nor a shell above it
        process.kill()
    psutil.wait_procs([trainer], timeout=10)
    assert training(clone) == []
    while not flow.run().state.is_final():
        assert len(training(clone)) <= 1, "two writers"
        time.sleep(0.3)
    assert flow.end().is_completed()
    await_resume(project)
    assert_same(clone, undisturbed)


@pytest.mark.usefixtures("server")
def test_a_cancelled_flow_leaves_work_from_which_dvc_repro_goes_on(clone: Clone, undisturbed: Clone) -> None:
    flow = Project(clone.root).start(["base"])
    trainer = in_training(clone, flow)
    flow.cancel()
    psutil.wait_procs([trainer], timeout=10)
    assert training(clone) == []
    assert flow.end().is_cancelled()
    assert clone.progress("base") >= 30
    clone.repro("base")
    assert_same(clone, undisturbed)


@pytest.fixture
def clones(origin: Path, tmp_path: Path) -> Iterator[list[Clone]]:
    """A coordinator's clone and those of two workers, with one DVC remote and one checkpoint store; the server."""
    shared = tmp_path / "shared"
    base = Clone.of(origin, shared / "origin", *LONG)
    base.run("dvc", "remote", "add", "--quiet", "--default", "store", str(shared / "store"))
    base.run("git", "commit", "--quiet", "--all", "--message=params and remote")
    base.run("git", "config", "receive.denyCurrentBranch", "ignore")
    made = []
    for name in ("coordinator", "a", "b"):
        base.run("git", "clone", "--quiet", str(base.root), str(tmp_path / name))
        made.append(Clone(tmp_path / name))
        (made[-1].root / "local.toml").write_text(f'[checkpoints]\npath = "{shared / "checkpoints"}"\n')
    port = free_port()
    env = environment(made[0].root, port)
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: made[0].root / ".prefect"}
    with ExitStack() as stack:
        stack.enter_context(serving(made[0].root, port, 0, 1, {**LIMITS, "gpu": 0}))
        for one in made[1:]:
            stack.enter_context(worker("cpu", one.root, env, "--limit", "1"))
        stack.enter_context(temporary_settings(settings))
        yield made


def test_another_clone_resumes_what_a_killed_worker_had_begun_and_runs_it_again_with_other_parameters(
    clones: list[Clone], undisturbed: Clone, tmp_path: Path
) -> None:
    coordinator, *workers = clones
    project, store = Project(coordinator.root), coordinator.root.parent / "shared/checkpoints"

    def steps() -> int:
        return max((int(path.name.partition("-")[2]) for path in store.glob("base-*/training/checkpoint-*")), default=0)

    flow = project.start(["base"], distributed=True)
    until(lambda: steps() >= 30, "the training", flow)
    ((first, trainer),) = [(one, process) for one in workers for process in training(one)]
    above(trainer, "pipelines.warm").kill()
    assert flow.end().is_completed()
    assert training(first) == []
    (second,) = [one for one in workers if one is not first]
    assert second.content("base") == undisturbed.content("base") == coordinator.content("base")
    await_resume(project)
    assert (coordinator.root / "dvc.lock").read_bytes() == (undisturbed.root / "dvc.lock").read_bytes()
    assert not (coordinator.root / ".checkpoints").exists()
    fewer = (*LONG, "base.training.steps=20")
    coordinator.compose(*fewer)
    coordinator.run("git", "commit", "--quiet", "--all", "--message=fewer steps")
    coordinator.run("git", "push", "--quiet")
    assert project.reproduce(["base"], distributed=True).is_completed()
    plain = undisturbed.copy(tmp_path / "plain")
    plain.compose(*fewer)
    plain.repro("base")
    assert coordinator.content("base") == plain.content("base") != undisturbed.content("base")
    assert (coordinator.root / "dvc.lock").read_bytes() == (plain.root / "dvc.lock").read_bytes()
