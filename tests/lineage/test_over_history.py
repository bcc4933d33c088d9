"""What was made from something, and who made some bytes: over all commits, branches, tags and experiments."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lineage.cli import app
from lineage.errors import AuditError
from lineage.find import Found, find
from lineage.ledger import Ledger
from lineage.repository import Repository
from lineage.used import Sort, Used, used
from tests.lineage.simulated import METRICS, PARTS, RAW, REPORT, ROWS, Project, Stage
from tests.pipeline.clones import run

TRAININGS = ("train@a-1", "train@b-1")
RATE = "params.yaml:train.rate"


@pytest.fixture(scope="module")
def told(simulated: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run with rate 2 (`v1`), its trainings alone with 9 (main), and all with 5 in the experiment `fast`."""
    project = simulated.copied(tmp_path_factory.mktemp("told") / "project")
    run(["git", "tag", "v1"], project.root)
    project.replace("params.yaml", "rate: 2", "rate: 5")
    project.run()
    project.experiment("fast")
    run(["git", "checkout", "--quiet", "--force", "main"], project.root)
    project.replace("params.yaml", "rate: 2", "rate: 9")
    project.run(only=TRAININGS)
    project.commit("trained only")
    return project


def uses(found: Used) -> list[tuple[str, tuple[str, ...]]]:
    """(Run, the branches, tags and experiments that hold it now) of all that was found."""
    return sorted((use.by.run, use.by.names) for use in found.uses)


def ask(project: Project, target: str) -> Used:
    """`used TARGET`."""
    return used(Repository(project.root), target)


def digest(project: Project, stage: str, kind: str, path: str) -> str:
    """What the checked-out dvc.lock says that a stage read or made."""
    return next(str(file["md5"]) for file in project.lock()[stage][kind] if file["path"] == path)


def test_all_that_came_of_a_file_is_named_with_who_holds_it(told: Project) -> None:
    found = ask(told, RAW)
    assert found.sort is Sort.FILE and found.gaps == ()
    assert {use.by.run for use in found.uses if use.direct} == {"prepare"}
    assert uses(found) == sorted(
        [
            ("prepare", ("fast", "main", "v1")),
            ("split", ("fast", "main", "v1")),
            *((name, held) for name in TRAININGS for held in (("v1",), ("fast",), ("main",))),
            *((name, held) for name in ("evaluate", "report") for held in (("main", "v1"), ("fast",))),
        ]
    )


def test_a_model_that_nothing_was_made_from_is_told_from_its_versions_that_something_was(told: Project) -> None:
    then, now = digest(told, "evaluate", "deps", "models/a.txt"), digest(told, "train@a-1", "outs", "models/a.txt")
    assert uses(ask(told, now)) == []
    assert uses(ask(told, then)) == [("evaluate", ("main", "v1")), ("report", ("main", "v1"))]
    assert {use.by.run: use.direct for use in ask(told, then).uses} == {"evaluate": True, "report": False}
    assert len(ask(told, "models/a.txt").uses) == 4  # in all its versions
    assert ask(told, REPORT).uses == ()


def test_a_parameter_leads_to_what_was_made_with_each_of_its_values(told: Project) -> None:
    found = ask(told, RATE)
    assert found.sort is Sort.PARAMETER
    values = {(use.by.names, use.because) for use in found.uses if use.direct}
    assert values == {
        (("v1",), ("train.rate = 2",)),
        (("fast",), ("train.rate = 5",)),
        (("main",), ("train.rate = 9",)),
    }
    assert uses(ask(told, "params.yaml:train")) == uses(found)  # a section
    assert {use.by.run for use in ask(told, "params.yaml:source.repo").uses if use.direct} == {"prepare"}  # in one


@pytest.mark.parametrize("target", ["train", "train@a-1"])
def test_a_run_leads_to_what_it_made_and_what_came_of_that(told: Project, target: str) -> None:
    found = ask(told, target)
    names = {use.by.run for use in found.uses if use.direct}
    assert (found.sort, names) == (Sort.RUN, {*TRAININGS} if target == "train" else {target})
    assert {use.by.run for use in found.uses if not use.direct} == {"evaluate", "report"}


def test_what_lies_in_a_folder_is_used_by_those_who_read_it_or_the_folder(told: Project) -> None:
    part = next(d for d, path in parts(told) if path == "a.txt")
    assert {use.by.run for use in ask(told, part).uses if use.direct} == {*TRAININGS}  # each reads the whole folder


