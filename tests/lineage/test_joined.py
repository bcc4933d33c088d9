"""Runs are joined by the hashes that they recorded: what a partial repro left is traced to the run that made it."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lineage.attestation import attest, check
from lineage.card import card
from lineage.cli import app
from lineage.errors import AuditError, Missing
from lineage.export.formats import export
from lineage.export.kinds import Format
from lineage.history import history
from lineage.repository import Repository
from lineage.results import measured
from lineage.signing import generate_key
from lineage.trace import Role, Step, Trace, trace
from tests.lineage.projects import commit, write
from tests.lineage.simulated import METRICS, Project
from tests.pipeline.clones import run

TRAININGS = ("train@a-1", "train@b-1")


class Partial(Project):
    """The simulated project, of which only the trainings were run again with another rate (2, then 9)."""

    first: str
    second: str


@pytest.fixture(scope="module")
def partial(simulated: Project, tmp_path_factory: pytest.TempPathFactory) -> Partial:
    """Its evaluation, of the first commit, read models that nothing in the second one's dvc.lock makes."""
    copy = simulated.copied(tmp_path_factory.mktemp("partial") / "project")
    project = Partial(copy.root, copy.manifests, copy.stages, copy.environments)
    project.first = head(project)
    project.replace("params.yaml", "rate: 2", "rate: 9")
    project.run(only=TRAININGS)
    project.second = project.commit("trained only")
    return project


def head(project: Project) -> str:
    """What is checked out."""
    return run(["git", "rev-parse", "HEAD"], project.root).strip()


def rates(traced: Trace) -> dict[str, Any]:
    """Training -> the rate that it ran with."""
    return {s.name: p.value for s in traced.steps for p in s.parameters if p.key == "train.rate"}


def named(traced: Trace, name: str) -> Step:
    """A run of a closure."""
    return next(step for step in traced.steps if step.name == name)


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_the_run_that_made_what_was_read_is_named_with_its_commit(partial: Partial, revision: str | None) -> None:
    traced = trace(Repository(partial.root), f"{METRICS}:score", revision)
    past = tuple(f"{name} ({partial.first[:10]})" for name in TRAININGS)
    assert rates(traced) == dict.fromkeys(past, 2)
    read = {i.file.path: i.producers for i in named(traced, "evaluate").inputs if i.role is Role.ARTIFACT}
    assert read == {"models/a.txt": past[:1], "models/b.txt": past[1:]}
    step = named(traced, past[0])
    assert (step.address, step.past) == ("train@a-1", partial.first)
    assert step.recorded is not None and step.recorded.id == partial.first
    assert traced.gaps == ()
    assert rates(trace(Repository(partial.root), "models/a.txt", revision)) == {"train@a-1": 9}


def test_a_circle_is_a_gap(partial: Partial, tmp_path: Path) -> None:
    project = partial.copied(tmp_path / "project")
    lock = project.lock()
    made = next(out for out in lock["evaluate"]["outs"] if out["path"] == METRICS)
    lock["prepare"]["deps"].append(dict(made))
    project.write_lock(lock)
    project.commit("in a circle")
    assert any("in a circle" in gap.what for gap in trace(Repository(project.root), METRICS, "HEAD").gaps)
    assert not any("circle" in gap.what for gap in trace(Repository(partial.root), METRICS, "HEAD").gaps)


def test_what_nothing_in_history_made_is_a_gap(partial: Partial, tmp_path: Path) -> None:
    project = partial.copied(tmp_path / "project")
    lock = project.lock()
    lock["evaluate"]["deps"][1]["md5"] = "0" * 31 + "1"
    project.write_lock(lock)
    project.commit("read something else")
    traced = trace(Repository(project.root), METRICS, "HEAD")
    lost = next(i for i in named(traced, "evaluate").inputs if i.file.path == "models/a.txt")
    assert (lost.role, lost.producers) == (Role.LOST, ())
    assert [gap.where for gap in traced.gaps] == ["models/a.txt"]
    assert "evaluate read 00000000000000000000000000000001" in traced.gaps[0].what
    assert "train@a-1 made" in traced.gaps[0].what


