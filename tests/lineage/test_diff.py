"""`diff` of simulated histories: the same kind of change at other places, and two states that both were changed.

`test_kinds_of_change.py` has each kind once and all pairs of them against the first commit.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lineage.changes import Change, Effect
from lineage.cli import app
from lineage.diff import Difference, diff
from lineage.model import Fault
from lineage.repository import Repository
from tests.lineage.simulated import METRICS, PARTS, RAW, REPORT, SHARED, Project, Stage, flip
from tests.lineage.test_kinds_of_change import KINDS, TRAININGS, corrupted, forged, named, parameter, tampered
from tests.pipeline.clones import run

Named = set[tuple[str | None, str]]
START = "start"


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A copy that may be changed."""
    return simulated.copied(tmp_path / "project")


def compared(project: Project, a: str | None = "HEAD", b: str | None = None) -> Difference:
    """What differs, by default between what was committed and what lies here."""
    return diff(Repository(project.root), a, b)


def kept(project: Project, path: str) -> Path:
    """Where the cache has an output; of a folder, its list."""
    outs = (out for entry in project.lock().values() for out in entry["outs"])
    return next(project.place(out["md5"]) for out in outs if out["path"] == path)


def test_a_stage_that_only_one_side_has_is_named(project: Project) -> None:
    project.stages["more"] = Stage(
        "more", (), (METRICS,), (), "more.txt", lambda made: {"more.txt": b"1"}, cached=False
    )
    project.run()
    project.commit("one more")
    assert named(compared(project, "HEAD^", "HEAD")) == {("more", Change.ADDED)}
    assert named(compared(project, "HEAD", "HEAD^")) == {("more", Change.REMOVED)}


@pytest.mark.parametrize("ran", [True, False])
def test_a_file_that_was_moved_is_named_as_such(project: Project, ran: bool) -> None:
    project.write("code/layout.py", b"WIDTH = 80\n")
    for path in ("code/layout.py", "layout.py"):
        project.stages["report"] = replace(project.stages["report"], code=(path,))
        if not (project.root / path).exists():
            run(["git", "mv", "code/layout.py", path], project.root)
        project.run()
        project.commit(path)
    if not ran:
        project.write_lock({name: entry for name, entry in project.lock().items() if name != "report"})
        project.commit("not run")
    moved = [e for e in compared(project, "HEAD^" if ran else "HEAD~2", "HEAD").entries if e.kind is Change.MOVED]
    assert [(e.run, e.what) for e in moved] == [("report", "code/layout.py -> layout.py")]
    assert moved[0].effect is (Effect.IDENTICAL if ran else Effect.NOT_RUN)


# The same kinds at other places


def edit(path: str, old: str, new: str) -> Callable[[Project], None]:
    """An edit that is run."""

    def change(project: Project) -> None:
        project.replace(path, old, new)
        project.run()

    return change


def command(project: Project) -> None:
    for name in TRAININGS:
        stage = project.stages[name]
        project.stages[name] = replace(stage, command=f"{stage.command} --fast")
    project.run()


def fewer_rows(project: Project) -> None:
    project.write(RAW, b"3\n1\n")
    project.track()
    project.run()


RAN: list[tuple[Callable[[Project], None], Named, set[str]]] = [
    (edit("params.yaml", "limit: 50", "limit: 10"), {("prepare", Change.PARAMETER)}, {"split", *TRAININGS}),
    (edit("params.yaml", "limit: 50", "limit: 51"), {("prepare", Change.PARAMETER)}, set()),
    (edit("code/prepare.py", "FACTOR = 2", "FACTOR = 1"), {("prepare", Change.CODE)}, {"split", *TRAININGS}),
    (edit("code/train.py", "FACTOR = 5", "FACTOR = 4"), {(run, Change.CODE) for run in TRAININGS}, set()),
    (edit(SHARED, "FACTOR = 3", "FACTOR = 1"), {(run, Change.CODE) for run in ("prepare", *TRAININGS)}, {"split"}),
    (edit("code/evaluate.py", "FACTOR", "# why\nFACTOR"), {("evaluate", Change.COMMENT)}, set()),
    (edit("params.yaml", "repo: org/data", "repo: org/other"), {("prepare", Change.PARAMETER)}, set()),
    (command, {(run, Change.COMMAND) for run in TRAININGS}, set()),
    (fewer_rows, {(f"{RAW}.dvc", Change.ROWS)}, {"prepare", "split", "train@b-1"}),
]


