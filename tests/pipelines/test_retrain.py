"""The flow `retrain`: who is promoted and who isn't, what is taken in, and that the repository stays as it is."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from lineage.attestation import check
from lineage.repository import Repository
from lineage.verify import verify
from pipelines.alone import alone
from pipelines.attested import ATTESTATION, CARD, PUBLIC_KEY, signing_key
from pipelines.checkout import PLACE
from pipelines.registry import Version, champion
from pipelines.retrain import LOCK, Outcome
from pipelines.serve import HOST, serving
from tests.pipeline.clones import Clone
from tests.pipelines.conftest import LIMITS, ROOT, free_port
from tests.pipelines.projects import Flow, Project, until

DEPLOYMENT = "retrain/nightly"
OF_THE_MACHINE = {".git", ".dvc", ".prefect", ".checkpoints"}
"""What is not the user's working tree: git, DVC and Prefect keep theirs there, and stages their unfinished work."""
MODEL = "models/mdlm/sm_iso_update-1/model"
CORPUS = "data/corpus/train data/corpus/validation"
STAGES: dict[str, Any] = {
    "corpus": {
        "cmd": f"mkdir -p {CORPUS} && touch data/corpus/train/0.parquet data/corpus/validation/0.parquet",
        "outs": CORPUS.split(),
    },
    "tokenizer": {"cmd": "echo tokens > tokenizer.txt", "deps": ["data/corpus/train"], "outs": ["tokenizer.txt"]},
    "tokens": {"cmd": "echo 1 2 3 > tokens.txt", "deps": ["tokenizer.txt"], "outs": ["tokens.txt"]},
    "arm": {
        "matrix": {"arm": ["sm_iso_update"], "seed": [1]},
        "cmd": "mkdir -p models && cp tokens.txt models/${item.arm}-${item.seed}",
        "deps": ["tokens.txt"],
        "outs": ["models/${item.arm}-${item.seed}"],
    },
}
"""Stages of the names and outputs that a retrain asks for, without their work."""


def tree(root: Path) -> dict[str, str]:
    """Path -> hash of every file of a working tree."""
    files = [path for path in root.rglob("*") if path.relative_to(root).parts[0] not in OF_THE_MACHINE]
    return {str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest() for path in files if path.is_file()}


@contextmanager
def untouched(project: Project) -> Iterator[None]:
    """Nothing that the user has is another after the block: files, branches, what is checked out and staged."""

    def state() -> tuple[Any, ...]:
        heads = project.run("git", "for-each-ref", "refs/heads", "--format=%(refname) %(objectname)").splitlines()
        branches = [head for head in heads if not head.startswith("refs/heads/retrain/")]
        return tree(project.root), branches, project.run("git", "status", "--short", "--branch")

    before = state()
    yield
    assert state() == before


def start(project: Project) -> Flow:
    """Start a retrain."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"workspace": str(project.root)})
        return Flow(project, run.id)


def end(flow: Flow) -> str:
    """What a retrain says at its end, which is a good one."""
    state = flow.end(limit=1200)
    assert state.is_completed(), state
    return str(state.message)


def table(flow: Flow) -> dict[str, str]:
    """The table that it left."""
    return {row["what"]: row["found"] for row in flow.table("retrain")}


def trained(project: Project) -> int:
    """How many runs of stages and commands there have been."""
    return len(Project(project.root / PLACE / "candidate").runs())


def commit(project: Project) -> None:
    """Commit all of a project."""
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message=project")


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_the_first_model_is_the_champion_and_without_new_documents_nothing_is_trained(tmp_path: Path) -> None:
    project = Project.of(tmp_path / "project", STAGES)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["orchestration"] = yaml.safe_load((project.root / "params.yaml").read_text())["orchestration"]
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    (project.root / ".gitignore").write_text("/data/*\n*.txt\nmodels\n")
    commit(project)
    (project.root / "data/incoming").mkdir(parents=True)
    (project.root / "mine.md").write_text("not committed")
    with untouched(project):
        first = start(project)
        assert end(first) == Outcome.FIRST
        now = champion(project.root)
        assert now is not None and now.name == "v0.0.1"
        assert table(first)["champion"] == "v0.0.1" and table(first)["champion before"] == "none"
        (branch,) = project.run("git", "branch", "--format=%(refname:short)", "--points-at", now.commit).split()
        assert branch == table(first)["branch of the candidate"]
        assert project.run("git", "rev-parse", f"{branch}~2") == project.run("git", "rev-parse", "HEAD")
        assert_attested(project, now)
        assert branch.partition("/")[2] in project.run("dvc", "exp", "list")
        ran = trained(project)
        with alone(project.root / LOCK, "a slow night", ""):
            state = start(project).end()
            assert state.is_cancelled() and "a slow night is at work here" in str(state.message), state
        again = start(project)
        assert end(again) == Outcome.NOTHING_NEW
        assert table(again)["new documents"] == "0 of 0 records, from folder"
        assert champion(project.root) == now and trained(project) == ran + 1, "the snapshot alone"
    params["tokenizer"]["train"]["min_count"] = 7
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    commit(project)
    state = start(project).end()
    assert state.is_failed() and "params.yaml: tokenizer: it differs from the champion's" in str(state.message)
    assert champion(project.root) == now and trained(project) == ran + 1


def assert_attested(project: Project, version: Version) -> None:
    """A promoted model's statement is on its branch, holds, and names every file that the model was made from."""
    signed = project.run("git", "show", f"{version.commit}:{ATTESTATION}").encode()
    public = signing_key(project.root).with_name("retrain.key.pub")
    assert project.run("git", "show", f"{version.commit}:{PUBLIC_KEY}").strip() == public.read_text().strip()
    checked = check(Repository(project.root), signed, public, version.commit)
    assert checked.holds and checked.complete and checked.files > 1
    assert "arm@sm_iso_update-1" in project.run("git", "show", f"{version.commit}:{CARD}")


