"""The flow `reproduce` on a real server with real workers: the same as `dvc repro`, side by side, and not lost."""

import os
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect import get_client
from prefect.automations import Automation, DoNothing, EventTrigger, Posture
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Crashed, Running

from pipelines.alone import LOCK, alone
from pipelines.children import SILENT, Children
from pipelines.serve import HOST, environment, server, serving
from pipelines.setup import AUTOMATION
from pipelines.workspace import Workspace
from tests.pipelines.conftest import LIMITS, checkout, free_port
from tests.pipelines.projects import LIMIT, Flow, Project, above, until
from tests.stages import tiny_stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def timed(name: str, seconds: float, deps: list[str]) -> dict[str, Any]:
    """A stage that tells when it begins and ends."""
    say = f"echo {name} {{}} $(date +%s.%N) >> times"
    copy = f"cat {' '.join(deps)} < /dev/null > {name}.txt"
    command = f"{say.format('begin')} && sleep {seconds} && {copy} && {say.format('end')}"
    return {"cmd": command, "deps": deps, "outs": [f"{name}.txt"]}


DIAMOND = {
    "top": {"cmd": "echo top > top.txt", "deps": ["params.yaml"], "outs": ["top.txt"]},
    "right": timed("right", 1.5, ["top.txt"]),
    "left": timed("left", 1.5, ["top.txt"]),
    "bottom": timed("bottom", 0, ["right.txt", "left.txt"]),
}


GATE = {"cmd": "echo begun >> begun; until [ -e go ]; do sleep 0.05; done; echo done > gate.txt", "outs": ["gate.txt"]}
"""A stage that ends when the test says so."""


def begun(project: Project, flow: Flow) -> psutil.Process:
    """The process of the gate's stage, when its command is at work."""
    until(lambda: project.said("begun"), "its command", flow)
    (once,) = project.processes()
    return once


def overlap(project: Project, first: str, second: str) -> bool:
    """Whether two stages were at work at the same time."""
    times = {tuple(line.split()[:2]): float(line.split()[2]) for line in project.said("times")}
    return max(times[first, "begin"], times[second, "begin"]) < min(times[first, "end"], times[second, "end"])


def test_the_lock_is_that_of_dvc_repro_and_a_second_flow_runs_nothing(tmp_path: Path) -> None:
    flow, plain = (Project.of(tmp_path / name, DIAMOND) for name in ("flow", "plain"))
    for project in (flow, plain):
        project.run("dvc", "repro", "--single-item", "top")
    assert flow.reproduce().is_completed()
    plain.run("dvc", "repro")
    assert flow.lock() == plain.lock()
    assert flow.run("dvc", "status") == plain.run("dvc", "status")
    assert sorted(run.name for run in flow.runs()) == ["bottom", "left", "right"]
    assert overlap(flow, "left", "right")
    assert flow.reproduce().is_completed()
    assert len(flow.runs()) == 3


