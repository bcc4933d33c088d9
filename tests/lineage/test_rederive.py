"""A closure is run again in a clean clone, and whatever isn't as recorded is found there; nothing of the user changes.

The project is a chain of shell commands: raw data -> double -> metrics, and beside it a stage that never repeats, one
that reads from it, a metric that jitters, and one that waits.
"""

import hashlib
import os
import platform
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from artifacts.manifest import Environment, Manifest
from lineage.agreement import Agreement, differing_numbers, within
from lineage.cli import app
from lineage.errors import AuditError
from lineage.rederive import Answer, Rederived, rederive
from lineage.repository import Repository
from tests.lineage.projects import write
from tests.pipeline.clones import environment, run

JITTER = "import json, os; print(json.dumps({'loss': 2 + int.from_bytes(os.urandom(4), 'big') / 2**32 * 1e-6}))"
DVC_YAML = f"""
stages:
  double:
    cmd: cat raw/a.csv raw/a.csv > double.csv
    deps: [raw]
    params: [rows]
    outs: [double.csv]
  count:
    cmd: sh count.sh double.csv > metrics.json; mkdir -p counted; cp metrics.json counted
    deps: [count.sh, double.csv]
    metrics: [metrics.json: {{cache: false}}]
    outs: [counted: {{cache: false}}]
  noise:
    cmd: head -c 8 /dev/urandom > noise.bin
    outs: [noise.bin]
  heard:
    cmd: sh count.sh noise.bin > heard.json; cat noise.bin >> heard.txt
    deps: [count.sh, noise.bin]
    outs: [heard.json, heard.txt]
  jitter:
    cmd: {sys.executable} jitter.py > jitter.json; mkdir -p live; cp jitter.json live
    deps: [jitter.py, double.csv]
    metrics: [jitter.json: {{cache: false}}]
    outs: [live: {{cache: false}}]
  told:
    cmd: mkdir -p told && sh told.sh > told/manifest.json
    outs: [told/manifest.json]
  wait:
    cmd: sh wait.sh
    deps: [wait.sh, secret.txt, mixed]
    outs: [waited.txt]
"""
TOLD = Manifest(
    stage="told",
    params={},
    inputs={},
    code={},
    outputs={},
    counts={},
    environment=Environment(locks={"pylock.toml": "00"}, python="${SAID:-3.0}", versions={"no-such-package": "1.0"}),
    sources=[],
)
FILES = {
    "dvc.yaml": DVC_YAML,
    "raw/a.csv": "1,2\n",
    "params.yaml": "rows: 1\nlineage:\n  tolerance:\n    relative: 0\n",
    "count.sh": 'echo "{\\"bytes\\": $(wc -c < $1)}"\n',
    "jitter.py": JITTER,
    "told.sh": f"cat <<END\n{TOLD.text()}END\n",
    "wait.sh": 'sleep "${WAIT:-0}"; test "$FAIL" != yes && cp secret.txt waited.txt\n',
    "mixed/tracked.txt": "git has it\n",
    "mixed/own.txt": "git ignores it\n",
    "secret.txt": "of the user, ignored by git\n",
}
ROOT = Path(__file__).parents[2]
SLEEP = "61.257"
"""Seconds, as no other process sleeps."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """The project, run and committed. To be read, not changed."""
    root = tmp_path_factory.mktemp("chain") / "chain"
    write(root, FILES)
    run(["git", "init", "--quiet", "--initial-branch=main"], root)
    run(["dvc", "init", "--quiet"], root)
    run(["dvc", "add", "--quiet", "raw"], root)
    with (root / ".gitignore").open("a") as file:
        file.write("secret.txt\nmixed/own.txt\n")
    run(["dvc", "repro", "--quiet"], root)
    commit(root, "first")
    return root


@pytest.fixture
def project(recorded: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(recorded, tmp_path / "project", symlinks=True))


def commit(root: Path, message: str) -> None:
    """Commit everything."""
    run(["git", "add", "--all"], root)
    run(["git", "commit", "--quiet", f"--message={message}"], root)


def again(
    root: Path, target: str, revision: str | None = None, tolerance: float | None = None, variables: str = ""
) -> Rederived:
    """`rederive` of a project."""
    return rederive(Repository(root), target, revision, tolerance, variables=variables.split())


def tree(root: Path) -> dict[str, str]:
    """Every file below a folder with its mode and hash; git's index holds times, too."""
    return {
        path.relative_to(root).as_posix(): f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(root.rglob("*"))
        if path.is_file() and path != root / ".git" / "index"
    }


def test_a_deterministic_chain_is_identical_and_nothing_of_the_users_changes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))  # as in a git hook
    before, temporary = tree(project), set(Path(tempfile.gettempdir()).glob("lineage-rederive-*"))
    found = again(project, "metrics.json:bytes")
    assert (found.answer, found.entered, found.notes) == (Answer.IDENTICAL, None, ())
    assert found.runs == ("double", "count")
    assert {output.path for output in found.outputs} == {"double.csv", "metrics.json", "counted"}
    assert tree(project) == before
    assert set(Path(tempfile.gettempdir()).glob("lineage-rederive-*")) == temporary