# The real pipeline


@pytest.fixture
def served(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A fresh clone on the smoke profile, with a server and workers of its own, as `make serve` starts them.

    Only that this server looks for new schedules more often than once a minute.
    """
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "3")
    clone = Clone.of(origin, tmp_path / "clone")
    project = Project(clone.root)
    commit(project)
    port = free_port()
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: clone.root / ".prefect"}
    with serving(clone.root, port, 2, 1, {**LIMITS, "gpu": 0}), temporary_settings(settings):
        yield project


def train(project: Project, steps: int) -> None:
    """Commit another number of training steps."""
    output, conf = str(project.root / "params.yaml"), str(project.root / "conf")
    overrides = ["profile=smoke", f"arms.training.steps={steps}"]
    compose_and_dump(output, conf, None, "config", "hydra_plugins", overrides)
    commit(project)


def bring(project: Project, name: str, *lines: str) -> None:
    """Put a file of new documents into the incoming folder."""
    (project.root / "data/incoming" / name).write_text("".join(f"{line}\n" for line in lines))


def document(seed: int) -> str:
    """A record with a new document."""
    return json.dumps({"text": "\n".join(f"def f{seed + n}(x):\n    return x + {n}\n" for n in range(80))})


def by_schedule(project: Project) -> FlowRun:
    """The run that a schedule starts, at its end."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        soon = datetime.now(UTC) + timedelta(seconds=15)
        schedule = IntervalSchedule(interval=timedelta(minutes=1), anchor_date=soon)
        (made,) = client.create_deployment_schedules(deployment.id, [(schedule, True)])
        wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))

        def begun() -> list[FlowRun]:
            runs = client.read_flow_runs(flow_run_filter=wanted)
            return [run for run in runs if run.state is not None and run.state.is_running()]

        (run, *_) = until(begun, "the schedule")
        client.delete_deployment_schedule(deployment.id, made.id)
    assert run.auto_scheduled
    Flow(project, run.id).end(limit=1200)
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


@pytest.mark.slow
def test_a_better_candidate_is_promoted_and_a_worse_one_is_not(served: Project) -> None:
    with untouched(served):
        run = by_schedule(served)
        assert run.state is not None and run.state.message == Outcome.FIRST, run.state
    first = champion(served.root)

    train(served, 2)
    bring(served, "new.jsonl", document(1), document(100), '{"text": "cut o')
    with untouched(served):
        worse = start(served)
        assert end(worse) == Outcome.KEPT, table(worse)
        assert champion(served.root) == first
        assert "nll" in table(worse)["reason 1"]
        ran = trained(served)
        again = start(served)
        assert end(again) == Outcome.TRIED
        assert champion(served.root) == first and trained(served) == ran + 1, "the snapshot alone"

    train(served, 60)  # the same documents, to be learnt in another way
    with untouched(served):
        better = start(served)
        assert end(better) == Outcome.PROMOTED, table(better)
        now = champion(served.root)
        assert now is not None and first is not None and (first.name, now.name) == ("v0.0.1", "v0.0.2")
        found = table(better)
        assert found["new documents"] == "2 of 3 records, from folder" and found["champion"] == "v0.0.2"
        assert found["new.jsonl, record 3"].startswith("not valid JSON")
        assert_record(served, now, found["branch of the candidate"])
        known = start(served)
        assert end(known) == Outcome.NOTHING_NEW
        assert table(known)["dropped: known"] == "2" and champion(served.root) == now


def assert_record(project: Project, now: Version, branch: str) -> None:
    """What the champion's branch tells of it, and that the registry's model is the one that it tells of."""
    report = json.loads(project.run("git", "show", f"{branch}:reports/retrain.json"))
    assert report["champion"] == "v0.0.1" and report["decision"]["promoted"]
    assert report["decision"]["metrics"]["nll"]["low"] > 0
    assert report["revision"] == project.run("git", "rev-parse", "HEAD").strip()
    (entry,) = project.run("git", "show", f"{branch}:reports/quarantine.jsonl").splitlines()
    assert json.loads(entry)["record"] == 3
    lock = yaml.safe_load(project.run("git", "show", f"{now.commit}:dvc.lock"))["stages"]
    (model,) = [out for out in lock["arm@sm_iso_update-1"]["outs"] if out["path"] == MODEL]
    assert model["md5"] == report["decision"]["hashes"]["candidate"]
    assert_attested(project, now)
    found = verify(Repository(project.root), now.commit, MODEL)
    assert found.holds and found.complete, found.findings
    project.run("dvc", "get", "--rev", "mdlm@v0.0.2", ".", MODEL, "--out", "../got")
    assert (project.root.parent / "got/model.safetensors").stat().st_size > 0
