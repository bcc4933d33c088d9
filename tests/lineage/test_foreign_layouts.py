"""Layouts of public projects, each of which once made a clean project look wrong, or an answer end early.

None of their files is here: their shapes are made anew, in copies of the simulated project.
"""

import hashlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pygit2
import pytest
from typer.testing import CliRunner

import lineage.declared
import lineage.graph
from benchmarks.survey import Answer, ask, survey
from lineage.attestation import attest, check
from lineage.cli import app
from lineage.contents import parsed
from lineage.diff import diff
from lineage.errors import Missing
from lineage.history import History, history
from lineage.lockfile import lock_stages
from lineage.model import Fault
from lineage.repository import Repository
from lineage.signing import generate_key
from lineage.trace import trace
from lineage.verify import verify
from tests.lineage import projects
from tests.lineage.simulated import ME, METRICS, Project, Stage
from tests.pipeline.clones import run

Found = set[tuple[Fault, str]]
METRIC = f"{METRICS}:score"


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A clean project to change."""
    return simulated.copied(tmp_path / "project")


def found(project: Project, revision: str | None = None) -> Found:
    """Fault and path of all that verification finds."""
    return {(finding.fault, finding.path) for finding in verify(Repository(project.root), revision).findings}


# A folder without files


def test_an_empty_folder_is_read_though_git_keeps_none(project: Project, tmp_path: Path) -> None:
    (project.root / "code/empty").mkdir()
    project.stages["split"] = replace(project.stages["split"], code=("code/empty",))
    project.run()
    project.commit("reads an empty folder")
    assert found(project) == found(project, "HEAD") == set()
    run(["git", "clone", "--quiet", str(project.root), str(tmp_path / "clone")], tmp_path)
    assert not [f for f in verify(Repository(tmp_path / "clone")).findings if f.path == "code/empty"]
    project.write("code/empty/more.py", b"")
    assert (Fault.CODE, "code/empty") in found(project)


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
    assert gap.where.endswith(": dvc.lock") and gap.what.endswith("(and in 1 more revisions)")


@pytest.mark.parametrize("has_cache", [True, False])
def test_a_history_has_the_recorded_values_and_says_where_git_has_others(project: Project, has_cache: bool) -> None:
    first = json.loads(project.text(METRICS))["score"]
    if has_cache:
        project.keep(project.text(METRICS).encode())
    project.replace(METRICS, str(first), "1")
    project.commit("forged")
    found = history(Repository(project.root), METRIC)
    assert [row.value for row in found.rows] == [first]
    assert any(gap.where.endswith(f": {METRICS}") and "isn't what its run recorded" in gap.what for gap in found.gaps)


@pytest.fixture
def with_folder(project: Project) -> Project:
    """A project whose last stage makes a folder with a metric in it, as DVCLive's do."""

    def run(made: Project) -> dict[str, Any]:
        curve = json.dumps({"roc": [{"fpr": n / 9} for n in range(9)]}).encode()
        return {"eval": {"metrics.json": made.text(METRICS).encode(), "plots/roc.json": curve}}

    project.stages["eval"] = Stage("eval", (), (METRICS,), (), "eval", run)
    project.run()
    return project


def test_a_value_that_was_edited_in_a_folder_is_no_history(with_folder: Project) -> None:
    with_folder.commit("with a folder")
    shutil.rmtree(with_folder.root / ".dvc/cache")
    score = json.loads(with_folder.text(METRICS))["score"]
    with_folder.replace("eval/metrics.json", str(score), "1")
    with_folder.commit("forged")
    found = history(Repository(with_folder.root), "eval/metrics.json:score")
    assert [row.value for row in found.rows] == [score]
    assert any(gap.where.endswith(": eval/metrics.json") and "no list" in gap.what for gap in found.gaps)


@pytest.mark.parametrize("kept", ["by git", "by the cache", "nowhere"])
def test_a_metric_in_a_folder_has_a_history(with_folder: Project, kept: str) -> None:
    if kept != "by git":
        with_folder.write(".gitignore", (with_folder.text(".gitignore") + "/eval\n").encode())
    with_folder.commit("with a folder")
    scores = [json.loads(with_folder.text(METRICS))["score"], rerun(with_folder, "again", 3)]
    if kept != "by the cache":
        shutil.rmtree(with_folder.root / ".dvc/cache")
    found = history(Repository(with_folder.root), "eval/metrics.json:score")
    expected = [(scores[0], None, []), (scores[1], "with a folder", ["params.yaml: train.rate"])]
    assert values(found) == ([] if kept == "nowhere" else expected)
    assert [gap.what for gap in found.gaps] == ["neither in git nor in the cache (and in 1 more revisions)"] * (
        kept == "nowhere"
    )