@pytest.mark.parametrize("arguments", [["trace"], ["trace", "--json"], ["export", "--format", "prov"], ["card"]])
def test_a_gap_has_its_exit_code_in_every_command(
    partial: Partial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    project = partial.copied(tmp_path / "project")
    project.write("dvc.lock", project.text("dvc.lock").replace(lock_hash(partial, "evaluate"), "1" * 31 + "2").encode())
    monkeypatch.chdir(project.root)
    found = CliRunner().invoke(app, [arguments[0], METRICS, *arguments[1:]])
    assert (found.exit_code, found.exception.__class__) == (3, SystemExit)


def lock_hash(project: Project, stage: str) -> str:
    """Of the first input of a stage that isn't code."""
    return next(str(dep["md5"]) for dep in project.lock()[stage]["deps"] if "code" not in dep["path"])


def test_prov_claims_no_use_that_was_not(partial: Partial) -> None:
    document = json.loads(export(Repository(partial.root), METRICS, Format.PROV, "HEAD").data)
    first = {dep["path"]: dep["md5"] for dep in partial.lock()["evaluate"]["deps"]}
    used = {u["prov:entity"] for u in document["used"].values() if u["prov:activity"] == "run:evaluate"}
    hashes = {document["entity"][name]["dvc:path"]: document["entity"][name]["dvc:md5"] for name in used}
    assert hashes == first
    makers = {g["prov:entity"]: g["prov:activity"] for g in document["wasGeneratedBy"].values()}
    assert makers["file:models/a.txt"] == f"run:train%40a-1%20%28{partial.first[:10]}%29"
    assert '\\"value\\": 2}' in json.dumps(document["activity"])
    assert '\\"value\\": 9}' not in json.dumps(document["activity"])


def test_openlineage_has_the_job_and_the_run_that_it_really_was(partial: Partial) -> None:
    lines = export(Repository(partial.root), METRICS, Format.OPENLINEAGE, "HEAD").data.decode().splitlines()
    runs = [e for e in map(json.loads, lines) if e["job"]["name"] == "train@a-1"]
    assert len(runs) == 2
    parameters = {p["key"]: p["value"] for p in runs[0]["run"]["facets"]["lineage_parameters"]["parameters"]}
    assert parameters["train.rate"] == "2"
    assert runs[0]["run"]["facets"]["lineage_record"]["commit"] == partial.first


def test_numbers_of_another_model_are_not_on_the_card(partial: Partial) -> None:
    """The evaluation of the second commit is of the first one's models."""
    repository = Repository(partial.root)
    assert [m.path for m in measured(repository, trace(repository, "models/a.txt", "HEAD"))] == []
    assert [m.path for m in measured(repository, trace(repository, "models/a.txt", partial.first))] == [METRICS]
    assert "train.rate" not in card(repository, METRICS, "HEAD").text.partition(f"train@a-1 ({partial.first[:10]})")[0]


def test_a_hash_that_was_read_is_traced_to_its_maker(partial: Partial) -> None:
    digest = lock_hash(partial, "evaluate")
    traced = trace(Repository(partial.root), digest, "HEAD")
    assert traced.target.runs == (f"train@a-1 ({partial.first[:10]})",)
    assert [step.name for step in traced.steps][-1] == traced.target.runs[0]


@pytest.mark.parametrize("target", [f"{METRICS}:score", METRICS])
def test_a_value_is_that_of_the_recorded_bytes_or_none(
    partial: Partial, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = partial.copied(tmp_path / "project")
    recorded = json.loads(project.text(METRICS))["score"]
    project.write(METRICS, json.dumps({"score": recorded - 2}).encode())
    if target == METRICS:
        assert trace(Repository(project.root), target).target.value is None
        return
    with pytest.raises(Missing, match="the record says"):
        trace(Repository(project.root), target)
    project.keep(partial.text(METRICS).encode())
    assert trace(Repository(project.root), target).target.value == recorded
    monkeypatch.chdir(project.root)
    project.place(next(o["md5"] for o in project.lock()["evaluate"]["outs"] if o["path"] == METRICS)).unlink()
    found = CliRunner().invoke(app, ["trace", target])
    assert isinstance(found.exception, Missing)


def test_code_has_the_blob_that_was_read_or_none(partial: Partial, tmp_path: Path) -> None:
    project = partial.copied(tmp_path / "project")
    before = named(trace(Repository(project.root), METRICS), "evaluate").inputs[0]
    assert before.blob is not None
    project.replace("code/evaluate.py", "7", "11")
    project.commit("another evaluation, not run")
    after = named(trace(Repository(project.root), METRICS), "evaluate").inputs[0]
    assert after == before
    run(["git", "rm", "--quiet", "code/evaluate.py"], project.root)
    project.commit("gone")
    gone = named(trace(Repository(project.root), METRICS, "HEAD"), "evaluate").inputs[0]
    assert gone == before and gone.role is Role.CODE  # git kept it, and still has it


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key, with its public one beside it."""
    file = tmp_path_factory.mktemp("keys") / "key"
    generate_key(file)
    return file


def test_an_attestation_has_the_files_of_every_commit_as_they_were_there(
    partial: Partial, key: Path, tmp_path: Path
) -> None:
    project, public = partial.copied(tmp_path / "project"), key.with_name("key.pub")
    repository = Repository(project.root)
    signed = attest(repository, METRICS, key, "HEAD")
    statement = json.loads(b64decode(json.loads(signed)["payload"]))
    files = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    former = {each["name"]: each["digest"]["md5"] for each in files if "commit" in each.get("annotations", {})}
    read = {dep["path"]: dep["md5"] for dep in partial.lock()["evaluate"]["deps"] if "models" in dep["path"]}
    manifests = {f"meta/{name}/manifest.json" for name in TRAININGS}
    assert former.keys() == {*read, *manifests, "params.yaml", "code/train.py"} and read.items() <= former.items()
    for revision in ("HEAD", None):
        assert check(repository, signed, public, revision).differing == ()
    project.place(read["models/a.txt"]).chmod(0o644)
    project.place(read["models/a.txt"]).write_bytes(b"another model")
    assert [d.path for d in check(repository, signed, public, "HEAD").differing] == ["models/a.txt"]
    project.place(read["models/a.txt"]).unlink()
    assert check(repository, signed, public, "HEAD").missing == ("models/a.txt",)
    with pytest.raises(Missing, match=r"models/a\.txt"):
        attest(Repository(project.root), METRICS, key, "HEAD")


def test_what_no_run_made_is_not_attested(partial: Partial, key: Path, tmp_path: Path) -> None:
    project = partial.copied(tmp_path / "project")
    project.write("dvc.lock", project.text("dvc.lock").replace(lock_hash(partial, "evaluate"), "1" * 31 + "2").encode())
    with pytest.raises(Missing, match="no run of history that is here made it as it was read"):
        attest(Repository(project.root), METRICS, key)


def test_a_stage_that_is_called_as_a_file_is_not_taken_for_it(simulated: Project, tmp_path: Path) -> None:
    project = simulated.copied(tmp_path / "project")
    project.write_lock({**project.lock(), METRICS: {"cmd": "x"}, f"{METRICS}:score": {"cmd": "x"}})
    repository = Repository(project.root)
    for target in (METRICS, f"{METRICS}:score"):
        with pytest.raises(AuditError, match="names a stage, and what another stage makes"):
            trace(repository, target)
        assert trace(repository, f"./{target}").target.runs == ("evaluate",)
        assert trace(repository, f"dvc.yaml:{target}").target.runs == (target,)


def test_a_projects_own_file_goes_before_one_of_that_name_that_it_reads(tmp_path: Path) -> None:
    root = tmp_path / "team"
    stages = (
        "stages:\n  copy:\n    cmd: cp ../m.json m.json\n    deps: [../m.json]\n    metrics: [m.json: {cache: false}]\n"
    )
    write(tmp_path, {"m.json": '{"a": 1}', "team/dvc.yaml": stages})
    run(["git", "init", "--quiet", "--initial-branch=main"], tmp_path)
    run(["dvc", "init", "--quiet", "--subdir"], root)
    run(["dvc", "repro", "--quiet"], root)
    commit(tmp_path, "first")
    assert trace(Repository(root), "m.json:a").target.path == "team/m.json"
    write(tmp_path, {"m.json": '{"a": 2}'})
    commit(tmp_path, "another above")
    assert [row.value for row in history(Repository(root), "m.json:a").rows] == [1]