def test_a_forged_output_is_found_though_dvc_restores_it_from_the_run_cache(project: Path) -> None:
    (project / "double.csv").unlink()
    (project / "double.csv").write_text("1,2\n1,2\n1,2\n")
    run(["dvc", "commit", "--force", "double"], project)
    run(["dvc", "repro", "--quiet", "count"], project)
    commit(project, "forged")
    found = again(project, "metrics.json")
    assert (found.answer, found.entered, found.because) == (Answer.DIFFERS, "double", ())
    assert [n.made for output in found.outputs for n in output.numbers] == [8, 8]


def test_metrics_that_were_edited_and_committed_are_found(project: Path) -> None:
    for path in ("metrics.json", "counted/metrics.json"):
        (project / path).write_text('{"bytes": 9}\n')
    commit(project, "edited")
    found = again(project, "metrics.json:bytes", "HEAD")
    assert (found.answer, found.entered) == (Answer.DIFFERS, "count")
    said = {o.path: o.what for o in found.outputs if o.agreement is Agreement.DIFFERS}
    assert said.keys() == {"metrics.json", "counted"} and all(w.startswith("the commit has ") for w in said.values())


def test_what_never_repeats_is_named_and_not_what_reads_it(recorded: Path) -> None:
    found = again(recorded, "heard")
    assert (found.answer, found.entered, found.because) == (Answer.DIFFERS, "noise", ())
    differing = [output.path for output in found.outputs if output.agreement is Agreement.DIFFERS]
    assert differing == ["noise.bin", "heard.txt"]


@pytest.mark.slow
def test_a_metric_that_varies_agrees_within_the_tolerance_of_the_call_or_of_params(project: Path) -> None:
    assert again(project, "jitter").answer is Answer.DIFFERS
    within_it = again(project, "live/jitter.json:loss", tolerance=1e-3)
    assert (within_it.answer, within_it.entered) == (Answer.WITHIN, "jitter")
    (project / "params.yaml").write_text("rows: 1\nlineage:\n  tolerance:\n    relative: 0.001\n")
    assert again(project, "jitter.json").answer is Answer.DIFFERS  # on the machine that made it, the bytes decide
    found = rederive(Repository(project), "jitter.json", elsewhere=True)
    assert (found.answer, found.tolerance) == (Answer.WITHIN, 0.001)
    assert found.notes == ("the workspace has uncommitted changes, which were run: params.yaml",)


@pytest.mark.slow
def test_with_a_tolerance_metrics_decide_but_an_artifact_that_was_asked_for_has_to_agree(recorded: Path) -> None:
    assert again(recorded, "heard", tolerance=0.1).answer is Answer.WITHIN
    assert again(recorded, "heard.txt", tolerance=0.1).answer is Answer.DIFFERS
    assert again(recorded, "noise", tolerance=0.1).answer is Answer.DIFFERS


