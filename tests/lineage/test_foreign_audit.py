"""`verify`, `diff` and `history` on projects that are not ours: what holds, what is missing, and what was changed.

The projects are in projects.py.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from lineage.attestation import attest, check
from lineage.changes import Change, Effect
from lineage.diff import diff
from lineage.errors import AuditError
from lineage.history import history
from lineage.model import Fault
from lineage.repository import Repository
from lineage.signing import generate_key
from lineage.verify import Verification, verify
from tests.lineage.projects import commit, conflicted, copied, write
from tests.pipeline.clones import run

PROJECTS = pytest.mark.parametrize("name", ["broad", "monorepo", "legacy", "without_commits", "shallow"])
STATES = [None, "HEAD"]


def found(verification: Verification) -> set[tuple[Fault, str | None, str]]:
    """Fault, run and path of everything."""
    return {(finding.fault, finding.run, finding.path) for finding in verification.findings}


def changed(root: Path) -> set[tuple[Fault, str | None, str]]:
    """What verification finds wrong in a workspace."""
    verification = verify(Repository(root))
    return {(f.fault, f.run, f.path) for f in verification.findings if f.proves_wrong}


@pytest.mark.parametrize("name", ["broad", "monorepo", "legacy"])
@pytest.mark.parametrize("revision", STATES)
def test_a_project_that_is_as_it_was_run_holds(name: str, revision: str | None, request: pytest.FixtureRequest) -> None:
    verification = verify(Repository(request.getfixturevalue(name)), revision)
    assert found(verification) == set() and verification.holds and verification.complete and verification.bytes


def test_the_remote_holds_too(broad: Path) -> None:
    assert found(verify(Repository(broad), "HEAD", remote="")) == set()


def test_what_is_in_no_commit_is_named(without_commits: Path) -> None:
    faults = {(fault, path) for fault, _, path in found(verify(Repository(without_commits)))}
    assert faults == {(Fault.UNCOMMITTED, path) for path in ("dvc.lock", "dvc.yaml", "in.txt")}


def test_a_clone_without_a_cache_lacks_bytes_and_nothing_is_wrong(shallow: Path) -> None:
    verification = verify(Repository(shallow), "HEAD")
    assert verification.holds and not verification.complete
    assert {finding.fault for finding in verification.findings} == {Fault.MISSING, Fault.UNCHECKED}
    assert "prepared.csv" in {finding.path for finding in verification.findings}
    assert "metrics.json" not in {finding.path for finding in verification.findings}  # git has it


@PROJECTS
def test_nothing_differs_from_itself(name: str, request: pytest.FixtureRequest) -> None:
    repository = Repository(request.getfixturevalue(name))
    states = STATES if repository.head() else [None]
    assert all(diff(repository, state, state).is_empty for state in states)
    assert len(states) == 1 or diff(repository, "HEAD", None).is_empty or name == "shallow"


@PROJECTS
def test_nothing_is_written_to_the_project(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(name)
    before = contents(root)
    verify(Repository(root))
    diff(Repository(root), None, None)
    if name != "without_commits":  # DVC makes its own folder for temporary files where .dvc is in no commit
        assert contents(root) == before


def contents(root: Path) -> dict[str, str]:
    """Path -> hash of every file, those of git and DVC included."""
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.md5(p.read_bytes()).hexdigest() for p in files}


def test_every_kind_of_tampering_is_named(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    for path in ("models/1-a/weights.txt", "metrics.json", "images/deep/2.txt", "imported.txt"):
        flipped(root / path)
    assert changed(root) == {
        (Fault.OUTPUT, "fit@1-a", "models/1-a/weights.txt"),
        (Fault.METRIC, "score", "metrics.json"),
        (Fault.OUTPUT, "images.dvc", "images/deep/2.txt"),
        (Fault.OUTPUT, "imported.txt.dvc", "imported.txt"),
    }


def flipped(path: Path) -> None:
    """Flip a bit in place, so that size and time are as they were, in a copy where DVC has linked the file."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_corrupt_cache_is_no_missing_one(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    objects = {p.read_bytes(): p for p in (root / ".dvc/cache/files/md5").rglob("*") if p.is_file()}
    flipped(objects[(root / "work/summary.txt").read_bytes()])
    objects[(root / "last.txt").read_bytes()].unlink()
    assert found(verify(Repository(root), "HEAD")) == {
        (Fault.CACHE, "summary", "work/summary.txt"),
        (Fault.MISSING, "last", "last.txt"),
    }


