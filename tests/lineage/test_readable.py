"""Answers that a person can read: many findings are few lines, nothing is folded in a pipe, waits say what goes on."""

import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lineage.card import card
from lineage.cli import app
from lineage.commands import common
from lineage.render.grouped import Said, grouped
from lineage.repository import Repository
from tests.lineage.simulated import METRICS, PARTS, Project, Stage

HASHES = [f"{number:032x}" for number in range(40)]


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A clean project to change."""
    return simulated.copied(tmp_path / "project")


def asked(project: Project, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What a command answers in a pipe."""
    monkeypatch.chdir(project.root)
    return CliRunner().invoke(app, words).output


def test_findings_that_say_the_same_stand_together_with_their_number() -> None:
    many = [Said("missing", f"{n}.bin", f"{digest} is not here", "train") for n, digest in enumerate(HASHES)]
    head, *lines = grouped([*many, Said("code differs", "a.py", f"here it is {HASHES[1]}", "train")])
    assert head == "missing, 40 times: … is not here"
    assert lines[:2] == ["  0.bin (train)", "  1.bin (train)"] and lines[11:13] == [
        "  11.bin (train)",
        "  and 28 more (--json has them)",
    ]
    assert lines[13:] == ["code differs: a.py (train)", f"  here it is {HASHES[1]}"]


def test_one_thing_that_many_runs_meet_is_said_once() -> None:
    found = [Said("code differs", "a.py", "it is gone", f"fit@{n}") for n in range(9)]
    assert [*grouped(found)] == ["code differs: a.py (fit@0, fit@1, fit@2, fit@3 and 5 more)", "  it is gone"]


def test_what_differs_more_than_in_hashes_stays_apart() -> None:
    found = [Said("declaration differs", "dvc.yaml", f"it reads {name}", "fit") for name in "ab"]
    assert [*grouped(found)] == ["declaration differs: dvc.yaml (fit)", "  it reads a", "  it reads b"]


@pytest.mark.parametrize("words", [("verify", "HEAD"), ("diff", "HEAD", "workspace")])
def test_a_clone_without_a_cache_is_answered_in_few_lines(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for folder in (".dvc/cache", "models", "data/parts", "meta"):
        shutil.rmtree(project.root / folder)
    answer = asked(project, monkeypatch, *words)
    assert answer.count(": missing") + answer.count("missing, ") <= 2 and "times" in answer
    assert len(answer.splitlines()) < 30


def test_what_was_read_of_folders_without_a_list_is_said_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ("eval/roc.json", f"{PARTS}/a.txt")
    project.stages["eval"] = Stage("eval", (), (METRICS,), (), "eval", lambda made: {"eval": {"roc.json": b"[]"}})
    project.stages["more"] = Stage("more", (), read, (), "more.txt", lambda made: {"more.txt": b"1"}, cached=False)
    project.write(".gitignore", (project.text(".gitignore") + "/eval\n").encode())
    project.run()
    project.commit("read two folders")
    shutil.rmtree(project.root / ".dvc/cache")
    answer = asked(project, monkeypatch, "verify", "HEAD")
    assert "not checked, 2 times: the list of its folder's files is not here" in answer


def test_what_goes_into_a_pipe_is_not_folded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "train a --with " + "-".join(["word"] * 60)
    project.stages["train@a-1"] = replace(project.stages["train@a-1"], command=command)
    project.run()
    lines = asked(project, monkeypatch, "diff", "HEAD").splitlines()
    assert any(command in line for line in lines) and not any(line.endswith(" ") for line in lines)


def test_a_number_and_its_text_look_different(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.replace("params.yaml", "rate: 2", "rate: '2'")
    answer = asked(project, monkeypatch, "diff", "HEAD")
    assert [line.split()[-5:-3] for line in answer.splitlines() if "train.rate" in line] == [["2", '"2"']]


def test_no_value_and_null_look_different(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.replace("params.yaml", "repo: org/data", "repo: null")
    project.run()
    project.commit("null")
    assert '"org/data"  null  ' in asked(project, monkeypatch, "diff", "HEAD^")
    project.replace("params.yaml", "repo: null", "more: 1")
    evaluate = project.stages["evaluate"]
    project.stages["evaluate"] = replace(evaluate, run=lambda made: {METRICS: b'{"other": 1}'})
    project.run(force=["evaluate"])
    answer = asked(project, monkeypatch, "diff", "HEAD")
    assert "source.repo  null     outputs" in answer and "source.more        1  outputs" in answer
    assert " -> absent" in answer and "  other: absent -> 1" in answer


def test_a_time_has_its_offset(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "2023-11-14 22:13 +00:00  " in asked(project, monkeypatch, "history", f"{METRICS}:score")


def test_a_card_lists_final_metrics_and_no_curve(project: Project) -> None:
    def run(made: Project) -> dict[str, Any]:
        curve = json.dumps({"roc": [{"fpr": n / 9, "tpr": 1} for n in range(9)]}).encode()
        return {"eval": {"metrics.json": made.text(METRICS).encode(), "plots/roc.json": curve}}

    project.stages["eval"] = Stage("eval", (), (METRICS,), (), "eval", run, cached=False)
    project.run()
    project.commit("with a folder")
    text = card(Repository(project.root), "evaluate", "HEAD").text
    assert "eval/metrics.json:score" in text and f"{METRICS}:score" in text and "fpr" not in text


# Progress


@pytest.mark.parametrize("watched", [True, False])
def test_what_takes_long_says_what_goes_on_where_a_person_watches(
    monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(common, "err", Console(file=screen, force_terminal=watched, width=80))
    monkeypatch.setattr(common, "DELAY", 0.05)
    with common.counting("revisions") as told:
        told(1, 2000)
    assert screen.getvalue() == ""  # nothing of what is quick
    with common.counting("revisions") as told:
        told(1234, 2000)
        time.sleep(0.3)
    assert ("1,234 of 2,000 revisions" in screen.getvalue()) is watched