@pytest.mark.parametrize(("change", "expected", "carried"), RAN)
def test_what_was_run_is_named_where_it_entered(
    project: Project, change: Callable[[Project], None], expected: Named, carried: set[str]
) -> None:
    change(project)
    difference = compared(project)
    assert named(difference) == expected
    assert set(difference.carried) - {"evaluate", "report"} == carried - {run for run, _ in expected}


def test_a_change_without_an_effect_is_said_to_have_none(project: Project) -> None:
    edit("params.yaml", "limit: 50", "limit: 51")(project)
    difference = compared(project)
    (entry,) = difference.entries
    assert entry.effect is Effect.IDENTICAL and not difference.carried and not difference.results


def test_a_change_below_another_is_told_apart_from_it(project: Project) -> None:
    project.replace("code/train.py", "FACTOR = 5", "FACTOR = 4")
    fewer_rows(project)
    difference = compared(project)
    effects = {(entry.run, entry.effect) for entry in difference.entries}
    assert effects == {(f"{RAW}.dvc", Effect.CHANGED), *((run, Effect.MIXED) for run in TRAININGS)}
    assert set(difference.carried) == {"prepare", "split", "evaluate", "report"}
    assert {result.path for result in difference.results} == {METRICS, REPORT}


LAIN: list[tuple[str, Named]] = [
    (METRICS, {("evaluate", Fault.METRIC)}),
    (REPORT, {("report", Fault.OUTPUT)}),
    (RAW, {(f"{RAW}.dvc", Fault.OUTPUT)}),
    (f"{PARTS}/a.txt", {("split", Fault.OUTPUT)}),
    ("meta/train@a-1/manifest.json", {("train@a-1", Fault.OUTPUT)}),
]


@pytest.mark.parametrize(("path", "expected"), LAIN)
def test_a_flipped_bit_of_what_lies_here_is_named(project: Project, path: str, expected: Named) -> None:
    flip(project.root / path)
    there, back = compared(project), compared(project, None, "HEAD")
    assert {(entry.run, entry.kind) for entry in there.entries} >= expected
    assert {run for run, _ in named(there)} == {run for run, _ in expected}
    assert {entry.mirrored() for entry in there.entries} == set(back.entries)
    assert not there.carried and not there.results


# What was not run again, and what nothing explains

STALE = ("evaluate", Fault.STALE)


def partial(project: Project) -> None:
    """`dvc repro` of the trainings alone, with another rate."""
    project.commit(START)
    project.replace("params.yaml", "rate: 2", "rate: 3")
    project.run(only=TRAININGS)
    project.commit("partial")


def ended(project: Project, monkeypatch: pytest.MonkeyPatch, a: str, b: str) -> tuple[int, str]:
    """How `diff` ends, and what it says."""
    monkeypatch.chdir(project.root)
    found = CliRunner().invoke(app, ["diff", a, b])
    return found.exit_code, found.output