@pytest.mark.slow
def test_a_manifest_that_differs_in_its_environment_is_a_note(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAID", "4.0")
    found = again(recorded, "told/manifest.json", variables="SAID")
    assert (found.answer, found.entered) == (Answer.IDENTICAL, None)
    assert [output.agreement for output in found.outputs] == [Agreement.RECORD]
    unasked = again(recorded, "told/manifest.json")
    assert [output.agreement for output in unasked.outputs] == [Agreement.IDENTICAL]  # no command saw the variable
    assert found.notes == (
        f"Python is {platform.python_version()}, the record has 3.0",
        "no-such-package is not installed, the record has 1.0",
        "pylock.toml isn't the one that the record was made with",
    )


@pytest.mark.slow
def test_data_that_is_not_here_is_fetched_into_the_clone_alone(project: Path, tmp_path: Path) -> None:
    run(["dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "remote")], project)
    run(["dvc", "push", "--quiet", "raw"], project)
    commit(project, "remote")
    shutil.rmtree(project / "raw")
    shutil.rmtree(project / ".dvc" / "cache")
    before = tree(project)
    assert again(project, "metrics.json").answer is Answer.IDENTICAL
    assert tree(project) == before


def test_an_output_behind_a_link_that_leads_away_is_refused(project: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    shutil.move(project / "told", precious)
    (project / "told").symlink_to(precious)
    with pytest.raises(AuditError, match="behind a symbolic link"):
        again(project, "told")
    assert (precious / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "target", "revision", "runs"),
    [
        ("broad", "last.txt", None, ["stamp", "prepare", "sub/dvc.yaml:train", "last"]),
        ("broad", "work/summary.txt", "v1", ["prepare", "split@train", "fit@1-a", "fit@2-a", "summary"]),
        ("shallow", "score", None, ["prepare", "split@train", "fit@1-a", "score"]),  # all data from the remote
        ("monorepo", "deep/after.json", "HEAD", ["count", "deep/dvc.yaml:after"]),
        ("without_commits", "copy", None, ["copy"]),
        ("legacy", "out.txt", None, ["copy"]),
    ],
)
def test_projects_that_are_not_ours_are_run_again(
    request: pytest.FixtureRequest, fixture: str, target: str, revision: str | None, runs: list[str]
) -> None:
    root: Path = request.getfixturevalue(fixture)
    found = again(root, target, revision)
    assert (found.answer, [*found.runs]) == (Answer.IDENTICAL, runs)
    assert not run(["git", "diff", "--name-only"], root)


@pytest.mark.slow
def test_changed_code_is_what_a_difference_is_put_down_to(project: Path) -> None:
    (project / "count.sh").write_text("echo '{\"bytes\": 1}'\n")
    found = again(project, "count")
    assert (found.answer, found.entered, found.because) == (Answer.DIFFERS, "count", ("its input count.sh",))


@pytest.mark.slow
def test_an_experiment_of_which_no_branch_knows_is_run_and_kept_where_asked(project: Path, tmp_path: Path) -> None:
    base = run(["git", "rev-parse", "HEAD"], project).strip()
    (project / "wait.sh").write_text("cat secret.txt mixed/*.txt > waited.txt; echo more >> waited.txt\n")
    run(["dvc", "repro", "--quiet", "wait"], project)
    commit(project, "experiment")
    run(["git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/more-words", "HEAD"], project)
    run(["git", "reset", "--quiet", "--hard", base], project)
    (project / "waited.txt").unlink()
    kept = tmp_path / "kept"
    found = rederive(Repository(project), "waited.txt", "more-words", keep=kept)
    assert found.answer is Answer.IDENTICAL
    assert (kept / "clone" / "waited.txt").read_text().endswith("more\n")


@pytest.mark.slow
def test_a_stage_that_fails_is_named_with_what_it_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "yes")
    found = again(project, "waited.txt", variables="FAIL")
    assert (found.answer, found.failed) == (Answer.FAILED, "wait")
    assert "failed to run: sh wait.sh" in found.said


def test_commands_are_shown_and_nobody_is_asked_without_a_terminal(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded)
    result = CliRunner().invoke(app, ["rederive", "heard"])
    assert isinstance(result.exception, AuditError) and "--yes" in str(result.exception)
    assert "noise: head -c 8 /dev/urandom > noise.bin" in result.stderr and "heard: sh count.sh" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("said", "code"), [("y", 0), ("", 2)])
def test_at_a_terminal_the_answer_decides(recorded: Path, said: str, code: int) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lineage", "-C", str(recorded), "rederive", "metrics.json"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, f"{said}\n".encode())
    text = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while piece := os.read(ours, 1 << 16):
            text += piece
    assert process.wait(timeout=60) == code, text
    assert b"Run them?" in text and (b"nothing was run" in text) is (code == 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_folder_and_no_process(recorded: Path, tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables = {**environment(), "TMPDIR": str(temporary), "WAIT": SLEEP, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lineage", "rederive", "wait", "--yes", "--env", "WAIT"]
    process = subprocess.Popen(command, cwd=recorded, env=variables, stderr=subprocess.DEVNULL)
    until_sleeping(process)
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGINT)  # who waits presses it again
    assert process.wait(timeout=20) == 130
    assert sleeping() == []
    assert [*temporary.iterdir()] == []


def until_sleeping(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the stage is at work."""
    deadline = time.monotonic() + 30
    while not sleeping():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def sleeping() -> list[int]:
    """The processes that sleep as the stage does."""
    found = psutil.process_iter(["cmdline", "status"])
    return [p.pid for p in found if p.info["cmdline"] == ["sleep", SLEEP] and p.info["status"] != psutil.STATUS_ZOMBIE]


def test_raw_data_that_is_nowhere_or_was_changed_is_named(project: Path) -> None:
    shutil.rmtree(project / ".dvc" / "cache")
    (project / "raw" / "a.csv").chmod(0o644)
    (project / "raw" / "a.csv").write_text("3,4\n")
    (project / "secret.txt").unlink()
    with pytest.raises(AuditError, match=r"raw: its bytes aren't those recorded"):
        again(project, "metrics.json")
    with pytest.raises(AuditError, match=r"secret\.txt: \w{32} is nowhere here"):
        again(project, "waited.txt")


@pytest.mark.parametrize(
    ("target", "tolerance", "keep", "message"),
    [
        ("raw", None, None, "no command makes it"),
        ("nothing", None, None, "nothing here is called"),
        ("count", -1.0, None, "is no tolerance"),
        ("count", None, "inside", "can't be kept there"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(
    recorded: Path, target: str, tolerance: float | None, keep: str | None, message: str
) -> None:
    with pytest.raises(AuditError, match=message):
        rederive(Repository(recorded), target, None, tolerance, recorded / keep if keep else None)


def test_numbers_agree_relative_to_the_larger_and_nothing_else_does() -> None:
    old = {"a": 1.0, "b": [1, 2], "c": "x", "d": True, "e": float("nan")}
    new = {"a": 1.01, "b": [1, 4], "c": "y", "d": 1, "e": float("nan")}
    numbers = {number.key: number for number in differing_numbers(old, new)}
    assert {key: within(number, 0.01) for key, number in numbers.items()} == {
        "a": True,
        "b.1": False,
        "c": False,
        "d": False,
    }