def test_what_was_measured_and_is_not_here_ends_with_3(with_folder: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with_folder.write(".gitignore", (with_folder.text(".gitignore") + "/eval\n").encode())
    with_folder.commit("with a folder")
    shutil.rmtree(with_folder.root / ".dvc/cache")
    monkeypatch.chdir(with_folder.root)
    ended = CliRunner().invoke(app, ["history", "eval/metrics.json:score"])
    assert ended.exit_code == 3 and "neither in git nor in the cache" in ended.output
    with pytest.raises(Missing, match="so that the number can't be read"):  # and is no file's name with a colon
        trace(Repository(with_folder.root), "eval/metrics.json:score", "HEAD")
    ended = CliRunner().invoke(app, ["card", "evaluate", "--rev", "HEAD"])  # the folder may hold what was measured
    assert ended.exit_code == 3 and "Not here, or not as recorded: `eval`." in ended.output
    for file in ("eval/metrics.json", "eval/no such"):  # no list tells them apart
        ended = CliRunner().invoke(app, ["trace", file, "--rev", "HEAD"])
        assert ended.exit_code == 3 and f"{file}: the list of its folder's files is not here" in ended.output


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


LOCKS, STAGES, COMMITS = 31, 71, 1_800


def test_a_file_of_dvc_is_read_once_for_all_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(lineage.graph, "lock_stages", lambda data: read.append(data) or lock_stages(data))
    filled: list[str] = []
    resolver = lineage.declared.DataResolver
    monkeypatch.setattr(lineage.declared, "DataResolver", lambda *a: filled.append(a[1]) or resolver(*a))
    rows = history(Repository(_many(tmp_path, 5, 3, 40)), "part-0/metrics.json:n").rows
    assert len(rows) == 9 and len(read) == len(set(read)) == 5 + 40
    assert len(filled) == len(set(filled)) == 5  # and so are the templates of those that have runs left over


@pytest.mark.slow
def test_a_history_of_thousands_of_runs_takes_less_than_a_minute(tmp_path: Path) -> None:
    repository = Repository(_many(tmp_path, LOCKS, STAGES, COMMITS))
    began = time.process_time()
    rows = history(repository, "part-0/metrics.json:n").rows
    assert len(rows) == 1 + (COMMITS - 1) // LOCKS + 1 and time.process_time() - began < 60


def _many(root: Path, locks: int, stages: int, commits: int) -> Path:
    """A project of many dvc.lock files, one after another of which is run again and committed."""
    git = pygit2.init_repository(str(root), initial_head="main")
    numbers = [0] * locks
    index = pygit2.Index()
    for commit in range(commits + 1):
        for part in range(locks) if commit == 0 else [(commit - 1) % locks]:
            numbers[part] = commit
            for name, text in _part(part, stages, commit).items():
                blob = git.create_blob(text.encode())
                index.add(pygit2.IndexEntry(f"part-{part}/{name}", blob, pygit2.enums.FileMode.BLOB))
        index.add(pygit2.IndexEntry(".dvc/config", git.create_blob(b""), pygit2.enums.FileMode.BLOB))
        parents = [] if git.head_is_unborn else [git.head.target]
        git.create_commit("HEAD", ME, ME, f"run {commit}", index.write_tree(git), parents)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").touch()
    return root


def _part(part: int, stages: int, number: int) -> dict[str, str]:
    """A part's files, of whose stages the last one has run again."""
    metric = json.dumps({"n": number})
    digest = hashlib.md5(metric.encode()).hexdigest()
    made = {f"s{n}": ("cached.bin", hashlib.md5(b"%d %d" % (part, n)).hexdigest()) for n in range(stages - 1)}
    made = {name: (f"{name}-{path}", md5) for name, (path, md5) in made.items()} | {"last": ("metrics.json", digest)}
    out = "    outs:\n    - path: {}\n      hash: md5\n      md5: {}\n      size: 9\n"
    lines = [f"  {name}:\n    cmd: make {name}\n{out.format(*file)}" for name, file in made.items()]
    declared = {name: {"cmd": f"make {name}", "outs": [path]} for name, (path, _) in made.items()}
    declared["arm"] = {"matrix": {"n": ["b"]}, "cmd": "make ${item.n}", "outs": ["arm.bin"]}
    for left_over in ("arm@b", "arm@a"):  # as public projects have them: a stage renamed, an arm removed
        lines.append(f"  {left_over}:\n    cmd: make {left_over[-1]}\n{out.format('arm.bin', 'a' * 32)}")
    lines.append(f"  former:\n    cmd: make former\n{out.format(*made['last'])}")
    lock = "schema: '2.0'\nstages:\n" + "".join(lines)
    return {"dvc.lock": lock, "dvc.yaml": json.dumps({"stages": declared}), "metrics.json": metric}


# What git lays out otherwise than it keeps it


def assert_clean(project: Project, tmp_path: Path) -> None:
    """Nothing is found in commit and workspace, nothing differs, and all that was read can be signed."""
    repository = Repository(project.root)
    assert found(project) == found(project, "HEAD") == set()
    assert diff(repository, "HEAD", None).is_empty
    public = generate_key(tmp_path / "key")
    signed = attest(repository, METRICS, tmp_path / "key", "HEAD")
    checked = [check(repository, signed, public, revision) for revision in (None, "HEAD")]
    assert all(each.holds and each.complete for each in checked)


def reading(project: Project, *paths: str) -> None:
    """Have the first stage read more, run and commit it."""
    stage = project.stages["prepare"]
    project.stages["prepare"] = replace(stage, code=(*stage.code, *paths))
    project.run()
    projects.commit(project.root, "reads more")


@pytest.mark.parametrize("attributes", ["*.py text eol=crlf\n", "* text=auto\n", "*.py text\n*.csv eol=crlf\n"])
def test_line_ends_by_gitattributes_are_no_difference(project: Project, attributes: str, tmp_path: Path) -> None:
    project.write(".gitattributes", attributes.encode())
    for path in ("code/prepare.py", "code/shared.py", "tools/a.py"):
        text = project.text(path) if path.startswith("code") else "A = 1\n"
        project.write(path, text.replace("\n", "\r\n").encode())
    reading(project, "tools")
    git = pygit2.Repository(str(project.root))
    assert b"\r" not in git.head.peel(pygit2.Tree)["code/shared.py"].data
    assert_clean(project, tmp_path)
    project.replace("code/shared.py", "FACTOR = 3", "FACTOR = 4")
    project.commit("edited, and not run")
    assert {fault for fault, _ in found(project, "HEAD")} == {Fault.CODE}


def test_binary_files_and_those_without_attributes_keep_their_line_ends(project: Project) -> None:
    project.write(".gitattributes", b"code/shared.py -text\n")
    project.commit("attributes")
    project.write("code/shared.py", project.text("code/shared.py").replace("\n", "\r\n").encode())
    project.write("code/prepare.py", project.text("code/prepare.py").replace("\n", "\r\n").encode())
    project.commit("other line ends, not run")
    assert found(project, "HEAD") == {(Fault.CODE, "code/shared.py"), (Fault.CODE, "code/prepare.py")}


def in_lfs(project: Project, path: str) -> Path:
    """Commit a file as Git LFS does: git has a pointer, .git/lfs the file; where."""
    data = (project.root / path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    git = pygit2.Repository(str(project.root))
    git.index.read()
    git.index.add(pygit2.IndexEntry(path, git.create_blob(pointer.encode()), pygit2.enums.FileMode.BLOB))
    git.create_commit("HEAD", ME, ME, "in LFS", git.index.write_tree(), [git.head.target])
    place = project.root / ".git/lfs/objects" / digest[:2] / digest[2:4] / digest
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    return place


def test_a_file_of_git_lfs_is_what_its_pointer_stands_for(project: Project, tmp_path: Path) -> None:
    place = in_lfs(project, "code/shared.py")
    assert_clean(project, tmp_path)
    place.unlink()
    not_here = {(Fault.UNCHECKED, "code/shared.py")}
    assert found(project, "HEAD") == not_here
    project.write("code/shared.py", Repository(project.root).git.head.peel(pygit2.Tree)["code/shared.py"].data)
    assert found(project) == not_here  # as in a clone without LFS


def test_a_metric_of_git_lfs_whose_file_is_not_here_is_not_called_edited(project: Project, tmp_path: Path) -> None:
    place = in_lfs(project, METRICS)
    assert_clean(project, tmp_path)
    shutil.rmtree(project.root / ".dvc/cache")
    place.unlink()
    assert (Fault.UNCHECKED, METRICS) in found(project, "HEAD")
    project.write(METRICS, Repository(project.root).git.head.peel(pygit2.Tree)[METRICS].data)
    assert (Fault.UNCHECKED, METRICS) in found(project)
    project.write(METRICS, b"{}")
    assert (Fault.METRIC, METRICS) in found(project)


def test_links_inside_the_repository_are_followed(project: Project, tmp_path: Path) -> None:
    project.write("lib/real.py", b"FACTOR = 3\n")
    (project.root / "code/shared.py").unlink()
    (project.root / "code/shared.py").symlink_to("../lib/real.py")
    project.write("tools/a.py", b"A = 1\n")
    (project.root / "tools/b.py").symlink_to("../lib/real.py")
    (project.root / "tools/more").symlink_to("../lib")  # DVC doesn't go into it
    (project.root / "linked").symlink_to("lib")
    reading(project, "tools", "linked/real.py")
    assert_clean(project, tmp_path)
    project.write("lib/real.py", b"FACTOR = 4\n")
    project.commit("edited, and not run")
    assert {fault for fault, _ in found(project, "HEAD")} == {Fault.CODE, Fault.UNPINNED}


def test_a_repository_in_the_repository_is_read_at_its_commit(project: Project, tmp_path: Path) -> None:
    inner = project.root / "tools/vendored"
    project.write("tools/a.py", b"A = 1\n")
    project.write("tools/vendored/deep/b.py", b"B = 1\n")
    git = pygit2.init_repository(str(inner))
    git.index.add_all()
    git.create_commit("HEAD", ME, ME, "inner", git.index.write_tree(), [])
    reading(project, "tools", "tools/vendored/deep/b.py")
    outer = pygit2.Repository(str(project.root)).head.peel(pygit2.Tree)
    assert isinstance(outer["tools/vendored"], pygit2.Commit)
    assert_clean(project, tmp_path)
    project.write("tools/vendored/deep/b.py", b"B = 2\n")
    assert {fault for fault, _ in found(project)} == {Fault.CODE, Fault.UNCOMMITTED}
    shutil.rmtree(inner)
    not_here = {(Fault.UNCHECKED, "tools"), (Fault.UNCHECKED, "tools/vendored/deep/b.py")}
    assert found(project, "HEAD") == not_here


def test_tuples_of_python_are_lists_as_in_a_lock() -> None:
    text = b"LAYERS = (1, (2, 3))\nclass Model:\n    sizes = {'a': (4,)}\n"
    assert parsed(text, "consts.py") == {"LAYERS": [1, [2, 3]], "Model": {"sizes": {"a": [4]}}}


@pytest.mark.slow
def test_dvc_itself_reads_links_repositories_line_ends_and_tuples_so(tmp_path: Path) -> None:
    root = tmp_path / "real"
    stage = {"cmd": "cat run.py linked/*.py > out.txt", "deps": ["run.py", "linked", "tools"], "outs": ["out.txt"]}
    pipeline = {"stages": {"copy": {**stage, "params": [{"consts.py": ["LAYERS"]}]}}}
    files = {"lib/real.py": "A = 1\r\n", "consts.py": "LAYERS = (1, 2)\r\n", "tools/inner/b.py": "B = 1\r\n"}
    projects.write(root, {**files, "dvc.yaml": json.dumps(pipeline), ".gitattributes": "*.py text eol=crlf\n"})
    for link, to in (("run.py", "lib/real.py"), ("linked", "lib"), ("tools/c.py", "../lib/real.py"), ("tools/d", "..")):
        (root / link).symlink_to(to)
    run(["git", "init", "--quiet", "--initial-branch=main"], root / "tools/inner")
    projects.commit(root / "tools/inner", "inner")
    projects.begin(root)
    run(["dvc", "repro", "--quiet"], root)
    projects.commit(root, "first")
    assert all(verify(Repository(root), revision).findings == () for revision in (None, "HEAD"))


# All at once


@pytest.mark.slow
def test_a_survey_asks_every_question_and_says_which_failed(project: Project, tmp_path: Path) -> None:
    answers = dict(survey(project.root, tmp_path))
    assert not any(answer.is_ours for answer in answers.values())
    assert {command for command, answer in answers.items() if answer.code != 0} == set()
    assert {"trace", "diff", "verify", "history", "export prov", "card", "keep", "attest"} <= answers.keys()
    assert {"used", "find", "check", "check a file"} <= answers.keys()
    assert ask(project.root, ["trace", "nothing"]).code == 2
    assert Answer(["trace"], 1, 0.0, 0, "Traceback (most recent call last):").is_ours
    assert Answer(["trace"], -11, 0.0, 0, "").is_ours and Answer(["trace"], None, 0.0, 0, "").is_ours


# A run before its commit


def test_a_fresh_run_is_not_committed_yet_and_not_wrong(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.replace("params.yaml", "rate: 2", "rate: 3")
    project.replace("code/train.py", "FACTOR = 5", "FACTOR = 6")
    project.run()
    files = {"params.yaml", "dvc.lock", "code/train.py"}
    assert found(project) == {(Fault.UNCOMMITTED, path) for path in files}
    monkeypatch.chdir(project.root)
    ended = CliRunner().invoke(app, ["verify"])
    assert ended.exit_code == 3 and "not committed yet" in ended.output and "wrong" not in ended.output
    project.commit("run")
    assert CliRunner().invoke(app, ["verify"]).exit_code == 0