def test_a_run_that_was_not_run_again_is_stale_and_no_fault(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    partial(project)
    difference = compared(project, "HEAD~1", "HEAD")
    assert named(difference) == {STALE, *((run, Change.PARAMETER) for run in TRAININGS)}
    (told,) = {(e.before, e.after) for e in difference.entries if e.kind is Fault.STALE and e.what == "models/a.txt"}
    assert told[0] is None and "changed since: parameter params.yaml: train.rate 2 -> 3" in told[1]
    assert not difference.is_wrong and ended(project, monkeypatch, "HEAD~1", "HEAD")[0] == 0
    back = compared(project, "HEAD", "HEAD~1")
    assert sorted(map(str, back.entries)) == sorted(str(entry.mirrored()) for entry in difference.entries)
    assert compared(project, "HEAD", "HEAD").is_empty


def test_what_a_stale_run_makes_when_it_is_run_follows_from_that(project: Project) -> None:
    partial(project)
    project.run()
    project.commit("whole")
    difference = compared(project, "HEAD~1", "HEAD")
    assert named(difference) == {STALE} and difference.carried == ("evaluate", "report")


def test_what_is_read_of_a_folder_of_outputs_is_stale_too(project: Project) -> None:
    project.stages["evaluate"] = replace(project.stages["evaluate"], inputs=("models",))
    project.run()
    partial(project)
    assert named(compared(project, "HEAD~1", "HEAD")) == {STALE, *((run, Change.PARAMETER) for run in TRAININGS)}


def test_a_stale_run_s_output_that_was_changed_is_not_explained_by_that(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "plain", manifests=False)
    partial(project)
    project.replace(METRICS, '"score": ', '"score": 1')
    lock = project.lock()
    project.write_lock({**lock, "evaluate": {**lock["evaluate"], "outs": [project._entry(METRICS)]}})
    project.commit("forged")
    found = named(compared(project, "HEAD~2", "HEAD"))
    assert {STALE, ("evaluate", Change.UNEXPLAINED)} <= found


def test_a_forgery_of_output_lock_and_commit_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.new(tmp_path / "plain", manifests=False)
    forged(project)
    project.commit("forged")
    code, said = ended(project, monkeypatch, "HEAD~1", "HEAD")
    assert code == 1 and "Doesn't repeat, or was tampered with" in said


# The cache, which two states share or don't


def test_an_object_that_both_have_is_wrong_on_both_sides(project: Project) -> None:
    project.commit(START)
    parameter(project)
    flip(kept(project, PARTS))
    difference = compared(project)
    assert {(f.run, f.fault) for f in difference.common} == {("split", Fault.CACHE)}
    assert {(e.run, e.kind) for e in difference.entries} == {(run, Change.PARAMETER) for run in TRAININGS}


@pytest.mark.parametrize(("a", "b"), [("HEAD~1", "HEAD"), ("HEAD", "HEAD~1")])
def test_an_object_that_one_side_has_is_a_difference(project: Project, a: str, b: str) -> None:
    parameter(project)
    project.commit("slower")
    flip(kept(project, REPORT))
    difference = compared(project, a, b)
    assert not difference.common
    (entry,) = [e for e in difference.entries if e.kind is Fault.CACHE]
    said = (entry.before, entry.after)
    assert entry.run == "report" and [text is None for text in said] == [b == "HEAD", a == "HEAD"]


# Environments


def test_packages_that_no_run_knows_are_named_beside_those_that_some_do(project: Project) -> None:
    project.replace("requirements.lock", "numpy==1.0\nscipy==2.0", "numpy==1.1\nscipy==2.1")
    project.run(force=["train@a-1"])
    project.commit("two packages")
    difference = compared(project, "HEAD~1", "HEAD")
    found = {(entry.run, entry.kind, entry.what) for entry in difference.entries}
    assert found == {
        ("train@a-1", Change.ENVIRONMENT, "numpy"),
        ("evaluate", Change.ENVIRONMENT, "numpy"),
        ("report", Change.ENVIRONMENT, "numpy"),
        (None, Change.ENVIRONMENT, "requirements.lock: scipy"),
    }


def test_a_version_that_a_run_did_not_have_explains_nothing_of_it(project: Project) -> None:
    project.stages["split"] = replace(
        project.stages["split"], run=lambda _: {PARTS: {"a.txt": b"1", "more/b.txt": b"2"}}
    )
    project.run(force=["split"])  # with the same version, by its manifest
    project.replace("requirements.lock", "numpy==1.0", "numpy==1.1")
    project.run(force=["train@a-1"])
    project.commit("chance, and another version")
    difference = compared(project, "HEAD~1", "HEAD")
    assert ("split", Change.UNEXPLAINED) in named(difference)
    assert {entry.run for entry in difference.entries if entry.kind is Change.ENVIRONMENT} == {
        "train@a-1",
        "evaluate",
        "report",
    }


def test_without_manifests_the_lock_of_the_environment_explains_what_nothing_else_does(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "plain", manifests=False)
    project.replace("requirements.lock", "numpy==1.0", "numpy==1.1")
    project.run(force=["train@a-1"])
    project.commit("another version")
    difference = compared(project, "HEAD~1", "HEAD")
    assert {(e.run, e.kind, e.what, e.before, e.after) for e in difference.entries} == {
        ("train@a-1", Change.ENVIRONMENT, "requirements.lock: numpy", "1.0", "1.1")
    }
    assert set(difference.carried) == {"evaluate", "report"}


# Two states that both were changed


HONEST = st.lists(st.sampled_from(range(len(KINDS))), min_size=1, max_size=3, unique=True).map(sorted)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HONEST, HONEST)
def test_the_other_way_round_is_the_mirror_image(
    simulated: Project, tmp_path_factory: pytest.TempPathFactory, first: list[int], then: list[int]
) -> None:
    project = simulated.copied(tmp_path_factory.mktemp("mirrored") / "project")
    for kind in (KINDS[i] for i in first if KINDS[i] not in (tampered, corrupted)):
        kind(project)
    project.commit("one")
    for kind in (KINDS[i] for i in then if i not in first):
        kind(project)
    there, back = compared(project), compared(project, None, "HEAD")
    assert sorted(map(str, back.entries)) == sorted(str(entry.mirrored()) for entry in there.entries)
    assert set(back.carried) == set(there.carried) and set(back.common) == set(there.common)
    swapped = {(r.path, r.after, r.before, tuple((k, b, a) for k, a, b in r.numbers)) for r in back.results}
    assert swapped == {(r.path, r.before, r.after, r.numbers) for r in there.results}
    assert compared(project, None, None).is_empty and compared(project, "HEAD", "HEAD").is_empty
    shutil.rmtree(project.root)


