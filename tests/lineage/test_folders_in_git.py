"""Folders that git keeps in place of DVC's cache, as DVCLive writes them: `outs: [{eval: {cache: false}}]`.

DVC keeps no list of such a folder, so a commit's is made of its tree: everything that holds of a file holds of them.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pygit2
import pytest
import yaml

from lineage.attestation import attest, check
from lineage.diff import diff
from lineage.errors import AuditError
from lineage.model import Fault
from lineage.repository import Repository
from lineage.signing import generate_key
from lineage.targets import find_target
from lineage.verify import verify
from tests.lineage.simulated import METRICS, PARTS, STAGES, Made, Project, Stage

EVAL = "eval"
SCORES, CURVE = f"{EVAL}/{METRICS}", f"{EVAL}/plots/curve.csv"
Found = set[tuple[Fault, str | None, str]]


def _evaluate(project: Project) -> Made:
    (scores,) = STAGES["evaluate"].run(project).values()
    assert isinstance(scores, bytes)
    return {EVAL: {METRICS: scores, "plots/curve.csv": b"step,loss\r\n0,1\r\n"}}


def _report(project: Project) -> Made:
    return {"report.txt": f"the score is {project.text(SCORES)}\n".encode()}


@pytest.fixture(scope="module")
def project(simulated: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The simulated project, whose evaluation is a folder that git keeps. To be read, not changed."""
    project = simulated.copied(tmp_path_factory.mktemp("folders") / "project")
    project.manifests = False
    project.stages["evaluate"] = replace(project.stages["evaluate"], output=EVAL, run=_evaluate)
    project.stages["report"] = replace(project.stages["report"], inputs=(SCORES,), run=_report)
    project.write(".dvcignore", b"*.pyc\n")
    (project.root / METRICS).unlink()
    project.write_lock({})
    project.run()
    project.write(f"{EVAL}/left.pyc", b"DVC leaves it out")
    project.commit("an evaluation in a folder")
    return project


@pytest.fixture
def changed(project: Project, tmp_path: Path) -> Project:
    """A copy that may be changed."""
    return project.copied(tmp_path / "changed")


@pytest.fixture
def clone(project: Project, tmp_path: Path) -> Project:
    """A clone without a cache."""
    pygit2.clone_repository(str(project.root), str(tmp_path / "clone"))
    return Project(tmp_path / "clone", manifests=False)


def found(project: Project, revision: str | None = "HEAD") -> Found:
    """Fault, run and path of everything that `verify` finds."""
    findings = verify(Repository(project.root), revision).findings
    return {(f.fault, f.run, f.path) for f in findings}


def edit(project: Project) -> None:
    """A better score, committed."""
    project.replace(SCORES, '"score": ', '"score": 1')
    project.commit("edited")


def list_cached(project: Project) -> None:
    """Have the folder's list in the cache, as `dvc commit` of some versions leaves it."""
    files = {METRICS: project.text(SCORES).encode(), "plots/curve.csv": (project.root / CURVE).read_bytes()}
    project.put(EVAL, files, True)


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_it_holds_where_it_is_as_the_stage_wrote_it(project: Project, revision: str | None) -> None:
    assert found(project, revision) == set()


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_in_a_clone_only_what_the_cache_had_is_missing(clone: Project, revision: str | None) -> None:
    missing = found(clone, revision)
    assert {fault for fault, _, _ in missing} == {Fault.MISSING}
    assert not {path for _, _, path in missing if path.startswith(EVAL)}


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_an_edited_metric_in_it_is_found(changed: Project, revision: str | None) -> None:
    edit(changed)
    assert (Fault.METRIC, "evaluate", EVAL) in found(changed, revision)


def test_an_edited_metric_is_found_in_a_clone(changed: Project, tmp_path: Path) -> None:
    edit(changed)
    pygit2.clone_repository(str(changed.root), str(tmp_path / "clone"))
    assert (Fault.METRIC, "evaluate", EVAL) in found(Project(tmp_path / "clone"))


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_where_the_cache_has_its_list_the_file_is_named(changed: Project, revision: str | None) -> None:
    list_cached(changed)
    edit(changed)
    changed.write(f"{EVAL}/added.json", b"{}")
    changed.write(CURVE, b"step,loss\r\n0,0\r\n")
    changed.commit("more")
    assert found(changed, revision) == {
        (Fault.METRIC, "evaluate", SCORES),
        (Fault.OUTPUT, "evaluate", f"{EVAL}/added.json"),
        (Fault.OUTPUT, "evaluate", CURVE),
    }


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_what_was_added_to_it_is_named(changed: Project, revision: str | None) -> None:
    for name in ("plots/old.csv", "older.json"):
        changed.write(f"{EVAL}/{name}", b"{}")
    changed.commit("of an earlier run")
    assert found(changed, revision) == {
        (Fault.OUTPUT, "evaluate", f"{EVAL}/{name}") for name in ("plots/old.csv", "older.json")
    }