def parts(project: Project) -> list[tuple[str, str]]:
    """(Hash, path) of the files of the folder that `split` made."""
    folder = find(Repository(project.root), str(project.root / PARTS))
    book = Ledger(Repository(project.root))
    entry, output = next(iter(book.outputs_with(folder.hashes)))
    return [(digest, path) for path, digest in (book.listing(entry, output) or {}).items()]


def made(found: Found) -> list[tuple[str, str, tuple[str, ...]]]:
    """(Run, path, who holds it) of all that made some bytes."""
    return [(place.by.run, place.path, place.by.names) for place in found.made]


def test_bytes_in_the_hand_are_found_by_their_hash_alone(told: Project, tmp_path: Path) -> None:
    then = digest(told, "evaluate", "deps", "models/a.txt")
    hand = tmp_path / "downloaded.bin"
    shutil.copy(told.place(then), hand)
    for asked in (str(hand), then, then[:8]):
        found = find(Repository(told.root), asked)
        assert made(found) == [("train@a-1", "models/a.txt", ("v1",))]
        assert [(place.by.run, place.by.names) for place in found.read] == [("evaluate", ("main", "v1"))]
    shutil.copytree(told.root / PARTS, tmp_path / "folder")
    everywhere = ("fast", "main", "v1")
    assert made(find(Repository(told.root), str(tmp_path / "folder"))) == [("split", PARTS, everywhere)]
    inside = find(Repository(told.root), str(tmp_path / "folder/more/b.txt"))
    assert made(inside) == [("split", f"{PARTS}/more/b.txt", everywhere)]


def test_the_commands_end_with_what_was_found(told: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = told.copied(tmp_path / "project")
    monkeypatch.chdir(project.root)
    runner = CliRunner()
    project.write("unknown.txt", b"no run has seen it")
    assert runner.invoke(app, ["find", "unknown.txt"]).exit_code == 1
    assert runner.invoke(app, ["find", ROWS]).exit_code == 0
    answer = runner.invoke(app, ["find", METRICS, "--json"])
    assert answer.exit_code == 0 and Found.model_validate_json(answer.stdout).made[0].by.run == "evaluate"
    answer = runner.invoke(app, ["used", RATE])
    assert answer.exit_code == 0 and "train.rate = 9" in answer.stdout
    shutil.rmtree(project.place(digest(project, "split", "outs", PARTS)).parent)
    answer = runner.invoke(app, ["find", "unknown.txt"])
    assert answer.exit_code == 3 and f"{PARTS}\n  no list of the files that a run made" in answer.stdout
    for command in (["used", "nothing/of/this"], ["find", "nothing/of/this"]):
        assert isinstance(runner.invoke(app, command).exception, AuditError)


def test_what_nothing_read_of_a_folder_that_a_run_made_is_known(told: Project, tmp_path: Path) -> None:
    project = told.copied(tmp_path / "project")
    project.stages["eval"] = Stage("eval", (), (METRICS,), (), "eval", lambda made: {"eval": {"roc.json": b"[]"}})
    project.write(".gitignore", (project.text(".gitignore") + "/eval\n").encode())
    project.run()
    project.commit("with a folder")
    repository = Repository(project.root)
    for asked in (
        "eval/roc.json",
        "eval/roc.json:area",
        find(repository, str(project.root / "eval/roc.json")).hashes[0],
    ):
        assert ask(project, asked).uses == () == ask(project, asked).gaps
    with pytest.raises(AuditError):
        ask(project, "eval/other.json")
    project.place(digest(project, "eval", "outs", "eval")).unlink()
    (gap,) = ask(project, "eval/other.json").gaps  # it may be one of them
    assert gap.what.startswith("no list of the files that eval made is here")


def test_of_many_runs_the_first_that_are_held_now_are_printed(told: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told.root)
    monkeypatch.setattr("lineage.commands.find.ROWS", 2)
    answer = CliRunner().invoke(app, ["used", RAW]).stdout
    assert answer.count("and 9 more (--json has them)") == 1 and answer.count("\nprepare ") == 1


def test_a_commit_whose_lock_cannot_be_read_is_a_gap_and_the_others_are_read(told: Project, tmp_path: Path) -> None:
    project = told.copied(tmp_path / "project")
    lock = project.text("dvc.lock")
    project.write("dvc.lock", b"stages:\n")
    bad = project.commit("broken")
    project.write("dvc.lock", lock.encode())
    project.commit("mended")
    found = ask(project, RAW)
    assert [gap.where for gap in found.gaps] == [f"{bad[:10]}: dvc.lock"]
    assert uses(found) == uses(ask(told, RAW))