# The command line


def test_exit_codes_and_json(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    runner = CliRunner()
    same = runner.invoke(app, ["diff", "HEAD"])
    assert same.exit_code == 0 and "nothing differs" in same.output
    parameter(project)
    assert runner.invoke(app, ["diff", "HEAD"]).exit_code == 0
    kept(project, PARTS).unlink()
    assert runner.invoke(app, ["diff", "HEAD"]).exit_code == 3
    flip(project.root / REPORT)
    wrong = runner.invoke(app, ["diff", "HEAD", "--json"])
    assert wrong.exit_code == 1
    assert "output tampered" in {entry["kind"] for entry in json.loads(wrong.output)["entries"]}


@pytest.mark.parametrize(
    ("path", "content"), [("dvc.lock", b"<<<<<<< HEAD\n"), ("dvc.yaml", b"stages: ["), ("dvc.yaml", b"stages: 3")]
)
def test_what_can_not_be_read_is_no_agreement(
    project: Project, monkeypatch: pytest.MonkeyPatch, path: str, content: bytes
) -> None:
    project.write(path, content)
    difference = compared(project)
    assert difference.is_empty and any(gap.where == f"workspace: {path}" for gap in difference.gaps)
    monkeypatch.chdir(project.root)
    said = CliRunner().invoke(app, ["diff", "HEAD"])
    assert said.exit_code == 3 and "nothing that could be read differs" in said.output


# Experiments that wait


@pytest.mark.slow
def test_a_queued_experiment_is_what_was_not_run_since(project: Project) -> None:
    run(["dvc", "exp", "run", "--queue", "--name", "waiting", "--set-param", "train.rate=9"], project.root)
    difference = compared(project, "HEAD", "waiting")
    assert {(e.run, e.kind, e.before, e.after, e.effect) for e in difference.entries} == {
        (name, Change.PARAMETER, 2, 9, Effect.NOT_RUN) for name in TRAININGS
    }
    assert not difference.carried and not difference.results and not difference.common
    assert compared(project, "waiting", "waiting").is_empty
