"""A retrain's clones and the registry, without a server: what is shared, what is given back, what stays as it is."""

import time
from pathlib import Path

import pytest
import yaml

from pipelines.checkout import Checkout, branch, read, tip
from pipelines.registry import champion, promote, was_in_use
from runner.store import location
from softmask.errors import InputError
from tests.pipelines.projects import Project

DATA = Path("data/snapshots")
STAGES = {
    "tokenizer": {"cmd": "cat params.yaml > tokenizer.txt", "deps": ["params.yaml"], "outs": ["tokenizer.txt"]},
    "model": {"cmd": "cat tokenizer.txt > model.txt", "deps": ["tokenizer.txt"], "outs": ["model.txt"]},
}


@pytest.fixture
def project(tmp_path: Path, private_dvc: None) -> Project:
    """A committed project in which everything is made."""
    made = Project.of(tmp_path / "project", STAGES)
    (made.root / ".gitignore").write_text("/*.txt\n/data/snapshots/*\n!/data/snapshots/*.dvc\n")
    text = (made.root / "dvc.yaml").read_text()
    (made.root / "dvc.yaml").write_text("# a comment\n" + text)
    made.run("dvc", "repro")
    made.run("git", "add", "--all")
    made.run("git", "commit", "--quiet", "--message=project")
    return made


def test_a_checkout_takes_what_was_made_from_the_cache_and_nothing_from_the_working_tree(project: Project) -> None:
    (project.root / "params.yaml").write_text("not committed")
    checkout = Checkout(project.root, "one", "HEAD")
    assert checkout.revision == project.run("git", "rev-parse", "HEAD").strip()
    assert "orchestration" in (checkout.root / "params.yaml").read_text()
    assert not (checkout.root / "model.txt").exists()
    checkout.fetch(["tokenizer", "model"])
    assert (checkout.root / "model.txt").read_bytes() == (project.root / "model.txt").read_bytes()
    assert Project(checkout.root).run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert "one" not in project.run("git", "status", "--short")


@pytest.mark.parametrize(("config", "path"), [(None, ".checkpoints"), ('[checkpoints]\npath = "here"\n', "here")])
def test_unfinished_work_is_kept_where_the_repository_keeps_it(project: Project, config: str | None, path: str) -> None:
    if config:
        (project.root / "local.toml").write_text(config)
    found = location(Checkout(project.root, "one", "HEAD").root / "local.toml")
    assert found == project.root / path


def test_a_candidate_has_the_others_data_and_record_and_becomes_an_experiment_with_a_branch(project: Project) -> None:
    head, status = project.run("git", "rev-parse", "HEAD"), project.run("git", "status", "--short", "--branch")
    one = Checkout(project.root, "one", "HEAD")
    (one.root / DATA / "first").mkdir(parents=True)
    (one.root / DATA / "first/documents.jsonl").write_text("1\n")
    one.add(one.root / DATA / "first")
    commit = one.save("v0", [f"{DATA}/first.dvc"], "the first")
    assert tip(project.root, "v0") == commit and tip(project.root, "v1") is None
    assert "v0" in project.run("dvc", "exp", "list")

    two = Checkout(project.root, "two", "HEAD")
    two.take(Checkout(project.root, "one", commit), DATA, "tokenizer")
    assert (two.root / DATA / "first/documents.jsonl").read_text() == "1\n"
    assert (two.root / "tokenizer.txt").exists()
    lines = (two.root / "dvc.yaml").read_text().splitlines()
    assert lines[0] == "# a comment" and lines.count("    frozen: true") == 1
    assert yaml.safe_load("\n".join(lines))["stages"]["tokenizer"]["frozen"]
    (two.root / "report.json").write_text("{}")
    later = two.save("v1", ["report.json", f"{DATA}/first.dvc"], "the second")
    assert tip(project.root, "v1") == later and read(project.root, later, Path("report.json")) == "{}"
    changed = project.run("git", "diff", "--name-only", "HEAD", branch("v1")).split()
    assert changed == [f"{DATA}/first.dvc", "dvc.yaml", "report.json"]
    assert (project.run("git", "rev-parse", "HEAD"), project.run("git", "status", "--short", "--branch")) == (
        head,
        status,
    )


def test_what_is_in_no_cache_and_no_remote_is_one_message(project: Project) -> None:
    for file in (project.root / ".dvc/cache/files").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.unlink()
    checkout = Checkout(project.root, "one", "HEAD")
    with pytest.raises(InputError, match=r"of model at .* the DVC cache lacks .*model\.txt.*Restore the cache, or add"):
        checkout.fetch(["model"])


def test_a_repository_without_a_commit_is_one_message(tmp_path: Path, private_dvc: None) -> None:
    project = Project.of(tmp_path / "project", STAGES)
    with pytest.raises(InputError, match="can't be "):
        Checkout(project.root, "one", "HEAD")


def pause() -> None:
    """Let a second pass: git's tags hold no fractions, and GTO orders them by time."""
    time.sleep(1.01)


def test_the_champion_is_who_was_promoted_last_and_not_taken_out_of_use(project: Project) -> None:
    assert champion(project.root) is None
    commits = [Checkout(project.root, name, "HEAD").save(name, [], name) for name in ("a", "b")]
    assert not was_in_use(project.root, commits[1])
    versions = []
    for commit in commits:
        versions.append(promote(project.root, commit, "better"))
        pause()
    assert [version.name for version in versions] == ["v0.0.1", "v0.0.2"]
    assert champion(project.root) == versions[1] and versions[1].commit == commits[1]
    project.run("gto", "deprecate", "mdlm", "v0.0.2", "champion")
    pause()
    assert champion(project.root) == versions[0]
    assert was_in_use(project.root, commits[1])
    project.run("gto", "deprecate", "mdlm", "v0.0.1", "champion")
    pause()
    assert champion(project.root) is None
    assert promote(project.root, commits[1], "again").name == "v0.0.2"
    assert project.run("git", "tag", "--points-at", "HEAD") == ""


def test_a_tag_that_is_no_version_is_passed_over(project: Project) -> None:
    project.run("git", "tag", "mdlm@no-version")
    assert champion(project.root) is None
