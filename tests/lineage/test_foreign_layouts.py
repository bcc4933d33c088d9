"""Layouts of public projects, each of which once made a clean project look wrong, or an answer end early.

None of their files is here: their shapes are made anew, in copies of the simulated project.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pygit2
import pytest
from typer.testing import CliRunner

from lineage.cli import app
from lineage.history import History, history
from lineage.model import Fault
from lineage.repository import Repository
from lineage.trace import trace
from lineage.verify import verify
from tests.lineage import simulated as simulation
from tests.lineage.simulated import ME, METRICS, Project, Stage

Found = set[tuple[Fault, str]]
METRIC = f"{METRICS}:score"


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A clean project to change."""
    return simulated.copied(tmp_path / "project")


def found(project: Project, revision: str | None = None) -> Found:
    """Fault and path of all that verification finds."""
    return {(finding.fault, finding.path) for finding in verify(Repository(project.root), revision).findings}


# A dvc.yaml without stages


@pytest.mark.parametrize("text", ["", "# Nothing yet.\n", "stages: {}\n", "artifacts:\n  model:\n    path: a.txt\n"])
def test_a_dvc_yaml_without_stages_anywhere_is_no_fault(project: Project, text: str) -> None:
    project.write("datasets/more/dvc.yaml", text.encode())
    project.commit("more")
    assert found(project) == found(project, "HEAD") == set()


def test_a_dvc_yaml_that_cannot_be_read_hides_nothing_of_the_others(project: Project) -> None:
    project.write("datasets/dvc.yaml", b"stages:\n  made: {cmd: echo '${nothing}'}\n")
    project.replace("dvc.yaml", "cmd: report", "cmd: report --more")
    project.commit("more")
    assert found(project, "HEAD") == {(Fault.UNCHECKED, "datasets/dvc.yaml"), (Fault.COMMAND, "dvc.yaml")}


# `history`


def values(found: History) -> list[tuple[Any, str | None, list[str]]]:
    """Each row's value, the subject of what it is compared with, and what explains it."""
    subjects = {row.name: row.commit.subject for row in found.rows}
    return [
        (row.value, None if row.against is None else subjects.get(row.against), sorted({e.what for e in row.entries}))
        for row in found.rows
    ]


def rerun(project: Project, message: str, rate: int) -> int:
    """Another rate, run and committed; the score of it."""
    project.replace("params.yaml", f"rate: {project.params()['train']['rate']}", f"rate: {rate}")
    project.run()
    project.commit(message)
    return int(json.loads(project.text(METRICS))["score"])


@pytest.mark.parametrize(
    "torn", ["stages: [", "schema: '2.0'\nstages:\n    <<<<<<< HEAD\n", "schema: '2.0'\nstages: 3\n"]
)
def test_one_bad_commit_is_a_gap_of_history_and_not_its_end(project: Project, torn: str) -> None:
    first = json.loads(project.text(METRICS))["score"]
    before = project.text("dvc.lock"), project.text(METRICS)
    project.write("dvc.lock", torn.encode())
    (project.root / METRICS).unlink()
    project.commit("bad")
    project.write("README.md", b"Still bad.\n")
    project.commit("still bad")
    for path, text in zip(("dvc.lock", METRICS), before, strict=True):
        project.write(path, text.encode())
    second = rerun(project, "good", 3)
    found = history(Repository(project.root), METRIC)
    assert values(found) == [(first, None, []), (second, "first", ["params.yaml: train.rate"])]
    (gap,) = found.gaps
    assert gap.where.endswith(": dvc.lock") and gap.what.endswith("(and in 1 later revisions)")


@pytest.fixture
def with_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose last stage makes a folder with a metric in it, as DVCLive's do."""

    def run(made: Project) -> dict[str, Any]:
        curve = json.dumps({"roc": [{"fpr": n / 9} for n in range(9)]}).encode()
        return {"eval": {"metrics.json": made.text(METRICS).encode(), "plots/roc.json": curve}}

    monkeypatch.setitem(simulation.OUTPUTS, "eval", "eval")
    project.stages["eval"] = Stage("eval", (), (METRICS,), (), run, cached=False)
    project.run()
    return project


@pytest.mark.parametrize("kept", ["by git", "by the cache", "nowhere"])
def test_a_metric_in_a_folder_has_a_history(with_folder: Project, kept: str) -> None:
    if kept != "by git":
        with_folder.write(".gitignore", (with_folder.text(".gitignore") + "/eval\n").encode())
    with_folder.commit("with a folder")
    scores = [json.loads(with_folder.text(METRICS))["score"], rerun(with_folder, "again", 3)]
    if kept == "nowhere":
        shutil.rmtree(with_folder.root / ".dvc/cache")
    found = history(Repository(with_folder.root), "eval/metrics.json:score")
    expected = [(scores[0], None, []), (scores[1], "with a folder", ["params.yaml: train.rate"])]
    assert values(found) == ([] if kept == "nowhere" else expected)
    assert [gap.what for gap in found.gaps] == ["neither in git nor in the cache (and in 1 later revisions)"] * (
        kept == "nowhere"
    )


def test_a_history_of_which_nothing_is_here_ends_with_3(with_folder: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with_folder.write(".gitignore", (with_folder.text(".gitignore") + "/eval\n").encode())
    with_folder.commit("with a folder")
    shutil.rmtree(with_folder.root / ".dvc/cache")
    monkeypatch.chdir(with_folder.root)
    ended = CliRunner().invoke(app, ["history", "eval/metrics.json:score"])
    assert ended.exit_code == 3 and "neither in git nor in the cache" in ended.output


def test_a_sub_project_calls_a_metric_as_trace_does(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "mono"
    shutil.rmtree(project.root / ".git")
    shutil.move(project.root, root / "team/one")
    git = pygit2.init_repository(str(root), initial_head="main")
    git.index.add_all()
    git.create_commit("HEAD", ME, ME, "first", git.index.write_tree(), [])
    repository = Repository(root / "team/one")
    for metric in (METRIC, f"team/one/{METRIC}", f"./{METRIC}"):
        (row,) = history(repository, metric).rows
        assert row.value == trace(repository, metric).target.value