def test_what_git_lacks_of_it_is_missing_and_not_edited(changed: Project) -> None:
    changed.write(".gitignore", (changed.text(".gitignore") + "*.csv\n").encode())
    git = pygit2.Repository(str(changed.root))
    git.index.remove(CURVE)
    git.index.write()
    changed.commit("git ignores the curve")
    assert {(fault, path) for fault, _, path in found(changed)} == {
        (Fault.MISSING, EVAL),
        (Fault.UNCHECKED, SCORES),
    }


@pytest.mark.parametrize("has_list", [True, False])
def test_what_git_keeps_beside_a_folder_of_the_cache_is_no_part_of_it(changed: Project, has_list: bool) -> None:
    """A `.gitkeep`, say, that the stage has removed before DVC hashed its folder."""
    git = pygit2.Repository(str(changed.root))
    changed.write(f"{PARTS}/.gitkeep", b"")
    git.index.add(f"{PARTS}/.gitkeep")
    git.index.write()
    changed.commit("kept by force")
    if not has_list:
        (parts,) = changed.lock()["split"]["outs"]
        changed.place(parts["md5"]).unlink()
    missing = {(Fault.MISSING, "split", PARTS)}
    assert {each for each in found(changed) if each[2] == PARTS} == (set() if has_list else missing)
    assert not [each for each in found(changed) if each[0] in (Fault.OUTPUT, Fault.METRIC)]


def test_a_file_in_it_has_the_hash_that_its_stage_wrote(clone: Project) -> None:
    from lineage.contents import Contents
    from lineage.graph import Graph
    from lineage.states import open_state

    graph = Graph(open_state(Repository(clone.root), "HEAD"))
    target = find_target(f"{SCORES}:score", graph, Contents(graph.state))
    (read,) = clone.lock()["report"]["deps"]
    assert target.hash == read["md5"] and target.value == json.loads(clone.text(SCORES))["score"]


def test_an_edit_is_a_difference_and_no_run(changed: Project) -> None:
    edit(changed)
    difference = diff(Repository(changed.root), "HEAD~1", "HEAD")
    assert {(e.run, e.kind, e.what) for e in difference.entries} == {("evaluate", Fault.METRIC, EVAL)}


def test_numbers_in_it_are_told_in_a_diff(changed: Project) -> None:
    before = json.loads(changed.text(SCORES))["score"]
    changed.replace("code/evaluate.py", "FACTOR = 7", "FACTOR = 8")
    changed.run()
    changed.commit("another factor")
    numbers = {r.path: r.numbers for r in diff(Repository(changed.root), "HEAD~1", "HEAD").results}
    assert numbers[SCORES] == (("score", before, json.loads(changed.text(SCORES))["score"]),)


def test_it_is_attested_from_git(project: Project, changed: Project, tmp_path: Path) -> None:
    key = tmp_path / "key"
    generate_key(key)
    shutil.rmtree(changed.root / EVAL)
    made = attest(Repository(changed.root), EVAL, key, "HEAD")
    assert check(Repository(changed.root), made, tmp_path / "key.pub", "HEAD").complete
    changed.write(SCORES, b"{}")
    changed.commit("edited")
    with pytest.raises(AuditError, match="isn't what its hash says"):
        attest(Repository(changed.root), EVAL, key, "HEAD")
    assert {each.path for each in check(Repository(changed.root), made, tmp_path / "key.pub", "HEAD").differing} == {
        SCORES
    }


@pytest.mark.parametrize("section", ["outs", "metrics"])
def test_what_dvc_yaml_calls_a_metric_is_one_by_any_name(simulated: Project, tmp_path: Path, section: str) -> None:
    project = simulated.copied(tmp_path / "project")
    project.manifests = False

    def score(made: Project) -> Made:
        return {"scores.json": made.text(METRICS).encode()}

    project.stages["score"] = Stage("score", (), (METRICS,), (), "scores.json", score, cached=False)
    project.run()
    pipeline = yaml.safe_load(project.text("dvc.yaml"))
    pipeline["stages"]["score"][section] = pipeline["stages"]["score"].pop("outs")
    project.write("dvc.yaml", yaml.safe_dump(pipeline, sort_keys=False).encode())
    project.write("scores.json", b'{"score": 1}')
    project.commit("a score that no run wrote")
    fault = Fault.METRIC if section == "metrics" else Fault.OUTPUT
    for revision in (None, "HEAD"):
        assert (fault, "score", "scores.json") in found(project, revision)