def test_what_is_above_made_the_same_bytes_so_nothing_below_runs(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", DIAMOND)
    project.run("dvc", "repro")
    project.write({**DIAMOND, "top": {**DIAMOND["top"], "cmd": "printf 'top\\n' > top.txt"}})
    assert project.reproduce().is_completed()
    assert [run.name for run in project.runs()] == ["top"]
    project.run("dvc", "status", "--quiet")


def test_with_a_limit_of_one_gpu_two_stages_do_not_overlap(tmp_path: Path) -> None:
    both = {name: timed(name, 1.5, []) for name in ("first", "second")}
    project = Project.of(tmp_path / "project", both, default={"cpu": 1, "gpu": 1, "memory": 1})
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("gpu", 1)
    try:
        assert project.reproduce().is_completed()
    finally:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name("gpu", 2)
    assert not overlap(project, "first", "second")


def test_two_stages_at_the_same_time_see_one_gpu_each(tmp_path: Path) -> None:
    def stage(name: str, other: str) -> dict[str, Any]:
        wait = f"touch {name}.begun && until [ -e {other}.begun ]; do sleep 0.05; done"
        return {"cmd": f"{wait}; echo $CUDA_VISIBLE_DEVICES > {name}.txt", "outs": [f"{name}.txt"]}

    both = {"a": stage("a", "b"), "b": stage("b", "a")}
    project = Project.of(tmp_path / "project", both, default={"cpu": 1, "gpu": 1, "memory": 1})
    assert project.reproduce().is_completed()
    assert {(project.root / f"{name}.txt").read_text() for name in both} == {"0\n", "1\n"}


def test_a_stage_whose_worker_is_killed_runs_elsewhere_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    flow = project.start()
    once = begun(project, flow)
    above(once, "pipelines.warm").kill()
    psutil.wait_procs([once], timeout=10)
    assert not once.is_running()
    (project.root / "go").touch()
    assert flow.end().is_completed()
    assert sorted(str(run.state_name) for run in project.runs()) == ["Completed", "Crashed"]
    project.run("dvc", "status", "--quiet")


def test_a_stage_is_brought_up_to_date_by_the_code_of_its_workspace(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    own = project.root / "pipelines"
    own.mkdir()
    (own / "__init__.py").touch()
    for said in ("one", "two"):
        (own / "once.py").write_text(f"import sys; print({said!r}, sys.argv[1], file=open('own', 'a'))")
        assert project.reproduce().is_completed()
    assert project.said("own") == ["one gate", "two gate"]


def test_an_edit_while_a_flow_runs_waits_for_the_next_run(tmp_path: Path) -> None:
    below = {**timed("below", 0, ["gate.txt", "code"]), "params": ["n", "orchestration"]}
    project = Project.of(tmp_path / "project", {"gate": GATE, "below": below})
    (project.root / "code").write_text("old\n")
    params = project.root / "params.yaml"
    old = params.read_text()
    params.write_text(f"{old}n: 1\n")
    flow = project.start()
    begun(project, flow)
    params.write_text(f"{old}n: 2\n")
    (project.root / "code").write_text("new\n")
    (project.root / "go").touch()
    state = flow.end()
    edited = "below: code, params.yaml: n: it was edited meanwhile, and the edit waits for the next run"
    assert state.is_failed() and edited in str(state.message)
    assert project.said("times") == [] and list(yaml.safe_load(project.lock())["stages"]) == ["gate"]
    assert project.reproduce().is_completed()
    assert (project.root / "below.txt").read_text() == "done\nnew\n"
    project.run("dvc", "status", "--quiet")


def test_what_is_edited_while_its_stage_runs_is_not_recorded(tmp_path: Path) -> None:
    outs = ["out/values.json", "out/manifest.json"]
    stages = {
        "tiny": {"cmd": "python tiny.py", "deps": ["stages/tiny_code.py", "text"], "params": ["start"], "outs": outs}
    }
    project = Project.of(tmp_path / "project", stages, {"start": 10})
    params = project.root / "params.yaml"
    old = params.read_text()
    tiny_stage.make(project.root)
    params.write_text(old)
    project.write(stages)
    (project.root / "hold").touch()
    flow = project.start()
    until(lambda: tiny_stage.log(project.root) == "01", "the stage", flow)
    params.write_text(old.replace("start: 10", "start: 20"))
    (project.root / "hold").unlink()
    state = flow.end()
    assert state.is_failed() and "params.yaml: start: it was changed while the stage ran" in str(state.message)
    assert not (project.root / "dvc.lock").exists() and not list((project.root / ".dvc/cache").rglob("runs/*"))
    params.write_text(old)
    assert project.reproduce().is_completed()
    assert tiny_stage.log(project.root) == "012"
    project.run("dvc", "status", "--quiet")


def test_an_edit_in_a_command_s_last_moment_is_not_recorded(tmp_path: Path) -> None:
    edit = {"cmd": "cp n.txt out.txt; echo 2 > n.txt", "deps": ["n.txt"], "outs": ["out.txt"]}
    project = Project.of(tmp_path / "project", {"edit": edit})
    (project.root / "n.txt").write_text("1\n")
    state = project.reproduce()
    assert state.is_failed() and "edit: n.txt: it was edited meanwhile" in str(state.message)
    assert not (project.root / "dvc.lock").exists() and not (project.root / ".dvc/cache/runs").exists()


def test_an_edit_while_its_stage_waits_for_a_worker_waits_too(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    workspace = Workspace(project.root)
    with chdir(project.root), alone(LOCK, "a flow", "Wait for it"):
        workspace.freeze(workspace.plan([]))
        project.write({"gate": {**GATE, "cmd": "echo other > gate.txt"}})
        run = Children(str(project.root), None).stage("gate", "cpu", "key")
    assert run.state is not None and run.state.is_failed()
    assert "gate: its command: it was edited meanwhile" in str(run.state.message)
    assert not (project.root / "gate.txt").exists() and not (project.root / "dvc.lock").exists()


def test_a_cancelled_flow_stops_its_stages_and_dvc_repro_goes_on(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE, "below": timed("below", 0, ["gate.txt"])})
    flow = project.start()
    once = begun(project, flow)
    family = [once, *once.children(recursive=True)]
    flow.cancel()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert flow.end().is_cancelled()
    (project.root / "go").touch()
    project.run("dvc", "repro")
    assert (project.root / "below.txt").read_text() == "done\n"


@pytest.mark.parametrize(("code", "tries"), [(2, 1), (75, 3)])
def test_a_mistake_is_not_tried_again_and_what_may_pass_is(tmp_path: Path, code: int, tries: int) -> None:
    say = "echo 'error: texts.txt, line 3: not UTF-8' && echo 'texts.txt, line 5: not UTF-8'"
    stages = {
        "bad": {"cmd": f"echo try >> tries; {say}; exit {code}", "outs": ["bad.txt"]},
        "good": timed("good", 0, []),
    }
    project = Project.of(tmp_path / "project", {**stages, "below": timed("below", 0, ["bad.txt"])})
    flow = project.start()
    state = flow.end()
    assert state.is_failed()
    words = f"error: texts.txt, line 3: not UTF-8\ntexts.txt, line 5: not UTF-8 (exit code {code})"
    for said in (
        str(state.message),
        flow.log(),
        {row["stage"]: row["outcome"] for row in flow.table("reproduce")}["bad"],
    ):
        assert words in said
    assert "Traceback" not in flow.log() and "NoneType" not in flow.log()
    assert project.said("tries") == ["try"] * tries
    assert (project.root / "good.txt").exists()
    assert "not run, for want of inputs: below" in str(state.message)


def test_a_second_flow_in_the_workspace_is_refused(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    flow = project.start()
    begun(project, flow)
    state = project.reproduce()
    assert state.is_failed()
    assert f"flow run {flow.run().name!r} is at work here" in str(state.message)
    (project.root / "go").touch()
    assert flow.end().is_completed()


def test_a_stage_that_asks_for_more_than_there_is_is_refused_before_anything_runs(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", DIAMOND, default={"cpu": 1, "gpu": 3, "memory": 1})
    flow = project.start()
    state = flow.end()
    assert state.is_failed()
    assert str(state.message).startswith("params.yaml: orchestration: top asks for gpu: 3, and there are 2")
    assert "Traceback" not in flow.log()
    watch = [sys.executable, "-m", "prefect", "deployment", "run", "reproduce/local", "--watch"]
    env = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "COLUMNS": "200"}
    options = ["--param", f"workspace={project.root}"]
    done = subprocess.run([*watch, *options], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "orchestration: top asks for gpu: 3, and there are 2" in done.stdout and "Traceback" not in done.stdout
    assert project.runs() == []


def test_a_flow_that_was_killed_leaves_runs_that_the_next_one_cancels(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    flow = project.start()
    once = begun(project, flow)
    coordinator = flow.process()
    coordinator.kill()
    coordinator.wait()
    assert once.is_running()
    until(lambda: flow.run().state_name == "Crashed", "what its worker says of it")
    unreported: State[Any] = Running()  # as if the worker were gone too
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow.id, unreported, force=True)
    again = project.start()
    psutil.wait_procs([once], timeout=30)
    assert not once.is_running()
    (project.root / "go").touch()
    assert again.end().is_completed()
    assert flow.run().state_name == "Crashed"
    assert sorted(str(run.state_name) for run in project.runs()) == ["Cancelled", "Completed"]


def test_a_server_that_is_away_for_longer_than_a_run_may_be_silent_loses_no_stage_and_no_cancellation(
    tmp_path: Path, code_for_all: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SILENT, "30")
    home, port = checkout(tmp_path / "server"), free_port()
    env = environment(home, port)
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: home / ".prefect"}
    long = {"cmd": GATE["cmd"].replace("go", "return").replace("gate", "long"), "outs": ["long.txt"]}
    stages = {"gate": GATE, "long": long, "below": timed("below", 0, ["gate.txt", "long.txt"])}
    project, other = Project.of(tmp_path / "project", stages), Project.of(tmp_path / "other", {"gate": GATE})
    with serving(home, port, 1, 1, {**LIMITS, "cpu": 3, "gpu": 0}), temporary_settings(settings):
        flow, cancelled = project.start(), other.start()
        until(lambda: len(project.said("begun")) == 2, "both stages", flow)
        once = begun(other, cancelled)
        alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        (first,) = (child for child in alive if str(port) in child.cmdline())
        first.kill()
        first.wait()
        (project.root / "go").touch()
        until((project.root / "dvc.lock").exists, "the end of the stage")
        time.sleep(float(os.environ[SILENT]))
        with server(home, port, env):
            cancelled.cancel()
            time.sleep(10)  # in which a stage would be given up
            (project.root / "return").touch()
            assert flow.end().is_completed()
            assert {run.state_name for run in project.runs()} == {"Completed"}
            assert cancelled.end().is_cancelled()
            psutil.wait_procs([once], timeout=LIMIT)
            assert not once.is_running()
    assert project.said("begun") == ["begun", "begun"]
    assert [line.split()[:2] for line in project.said("times")] == [["below", "begin"], ["below", "end"]]


def test_a_stage_that_lives_though_its_run_was_given_up_is_waited_for(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", {"gate": GATE})
    flow = project.start()
    begun(project, flow)
    (run,) = project.runs()
    with get_client(sync_client=True) as client:
        lost: State[Any] = Crashed()
        client.set_flow_run_state(run.id, lost)
    until(lambda: len(project.processes()) == 2, "the second try", flow)
    time.sleep(3)  # in which a try that doesn't wait ends, and the next
    (project.root / "go").touch()
    assert flow.end().is_completed()
    assert project.said("begun") == ["begun"]
    assert len(project.runs()) == 2


def test_what_runs_when_serve_is_stopped_is_interrupted_and_the_next_flow_goes_on(
    tmp_path: Path, code_for_all: None
) -> None:
    home, port = checkout(tmp_path / "server"), free_port()
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: home / ".prefect"}
    project = Project.of(tmp_path / "project", {"gate": GATE})
    with temporary_settings(settings):
        with serving(home, port, 1, 1, {**LIMITS, "gpu": 0}):
            earlier = EventTrigger(expect={"prefect.flow-run.heartbeat"}, posture=Posture.Reactive, threshold=1)
            Automation(name=AUTOMATION, trigger=earlier, actions=[DoNothing()]).create()
            flow = project.start()
            once = begun(project, flow)
            family = [once, *once.children(recursive=True)]
        assert not any(process.is_running() for process in family)
        (project.root / "go").touch()
        with serving(home, port, 1, 1, {**LIMITS, "gpu": 0}):
            with get_client(sync_client=True) as client:
                assert client.read_automations_by_name(AUTOMATION) == []
            assert project.reproduce().is_completed()
            assert flow.run().state_name == "Crashed"
            # a try that the first flow began while it was being stopped has been cancelled by the next
            ends = sorted(str(run.state_name) for run in project.runs())
            assert ends in (["Completed", "Crashed"], ["Cancelled", "Completed", "Crashed"])