def test_a_corrupt_remote_is_found_and_so_is_a_missing_object(broad: Path, tmp_path: Path) -> None:
    root, remote = copied(broad, tmp_path), tmp_path / "remote"
    shutil.copytree(broad.parent / "remote", remote)
    run(["dvc", "remote", "modify", "--local", "store", "url", str(remote)], root)
    objects = {p.read_bytes(): p for p in remote.rglob("*") if p.is_file()}
    flipped(objects[(root / "work/summary.txt").read_bytes()])
    objects[(root / "last.txt").read_bytes()].unlink()
    assert found(verify(Repository(root), "HEAD", remote="store")) == {
        (Fault.REMOTE, "summary", "work/summary.txt"),
        (Fault.MISSING, "last", "last.txt"),
    }
    with pytest.raises(AuditError, match="remote"):
        verify(Repository(root), "HEAD", remote="nowhere")


def test_edits_that_were_not_run_are_named_where_they_are(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    write(root, {"code/helper.py": "x = 1\n", "vars.yaml": "factor: 4\n", "config.toml": "[tool]\nwidth = 3\n"})
    difference = diff(Repository(root), "HEAD", None)
    entries = {(e.run, e.kind, e.what, e.effect) for e in difference.entries}
    waiting = Effect.NOT_RUN
    assert entries == {
        ("score", Change.CODE, "code/helper.py", waiting),
        ("prepare", Change.PARAMETER, "config.toml: tool.width", waiting),
        *((fit, Change.PARAMETER, "vars.yaml: factor", waiting) for fit in ("fit@1-a", "fit@2-a")),
        *((fit, Change.COMMAND, "cmd", waiting) for fit in ("fit@1-a", "fit@2-a")),
    }
    assert not difference.carried and not difference.results


@pytest.mark.slow
def test_a_queued_experiment_is_known_by_its_name(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    run(["dvc", "exp", "run", "--queue", "--name", "waits", "-S", "rows=5"], root)
    difference = diff(Repository(root), "HEAD", "waits")
    (entry,) = difference.entries
    assert (entry.run, entry.kind, entry.what) == ("prepare", Change.PARAMETER, "params.yaml: rows")
    assert (entry.before, entry.after, entry.effect) == (1e3, 5, Effect.NOT_RUN)


@pytest.mark.slow
def test_runs_after_a_change_are_explained_by_it(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    write(root, {"raw.csv.new": "1,2\n3,4\n", "sub/params.yaml": "rate: 0.2\n"})
    (root / "raw.csv").unlink()
    (root / "raw.csv.new").rename(root / "raw.csv")
    run(["dvc", "add", "--quiet", "raw.csv"], root)
    run(["dvc", "repro", "--quiet", "--all-pipelines"], root)
    commit(root, "more rows, another rate")
    assert found(verify(Repository(root), "HEAD")) == set()  # the frozen stage has not read the new rows, and may
    assert attested(root, "last.txt", tmp_path)
    difference = diff(Repository(root), "v1", "HEAD")
    assert {(e.run, e.kind, e.effect) for e in difference.entries} == {
        ("raw.csv.dvc", Change.ROWS, Effect.CHANGED),
        ("sub/dvc.yaml:report", Change.PARAMETER, Effect.MIXED),
        ("sub/dvc.yaml:train", Change.PARAMETER, Effect.MIXED),
    }
    assert {"prepare", "split@train", "score"} <= set(difference.carried)
    bytes_of = [json.loads(run(["git", "show", f"{rev}:metrics.json"], root))["bytes"] for rev in ("v1", "HEAD")]
    rows = history(Repository(root), "metrics.json:bytes").rows
    assert [row.value for row in rows] == bytes_of
    assert {e.run for e in rows[-1].entries} == {"raw.csv.dvc"}


def attested(root: Path, target: str, folder: Path) -> bool:
    """Whether a target's attestation holds and is complete."""
    public = generate_key(folder / "key")
    checked = check(Repository(root), attest(Repository(root), target, folder / "key"), public)
    return checked.holds and checked.complete


def test_a_lock_with_conflicts_is_said_and_the_rest_is_checked(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    conflicted(root / "sub/dvc.lock", "train")
    flipped(root / "work/summary.txt")
    faults = found(verify(Repository(root)))
    assert (Fault.UNREADABLE, None, "sub/dvc.lock") in faults
    assert (Fault.OUTPUT, "summary", "work/summary.txt") in faults
