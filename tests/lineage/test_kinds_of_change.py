"""`diff` and `verify` on a simulated history, in which each kind of change is made alone and in pairs.

The rule: the differences that are named are those that were made, each at the run that reads what was changed, with its
kind; nothing else is named, and what follows from them is only carried.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pygit2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lineage.changes import Change, Effect
from lineage.checks.case import Case
from lineage.checks.outputs import Hashes, check_outputs
from lineage.diff import Difference, diff
from lineage.graph import Graph
from lineage.model import Fault, Finding
from lineage.repository import Repository
from lineage.states import open_state
from lineage.verify import verify
from tests.lineage.simulated import METRICS, PARTS, RAW, REPORT, ROWS, SHARED, Project, flip

Named = set[tuple[str | None, str]]
TRAININGS = ("train@a-1", "train@b-1")
DATA = f"{RAW}.dvc"


# The kinds of change: what is done, and what has to be named


def parameter(project: Project) -> Named:
    project.replace("params.yaml", "rate: 2", "rate: 3")
    project.run()
    return {(run, Change.PARAMETER) for run in TRAININGS}


def code(project: Project) -> Named:
    project.replace("code/evaluate.py", "FACTOR = 7", "FACTOR = 8")
    project.run()
    return {("evaluate", Change.CODE)}


def comment(project: Project) -> Named:
    project.replace(SHARED, "FACTOR = 3", "# why three\nFACTOR = 3  # so")
    project.run()
    return {(run, Change.COMMENT) for run in ("prepare", *TRAININGS)}


def row(project: Project) -> Named:
    project.write(RAW, (project.text(RAW) + "4\n").encode())
    project.track()
    project.run()
    return {(DATA, Change.ROWS)}


def order(project: Project) -> Named:
    project.write(RAW, "".join(reversed(project.text(RAW).splitlines(keepends=True))).encode())
    project.track()
    project.run()
    return {(DATA, Change.ORDER)}


def version(project: Project) -> Named:
    project.replace("requirements.lock", "numpy==1.0", "numpy==1.1")
    project.run(force=["train@a-1"])
    return set()  # `named_environments` says at which runs


def seed(project: Project) -> Named:
    project.replace("params.yaml", "seed: 1", "seed: 2")
    project.run()
    return {(run, Change.SEED) for run in TRAININGS}


def command(project: Project) -> Named:
    project.stages["report"] = replace(project.stages["report"], command="report --long")
    project.run()
    return {("report", Change.COMMAND)}


def source(project: Project) -> Named:
    project.replace("params.yaml", "0123456789", "1123456789")
    project.run()
    return {("prepare", Change.SOURCE)}


def forged(project: Project) -> Named:
    """`dvc commit -f` of a false output, after which what reads it is run."""
    project.put("models/a.txt", b"999 1 numpy 1.0\n", True)
    lock = project.lock()
    outs = lock["train@a-1"]["outs"]
    lock["train@a-1"]["outs"] = [project._entry(out["path"]) for out in outs]
    project.write_lock(lock)
    project.run()
    return {("train@a-1", Fault.FORGED)}


def claimed(project: Project) -> Named:
    """A parameter that is edited in file and lock, and that no run had; what is made with it is as it was."""
    project.replace("params.yaml", "limit: 50", "limit: 51")
    lock = project.lock()
    lock["prepare"]["params"]["params.yaml"]["prepare.limit"] = 51
    project.write_lock(lock)
    return {("prepare", Change.PARAMETER), ("prepare", Fault.MANIFEST)}


def merged(project: Project) -> Named:
    """`evaluate` and `report` of another branch, whose models were others."""
    other = project.copied(project.root.parent / f"{project.root.name}-other")
    other.replace("params.yaml", "rate: ", "rate: 1")
    other.run()
    ours, theirs = project.lock(), other.lock()
    project.write_lock({**ours, "evaluate": theirs["evaluate"], "report": theirs["report"]})
    for path in (METRICS, REPORT, "meta/evaluate/manifest.json", "meta/report/manifest.json"):
        project.put(path, (other.root / path).read_bytes(), path != METRICS)
    project.environments.update({run: other.environments[run] for run in ("evaluate", "report")})
    shutil.rmtree(other.root)
    return {("evaluate", Fault.LOCK)}


def tampered(project: Project) -> Named:
    flip(project.root / "models/b.txt")
    return {("train@b-1", Fault.OUTPUT)}


def edited(project: Project) -> Named:
    project.write(METRICS, project.text(METRICS).replace('"score": ', '"score": 1').encode())
    return {("evaluate", Fault.METRIC)}


def corrupted(project: Project) -> Named:
    (rows,) = [out["md5"] for out in project.lock()["prepare"]["outs"] if out["path"] == ROWS]
    flip(project.place(rows))
    return {("prepare", Fault.CACHE)}


RUNS = (version, parameter, code, comment, row, order, seed, command, source)
TAMPERINGS = (forged, claimed, merged, tampered, edited, corrupted)
KINDS: tuple[Callable[[Project], Named], ...] = (*RUNS, *TAMPERINGS)
"""In the order in which they can be made: what lies here is tampered with last."""
assert len(KINDS) == 15


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Project:
    """The project before any change."""
    return Project.new(tmp_path_factory.mktemp("simulated") / "first")


def named(difference: Difference) -> Named:
    """(Run, kind) of everything that is named, on one side or on both."""
    return {(e.run, e.kind) for e in difference.entries} | {(f.run, f.fault) for f in difference.common}


def named_environments(before: Project, after: Project) -> Named:
    """The runs that were last made with another version: what the simulator knows."""
    return {(r, Change.ENVIRONMENT) for r, v in after.environments.items() if before.environments[r] != v}


def made(first: Project, folder: Path, kinds: Iterable[Callable[[Project], Named]]) -> tuple[Project, Named]:
    """A project with changes, the last state not committed where it was tampered with; and what has to be named."""
    project = first.copied(folder / "changed")
    expected: Named = set()
    for kind in kinds:
        expected |= kind(project)
        if kind not in (tampered, corrupted):
            project.commit(kind.__name__)
    if {row, order} <= set(kinds):
        expected -= {(DATA, Change.ORDER)}  # together they are other rows
    return project, expected | named_environments(first, project)


@pytest.mark.parametrize(
    "kinds",
    [*((kind,) for kind in KINDS), *combinations(KINDS, 2)],
    ids=lambda kinds: "-and-".join(k.__name__ for k in kinds),
)
def test_every_change_is_named_at_its_run_with_its_kind_and_nothing_else_is(
    first: Project, tmp_path: Path, kinds: tuple[Callable[[Project], Named], ...]
) -> None:
    project, expected = made(first, tmp_path, kinds)
    difference = diff(Repository(project.root), _root(project), None)
    assert named(difference) == expected
    assert not set(difference.carried) & {run for run, kind in expected if kind not in tuple(Fault)}
    back = diff(Repository(project.root), None, _root(project))
    assert sorted(map(str, back.entries)) == sorted(str(entry.mirrored()) for entry in difference.entries)
    assert set(back.carried) == set(difference.carried)


def _root(project: Project) -> str:
    git = pygit2.Repository(str(project.root))
    return str([*git.walk(git.head.target)][-1].id)


# Effects


def test_a_comment_is_told_from_code_by_what_it_did(first: Project, tmp_path: Path) -> None:
    project, _ = made(first, tmp_path, [comment])
    entries = diff(Repository(project.root), _root(project), None).entries
    assert {entry.effect for entry in entries} == {Effect.IDENTICAL}


@pytest.mark.parametrize("kind", [claimed, forged], ids=lambda kind: kind.__name__)
def test_what_a_manifest_contradicts_is_not_said_to_have_had_an_effect(
    first: Project, tmp_path: Path, kind: Callable[[Project], Named]
) -> None:
    project, _ = made(first, tmp_path, [parameter, kind])
    entries = diff(Repository(project.root), _root(project), None).entries
    (run,) = {entry.run for entry in entries if isinstance(entry.kind, Fault)}
    effects = {entry.effect for entry in entries if entry.run == run and isinstance(entry.kind, Change)}
    assert effects == {Effect.CONTRADICTED}


def test_what_follows_is_only_carried(first: Project, tmp_path: Path) -> None:
    project, _ = made(first, tmp_path, [row])
    difference = diff(Repository(project.root), _root(project), None)
    assert set(difference.carried) == {"prepare", "split", "train@b-1", "evaluate", "report"}
    assert [entry.effect for entry in difference.entries] == [Effect.CHANGED]


def test_a_comment_whose_run_made_other_bytes_does_not_pass_for_one_without_effect(
    first: Project, tmp_path: Path
) -> None:
    project = first.copied(tmp_path / "changed")
    evaluate = project.stages["evaluate"]
    project.stages["evaluate"] = replace(evaluate, run=lambda _: {METRICS: b'{"score": 0}'})
    project.replace("code/evaluate.py", "FACTOR", "# only this\nFACTOR")
    project.run()
    project.commit("a comment, and chance")
    (entry,) = diff(Repository(project.root), _root(project), None).entries
    assert (entry.run, entry.kind, entry.effect) == ("evaluate", Change.COMMENT, Effect.CHANGED)


def test_a_result_that_differs_with_nothing_different_above_is_named_for_what_it_is(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "plain", manifests=False)
    forged(project)
    project.commit("forged")
    difference = diff(Repository(project.root), _root(project), None)
    assert named(difference) == {("train@a-1", Change.UNEXPLAINED)}
    assert set(difference.carried) == {"evaluate", "report"}


def test_edits_that_were_not_run_are_waiting(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    project.replace("params.yaml", "seed: 1", "seed: 9")
    project.replace("code/train.py", "FACTOR = 5", "FACTOR = 6")
    difference = diff(Repository(project.root), "HEAD", None)
    assert named(difference) == {(run, kind) for run in TRAININGS for kind in (Change.SEED, Change.CODE)}
    assert {entry.effect for entry in difference.entries} == {Effect.NOT_RUN} and not difference.results


def test_stages_that_one_side_only_declares_are_compared_by_what_they_would_read(
    first: Project, tmp_path: Path
) -> None:
    project = first.copied(tmp_path / "changed")
    (project.root / "dvc.lock").unlink()
    project.replace("params.yaml", "seed: 1", "seed: 9")
    project.replace(SHARED, "FACTOR", "# so\nFACTOR")
    project.commit("never run")
    for a, b in ((_root(project), "HEAD"), ("HEAD", _root(project))):
        difference = diff(Repository(project.root), a, b)
        waiting = {(run, Change.SEED) for run in TRAININGS} | {(r, Change.COMMENT) for r in ("prepare", *TRAININGS)}
        assert named(difference) == waiting and {entry.effect for entry in difference.entries} == {Effect.NOT_RUN}
        assert ["6 stages" in gap.what for gap in difference.gaps] == [True]
    assert {entry.before for entry in difference.entries if entry.kind is Change.SEED} == {9}


def test_experiments_are_compared_by_their_names(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    parameter(project)
    project.experiment("faster")
    seed(project)
    project.experiment("other-seed")
    difference = diff(Repository(project.root), "faster", "other-seed", f"{METRICS}:score")
    assert {(e.run, e.kind) for e in difference.entries} == {(run, Change.SEED) for run in TRAININGS}
    scores = [json.loads(project.text(METRICS))["score"]]
    assert [difference.b.value] == scores and difference.a.value != scores[0]


# Properties

SEQUENCES = st.lists(st.sampled_from(range(len(KINDS))), max_size=4, unique=True).map(sorted)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEQUENCES)
def test_nothing_differs_from_itself(
    first: Project, tmp_path_factory: pytest.TempPathFactory, which: list[int]
) -> None:
    project, _ = made(first, tmp_path_factory.mktemp("itself"), [KINDS[i] for i in which])
    for state in (None, "HEAD"):
        assert diff(Repository(project.root), state, state).is_empty
    shutil.rmtree(project.root)


# Verification


def found(project: Project, revision: str | None = None, **options: Any) -> set[tuple[Fault, str | None, str]]:
    """Fault, run and path of everything that `verify` finds."""
    return {(f.fault, f.run, f.path) for f in verify(Repository(project.root), revision, **options).findings}


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_what_is_as_it_was_run_holds(first: Project, revision: str | None) -> None:
    assert found(first, revision) == set()


@pytest.mark.parametrize("kind", RUNS, ids=lambda kind: kind.__name__)
def test_every_honest_change_holds(first: Project, tmp_path: Path, kind: Callable[[Project], Named]) -> None:
    project, _ = made(first, tmp_path, [kind])
    assert found(project) == found(project, "HEAD") == set()


@pytest.mark.parametrize("kind", TAMPERINGS, ids=lambda kind: kind.__name__)
def test_every_tampering_is_found(first: Project, tmp_path: Path, kind: Callable[[Project], Named]) -> None:
    project, expected = made(first, tmp_path, [kind])
    verification = verify(Repository(project.root))
    faults = {(run, fault) for run, fault in expected if isinstance(fault, Fault)}
    assert {(f.run, f.fault) for f in verification.findings} == faults and not verification.holds


def outputs_of(project: Project, revision: str | None, runs: tuple[str, ...]) -> list[Finding]:
    """What hashing the outputs of some runs finds: the part of `verify` that reads bytes."""
    return [*check_outputs(Case(Graph(open_state(Repository(project.root), revision)), runs), Hashes())]


def test_every_flipped_bit_of_an_artifact_is_found(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    here = project.root / "models/b.txt"
    (kept,) = [project.place(o["md5"]) for o in project.lock()["train@b-1"]["outs"] if o["path"] == "models/b.txt"]
    for place, fault in ((here, Fault.OUTPUT), (kept, Fault.CACHE)):
        for bit in range(here.stat().st_size * 8):
            flip(place, bit)
            (finding,) = outputs_of(project, None, ("train@b-1",))
            assert (finding.fault, finding.path) == (fault, "models/b.txt")
            flip(place, bit)
    assert outputs_of(project, None, ("train@b-1",)) == []


def test_every_flipped_bit_of_a_committed_metric_is_found(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    git = pygit2.Repository(str(project.root))
    data = (project.root / METRICS).read_bytes()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        tree = git.TreeBuilder(git.head.peel(pygit2.Tree))
        tree.insert(METRICS, git.create_blob(bytes(changed)), pygit2.enums.FileMode.BLOB)
        author = git.head.peel(pygit2.Commit).author
        commit = git.create_commit(None, author, author, "edited", tree.write(), [git.head.target])
        (finding,) = outputs_of(project, str(commit), ("evaluate",))
        assert (finding.fault, finding.path) == (Fault.METRIC, METRICS)


def test_swapped_and_lost_and_added_files_are_found(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    a, b = ((project.root / f"models/{arm}.txt").read_bytes() for arm in ("a", "b"))
    project.write("models/a.txt", b)
    project.write("models/b.txt", a)
    (project.root / PARTS / "a.txt").rename(project.root / PARTS / "renamed.txt")
    flip(project.root / PARTS / "more/b.txt")
    assert found(project) == {
        (Fault.OUTPUT, "train@a-1", "models/a.txt"),
        (Fault.OUTPUT, "train@b-1", "models/b.txt"),
        *((Fault.OUTPUT, "split", f"{PARTS}/{name}") for name in ("a.txt", "renamed.txt", "more/b.txt")),
    }


def test_an_edited_list_of_a_folder_is_corrupt(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    (listing,) = [o["md5"] for o in project.lock()["split"]["outs"] if o["path"] == PARTS]
    flip(project.place(listing), 3)
    assert (Fault.CACHE, "split", PARTS) in found(project, "HEAD")


def test_missing_and_corrupt_are_told_apart(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    objects = {o["path"]: project.place(o["md5"]) for s in project.lock().values() for o in s["outs"]}
    objects[ROWS].unlink()
    verification = verify(Repository(project.root), "HEAD")
    assert verification.holds and not verification.complete
    flip(objects[REPORT])
    assert found(project, "HEAD") == {(Fault.MISSING, "prepare", ROWS), (Fault.CACHE, "report", REPORT)}


def test_a_report_that_was_not_made_again_is_stale_and_proves_nothing_wrong(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    report = project.lock()["report"]
    code(project)
    project.write_lock({**project.lock(), "report": report})
    project.commit("metrics made anew, the report left as it was")
    (finding,) = verify(Repository(project.root), "HEAD").findings
    assert (finding.fault, finding.run, finding.path) == (Fault.STALE, "report", METRICS) and not finding.proves_wrong
    assert "changed since: code code/evaluate.py" in finding.what


def test_what_was_changed_after_the_run_is_found(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    project.replace("code/train.py", "FACTOR = 5", "FACTOR = 6")
    project.replace("params.yaml", "seed: 1", "seed: 9")
    project.replace("dvc.yaml", "cmd: report", "cmd: report --more")
    project.commit("changed, and not run")
    assert found(project, "HEAD") == {
        *((Fault.CODE, run, "code/train.py") for run in TRAININGS),
        *((Fault.PARAMETER, run, "params.yaml") for run in TRAININGS),
        (Fault.COMMAND, "report", "dvc.yaml"),
    }


def test_uncommitted_code_is_found_though_it_was_run(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    project.replace("code/evaluate.py", "FACTOR = 7", "FACTOR = 8")
    project.run()
    faults = found(project)
    assert (Fault.UNCOMMITTED, "evaluate", "code/evaluate.py") in faults and (
        Fault.UNCOMMITTED,
        None,
        "dvc.lock",
    ) in faults
    assert {fault for fault, _, _ in faults} == {Fault.UNCOMMITTED}


def test_sources_that_can_change_are_found(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    project.replace("params.yaml", project.params()["source"]["revision"], "main")
    project.write(".gitignore", (project.text(".gitignore") + "/code/shared.py\n").encode())
    project.run()
    git = pygit2.Repository(str(project.root))
    git.index.remove(SHARED)
    git.index.write()
    project.commit("a branch, and a file that git ignores")
    expected = {(Fault.UNPINNED, run, SHARED) for run in ("prepare", *TRAININGS)}
    assert found(project) == found(project, "HEAD") == expected | {(Fault.UNPINNED, "prepare", "params.yaml: source")}


def test_a_lock_with_conflicts_is_unreadable_and_no_traceback(first: Project, tmp_path: Path) -> None:
    project = first.copied(tmp_path / "changed")
    project.write("dvc.lock", b"<<<<<<< HEAD\n" + project.text("dvc.lock").encode() + b">>>>>>> other\n")
    assert (Fault.UNREADABLE, None, "dvc.lock") in found(project)
