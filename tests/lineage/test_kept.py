"""A kept record is a revision: it answers as a commit does, in a clone without a cache, and shows every edit.

The project is kept in `kept` as it ran with another rate, and put back to what its first commit says.
"""

import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pygit2
import pytest
from typer.testing import CliRunner

import lineage.records
from lineage.attestation import attest, check, check_file
from lineage.changes import Change
from lineage.cli import app
from lineage.diff import diff
from lineage.errors import AuditError
from lineage.keep import LARGEST, Keeping, keep
from lineage.model import Fault
from lineage.records import ARCHIVE, files_of, packed, unpacked
from lineage.rederive import Answer, rederive
from lineage.repository import Repository
from lineage.signing import generate_key
from lineage.trace import trace
from lineage.verify import verify
from tests.lineage.projects import copied
from tests.lineage.simulated import METRICS, PARTS, RAW, REPORT, ROWS, STAGES, Project, flip
from tests.pipeline.clones import run

Found = set[tuple[Fault, str | None, str]]
KEPT = "kept"
MODEL = "models/a.txt"


def ran(simulated: Project, folder: Path) -> Project:
    """A copy that ran with another rate, which no commit says; DVC leaves `kept` out."""
    project = simulated.copied(folder)
    project.write(".dvcignore", b"/kept/\n")
    project.commit("DVC leaves kept records out")
    project.replace("params.yaml", "rate: 2", "rate: 4")
    project.run()
    return project


def kept(repository: Repository, folder: Path, revision: str | None = None, largest: int = LARGEST) -> Keeping:
    """Keep a record, and lay out its files in its folder, as records once were kept, for tests to edit."""
    made = keep(repository, folder, revision, largest)
    shutil.copytree(files_of(folder), folder, dirs_exist_ok=True)
    (folder / ARCHIVE).unlink()
    return made


@dataclass
class Story:
    """The project after its record was kept and committed, and a clone of it without a cache."""

    project: Project
    clone: Project
    code: str
    """The commit whose code ran."""
    committed: str
    """The commit that added the record."""
    made: Keeping


@pytest.fixture(scope="module")
def told(simulated: Project, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """To be read, not changed."""
    folder = tmp_path_factory.mktemp("kept")
    project = ran(simulated, folder / "project")
    code = Repository(project.root).head()
    made = kept(Repository(project.root), project.root / KEPT)
    run(["git", "checkout", "--quiet", "."], project.root)
    committed = project.commit("kept")
    pygit2.clone_repository(str(project.root), str(folder / "clone"))
    assert code is not None
    return Story(project, Project(folder / "clone"), code, committed, made)


@pytest.fixture
def clone(told: Story, tmp_path: Path) -> Project:
    """A clone without a cache that may be changed."""
    return told.clone.copied(tmp_path / "clone")


def found(project: Project, target: str | None = None) -> Found:
    """Fault, run and path of everything that `verify` finds in the record."""
    findings = verify(Repository(project.root), str(project.root / KEPT), target).findings
    return {(f.fault, f.run, f.path) for f in findings}


def said(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of a command in the project's folder."""
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit | AuditError)
    return result.exit_code, result.output + str(result.exception or "")


def edit(project: Project, path: str, old: str, new: str) -> None:
    """Change a text file of the record."""
    project.replace(f"{KEPT}/{path}", old, new)


# Questions


def test_it_has_what_ran_and_the_commit_whose_code_ran(told: Story) -> None:
    record = json.loads(told.project.text(f"{KEPT}/record.json"))
    assert told.made.commit == record["commit"] == told.code
    names = {p.relative_to(told.project.root / KEPT).as_posix() for p in (told.project.root / KEPT).rglob("*.*")}
    assert names >= {"dvc.lock", "dvc.yaml", "params.yaml", METRICS, REPORT, RAW, f"{RAW}.dvc", f"{PARTS}/more/b.txt"}
    assert names - {"record.json"} == set(record["files"]) and not record["left_out"]


def test_it_holds_in_a_clone_without_a_cache(told: Story) -> None:
    checked = verify(Repository(told.clone.root), str(told.clone.root / KEPT))
    assert checked.findings == () and checked.holds and checked.complete
    assert checked.runs == 7 and checked.by_hash == 0
    assert checked.commit is not None and checked.commit.id == told.code
    outputs = sum(out["size"] for entry in _lock(told).values() for out in entry["outs"])
    assert checked.bytes == outputs + len(told.project.text(RAW))


def _lock(told: Story) -> dict[str, dict[str, list[dict[str, int]]]]:
    return Project(told.project.root / KEPT).lock()


def test_a_number_is_traced_to_the_kept_parameters_and_to_the_commit_that_kept_them(told: Story) -> None:
    repository = Repository(told.clone.root)
    kept = trace(repository, f"{METRICS}:score", str(told.clone.root / KEPT))
    here = trace(repository, f"{METRICS}:score", "HEAD")
    assert kept.target.value > here.target.value
    rates = {p.value for s in kept.steps for p in s.parameters if p.key == "train.rate"}
    assert rates == {4} and not kept.gaps
    assert {s.recorded.id for s in kept.steps if s.recorded and s.kind == "stage"} == {told.committed}
    assert kept.commit is not None and kept.commit.id == told.code


def test_it_differs_from_a_commit_by_what_was_set(told: Story) -> None:
    repository = Repository(told.project.root)
    record = str(told.project.root / KEPT)
    found = diff(repository, record, "HEAD")
    assert {(e.run, e.kind, e.before, e.after) for e in found.entries} == {
        (f"train@{arm}-1", Change.PARAMETER, 4, 2) for arm in ("a", "b")
    }
    assert found.carried == ("evaluate", "report") and not found.gaps
    assert {result.path for result in found.results} == {METRICS, REPORT}
    assert diff(repository, record, record).is_empty


def test_nothing_is_written_into_git(told: Story, tmp_path: Path) -> None:
    project = told.project.copied(tmp_path / "project")
    git = project.root / ".git"
    before = {path: path.read_bytes() for path in git.rglob("*") if path.is_file()}
    kept(Repository(project.root), project.root / KEPT, "HEAD")
    verify(Repository(project.root), str(project.root / KEPT))
    diff(Repository(project.root), str(project.root / KEPT), "HEAD")
    assert before == {path: path.read_bytes() for path in git.rglob("*") if path.is_file()}


# Edits


def test_every_flipped_bit_of_every_file_is_named(clone: Project) -> None:
    record = clone.root / KEPT
    files = [path for path in sorted(record.rglob("*")) if path.is_file() and path.name != "record.json"]
    assert len(files) == 18
    for path in files:
        name = path.relative_to(record).as_posix()
        for bit in (1, path.stat().st_size * 4, path.stat().st_size * 8 - 1):
            flip(path, bit)
            checked = verify(Repository(clone.root), str(record))
            assert not checked.holds and name in {f.path for f in checked.findings if f.proves_wrong}
            flip(path, bit)
    assert found(clone) == set()


EDITS: dict[str, tuple[Callable[[Project], object], Found]] = {
    "a metric": (lambda p: edit(p, METRICS, '"score": ', '"score": 1'), {(Fault.METRIC, "evaluate", METRICS)}),
    "a report": (lambda p: edit(p, REPORT, "the score", "a score"), {(Fault.OUTPUT, "report", REPORT)}),
    "a folder": (lambda p: flip(p.root / KEPT / PARTS / "a.txt"), {(Fault.OUTPUT, "split", f"{PARTS}/a.txt")}),
    "a parameter": (
        lambda p: edit(p, "params.yaml", "seed: 1", "seed: 2"),
        {(Fault.RECORD, None, "params.yaml")} | {(Fault.PARAMETER, f"train@{a}-1", "params.yaml") for a in "ab"},
    ),
    "a parameter that nothing reads": (
        lambda p: edit(p, "params.yaml", "train:", "more: 1\ntrain:"),
        {(Fault.RECORD, None, "params.yaml")},
    ),
    "a command": (
        lambda p: edit(p, "dvc.yaml", "cmd: report", "cmd: report --more"),
        {(Fault.RECORD, None, "dvc.yaml"), (Fault.COMMAND, "report", "dvc.yaml")},
    ),
    "a recorded parameter": (
        lambda p: edit(p, "dvc.lock", "limit: 50", "limit: 60"),
        {(Fault.RECORD, None, "dvc.lock")}
        | {(fault, "prepare", "params.yaml") for fault in (Fault.PARAMETER, Fault.MANIFEST)},
    ),
    "a lost output": (lambda p: (p.root / KEPT / REPORT).unlink(), {(Fault.RECORD, "report", REPORT)}),
    "a lost lock": (
        lambda p: (p.root / KEPT / "dvc.lock").unlink(),
        {(Fault.RECORD, None, "dvc.lock"), *((Fault.NEVER_RUN, n, "dvc.yaml") for n in STAGES)},
    ),
    "an output's hash in record.json": (
        lambda p: edit(p, "record.json", f'"{REPORT}": "', f'"{REPORT}": "0'),
        {(Fault.RECORD, "report", REPORT)},
    ),
    "an output that record.json doesn't name": (
        lambda p: edit(p, "record.json", f'  "{REPORT}"', f'  "other-{REPORT}"'),
        {(Fault.RECORD, None, f"other-{REPORT}"), (Fault.RECORD, "report", REPORT)},
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_named_with_all_that_follows_from_it(
    clone: Project, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, expected = EDITS[what]
    change(clone)
    assert found(clone) == expected
    code, text = said(clone, monkeypatch, "verify", KEPT)
    assert code == 1 and all(f"{fault}: {path}" in text for fault, _, path in expected)


def test_an_edit_by_someone_who_knows_record_json_is_told_by_locks_and_manifests(clone: Project) -> None:
    """The metric, its hash in dvc.lock and that of dvc.lock agree; who made it and who read it don't."""
    lock = Project(clone.root / KEPT)
    old = next(out["md5"] for out in lock.lock()["evaluate"]["outs"] if out["path"] == METRICS)
    edit(clone, METRICS, '"score": ', '"score": 1')
    new = lock._entry(METRICS)["md5"]
    before, made = clone.text(f"{KEPT}/dvc.lock").split("  report:")
    lock.write("dvc.lock", f"{before.replace(old, new)}  report:{made}".encode())
    edit(clone, "record.json", old, new)
    digest = json.loads(clone.text(f"{KEPT}/record.json"))["files"]["dvc.lock"]
    edit(clone, "record.json", digest, lock._entry("dvc.lock")["md5"])
    assert found(clone) == {(Fault.FORGED, "evaluate", METRICS), (Fault.LOCK, "report", METRICS)}


def test_tampering_shows_in_a_diff_too(clone: Project) -> None:
    edit(clone, METRICS, '"score": ', '"score": 1')
    edit(clone, "params.yaml", "seed: 1", "seed: 2")
    entries = diff(Repository(clone.root), str(clone.root / KEPT), "HEAD").entries
    assert {(Fault.METRIC, METRICS), (Fault.RECORD, "params.yaml")} <= {(e.kind, e.what) for e in entries}


NO_PATH = '{"commit": "a", "kept": "", "files": {"a\\u0000b": "0"}, "left_out": []}'


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "\xff", '{"files": {"../x": "0"}}', NO_PATH])
def test_a_record_json_that_keep_never_writes_is_no_traceback(clone: Project, text: str) -> None:
    clone.write(f"{KEPT}/record.json", text.encode("latin1"))
    with pytest.raises(AuditError, match="no kept record"):
        found(clone)


# One file


@pytest.fixture
def archived(simulated: Project, tmp_path: Path) -> Project:
    """The project with a record as `keep` writes it, committed."""
    project = ran(simulated, tmp_path / "archived")
    keep(Repository(project.root), project.root / KEPT)
    run(["git", "checkout", "--quiet", "."], project.root)
    project.commit("kept")
    return project


def repack(project: Project, change: Callable[[Path], object]) -> None:
    """Change what is in a record's archive."""
    folder = project.root / KEPT
    files = shutil.copytree(files_of(folder), project.root.parent / "files")
    change(files)
    (folder / ARCHIVE).write_bytes(packed(files, _texts(files)))


def test_an_archive_answers_as_its_files_do(archived: Project, told: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [p.name for p in (archived.root / KEPT).iterdir()] == [ARCHIVE]
    assert found(archived) == set()
    here, there = (trace(Repository(p.root), METRICS, str(p.root / KEPT)) for p in (archived, told.project))
    assert [s.name for s in here.steps] == [s.name for s in there.steps] and here.gaps == there.gaps == ()
    head = Repository(archived.root).head()
    assert {s.recorded.id for s in here.steps if s.recorded is not None} == {head}
    assert said(archived, monkeypatch, "diff", KEPT, "HEAD")[0] == 0
    before = (archived.root / KEPT / ARCHIVE).read_bytes()
    repack(archived, lambda files: None)
    assert (archived.root / KEPT / ARCHIVE).read_bytes() == before


def test_a_record_that_was_packed_later_came_into_history_before(told: Story, tmp_path: Path) -> None:
    project = told.project.copied(tmp_path / "project")
    folder = project.root / KEPT
    archive = packed(folder, _texts(folder))
    shutil.rmtree(folder)
    project.write(f"{KEPT}/{ARCHIVE}", archive)
    project.commit("packed")
    traced = trace(Repository(project.root), METRICS, str(folder))
    assert {step.recorded.id for step in traced.steps if step.recorded is not None} == {told.committed}


def test_an_edit_in_an_archive_is_named(archived: Project) -> None:
    repack(archived, lambda files: Project(files).replace(METRICS, '"score": ', '"score": 1'))
    assert {path for _, _, path in found(archived)} == {METRICS}


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_nothing_is_unpacked_outside(archived: Project, name: str) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    (archived.root / KEPT / ARCHIVE).write_bytes(lzma.compress(made.getvalue()))
    with pytest.raises(AuditError, match="no kept record"):
        found(archived)


def test_an_archive_without_end_and_a_damaged_one_are_refused(
    archived: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = archived.root / KEPT / ARCHIVE
    whole = place.read_bytes()
    lineage.records._laid_out.cache_clear()  # another test's record may have the same bytes
    for name, most, why in (("MOST", 1, "more than 1 files"), ("LARGEST", len(whole), f"more than {len(whole)} bytes")):
        with monkeypatch.context() as patch, pytest.raises(AuditError, match=why):
            patch.setattr(f"lineage.records.{name}", most)
            unpacked(whole, name)
    for data in (whole[:99], b"", b"mine"):
        place.write_bytes(data)
        with pytest.raises(AuditError, match="no kept record"):
            found(archived)
    with monkeypatch.context() as patch, pytest.raises(AuditError, match="larger than 1 bytes"):
        patch.setattr("lineage.records.LARGEST", 1)
        found(archived)


# What is left out


@pytest.fixture(scope="module")
def thin(simulated: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone without a cache, of a record that has only files of up to 10 bytes, and so no more than the raw data."""
    folder = tmp_path_factory.mktemp("thin")
    project = ran(simulated, folder / "project")
    made = kept(Repository(project.root), project.root / KEPT, largest=10)
    assert (made.files, made.left_out) == (5, 12)
    project.commit("kept")
    pygit2.clone_repository(str(project.root), str(folder / "clone"))
    return Project(folder / "clone")


def test_outputs_that_are_left_out_are_counted_and_the_rest_holds(
    thin: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = said(thin, monkeypatch, "verify", KEPT)
    assert code == 0 and "holds" in text and "12 outputs are known only by hash (0.0 MB)" in text
    code, text = said(thin, monkeypatch, "verify", KEPT, "--target", ROWS)
    assert code == 0 and "2 outputs are known only by hash" in text
    code, text = said(thin, monkeypatch, "trace", f"{METRICS}:score", "--rev", KEPT)
    assert "are not here" in text


def test_the_cache_is_used_where_it_has_them(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    kept(Repository(project.root), project.root / KEPT, largest=10)
    checked = verify(Repository(project.root), str(project.root / KEPT))
    assert checked.findings == () and checked.by_hash == 1  # the metric, which git keeps elsewhere
    lock = project.lock()
    digest = next(out["md5"] for out in lock["train@a-1"]["outs"] if out["path"] == MODEL)
    flip(project.place(digest))
    assert found(project) == {(Fault.CACHE, "train@a-1", MODEL)}


def test_a_hash_of_what_was_left_out_can_t_be_changed(thin: Project, tmp_path: Path) -> None:
    project = thin.copied(tmp_path / "project")
    digest = next(out["md5"] for out in project.lock()["report"]["outs"] if out["path"] == REPORT)
    other = digest[::-1]
    edit(project, "dvc.lock", digest, other)
    assert found(project) == {(Fault.RECORD, None, "dvc.lock"), (Fault.RECORD, "report", REPORT)}


def test_the_list_of_a_folder_that_was_left_out_is_held_against_its_hash(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    kept(Repository(project.root), project.root / KEPT, largest=300)
    (out,) = (o for o in json.loads(project.text(f"{KEPT}/record.json"))["left_out"] if o["path"].startswith("meta/p"))
    assert out["size"] > 300 and "files" not in out
    record = json.loads(project.text(f"{KEPT}/record.json"))
    inside = {path[len(PARTS) + 1 :]: record["files"].pop(path) for path in [*record["files"]] if PARTS in path}
    parts = next(o for o in project.lock()["split"]["outs"] if o["path"] == PARTS)
    record["left_out"].append({"path": PARTS, "hash": parts["md5"], "size": parts["size"], "files": inside})
    project.write(f"{KEPT}/record.json", json.dumps(record).encode())
    shutil.rmtree(project.root / ".dvc/cache")
    assert found(project) == set()
    inside["a.txt"] = inside["more/b.txt"]
    project.write(f"{KEPT}/record.json", json.dumps(record).encode())
    assert (Fault.RECORD, "split", PARTS) in found(project)


def test_what_is_left_out_is_signed_by_its_hash(thin: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = thin.copied(tmp_path / "project")
    key, signed = tmp_path / "key", tmp_path / "signed.json"
    generate_key(key)
    options = ("--key", str(key), "--output", str(signed))
    assert said(project, monkeypatch, "attest", REPORT, "--rev", KEPT, *options)[0] == 0
    checking = ("check", str(signed), "--key", f"{key}.pub", "--rev", KEPT)
    code, text = said(project, monkeypatch, *checking)
    assert code == 0 and "holds" in text and "12 outputs are known only by hash" in text
    assert said(project, monkeypatch, "check", str(signed), "--key", f"{key}.pub", "--rev", "HEAD~1")[0] == 1  # rate 2
    digest = next(o["md5"] for o in Project(project.root / KEPT).lock()["train@a-1"]["outs"] if o["path"] == MODEL)
    for name in ("dvc.lock", "record.json"):
        edit(project, name, digest, digest[::-1])
    code, text = said(project, monkeypatch, *checking)
    assert code == 1 and f"{MODEL}: its hash is {digest[::-1]}, {digest} was signed" in text


def test_a_file_or_folder_in_somebody_s_hand_is_what_was_signed_by_its_hash(simulated: Project, tmp_path: Path) -> None:
    project, key = ran(simulated, tmp_path / "project"), tmp_path / "key"
    kept(Repository(project.root), project.root / KEPT, largest=10)
    (project.root / ".dvc/cache").rename(tmp_path / "cache")
    generate_key(key)
    of_report, of_parts = (
        attest(Repository(project.root), target, key, str(project.root / KEPT)) for target in (REPORT, PARTS)
    )
    model, folder = tmp_path / "downloaded.bin", tmp_path / "folder"
    shutil.copy(project.root / MODEL, model)
    shutil.copytree(project.root / PARTS, folder)
    public = tmp_path / "key.pub"
    assert check_file(model, of_report, public).target == f"{MODEL}, of {REPORT}"
    assert check_file(folder, of_parts, public).holds
    flip(model)
    flip(folder / "a.txt")
    for place, statement in ((model, of_report), (folder, of_parts)):
        assert not check_file(place, statement, public).holds


def test_what_was_signed_by_its_hash_is_hashed_where_its_bytes_are(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    repository = Repository(project.root)
    kept(repository, project.root / KEPT, largest=10)
    cache = project.root / ".dvc/cache"
    key = tmp_path / "key"
    generate_key(key)
    cache.rename(tmp_path / "cache")
    signed = attest(repository, REPORT, key, str(project.root / KEPT))
    (tmp_path / "cache").rename(cache)
    found = check(repository, signed, tmp_path / "key.pub", str(project.root / KEPT))
    assert found.holds and found.by_hash == 1  # the metric, which git keeps elsewhere
    model = next(o["md5"] for o in project.lock()["train@a-1"]["outs"] if o["path"] == MODEL)
    flip(project.place(model))
    (differing,) = check(repository, signed, tmp_path / "key.pub", str(project.root / KEPT)).differing
    assert differing.path == MODEL


# What is refused


def refused(project: Project) -> str:
    """The refusal to keep the workspace, which leaves everything as it is."""
    before = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    with pytest.raises(AuditError) as error:
        kept(Repository(project.root), project.root / KEPT)
    assert before == {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: flip(p.root / METRICS), f"metric edited: {METRICS} (evaluate)"),
        (lambda p: flip(p.root / PARTS / "a.txt"), f"output tampered: {PARTS}/a.txt (split)"),
        (lambda p: p.replace("params.yaml", "rate: 4", "rate: 5"), "parameter differs: params.yaml (train@a-1)"),
        (lambda p: p.replace("dvc.yaml", "cmd: report", "cmd: other"), "command differs: dvc.yaml (report)"),
        (lambda p: p.write_lock({}), "no stage has run"),
        (lambda p: p.write("dvc.lock", b"<<<<<<< HEAD\n"), "conflict markers"),
        (lambda p: (p.replace("code/train.py", "5", "6"), p.run()), "code differs: code/train.py (train@a-1)"),
        (lambda p: p.write(f"{KEPT}/{ARCHIVE}", b"mine"), f"{ARCHIVE}: it is no kept record"),
        (
            lambda p: p.write(f"{KEPT}/{ARCHIVE}/mine.txt", b"mine"),
            f"are no former record's: {ARCHIVE}",
        ),
        (lambda p: p.write(KEPT, b"mine"), "no folder"),
        (lambda p: p.write(".gitignore", b"/kept/\n"), f"Add the lines !/kept/ and !/kept/{ARCHIVE} to .gitignore"),
    ],
)
def test_what_does_not_hold_or_has_no_place_is_refused(
    simulated: Project, tmp_path: Path, change: Callable[[Project], object], expected: str
) -> None:
    project = ran(simulated, tmp_path / "project")
    change(project)
    assert expected in refused(project)


def test_nothing_behind_a_link_is_replaced(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    kept(Repository(project.root), project.root / KEPT)
    shutil.move(project.root / KEPT / "models", tmp_path / "models")
    (project.root / KEPT / "models").symlink_to(tmp_path / "models")
    assert f"no former record's: {MODEL}" in refused(project)
    (project.root / KEPT / "models").unlink()
    (project.root / KEPT / REPORT).unlink()
    (project.root / KEPT / REPORT).symlink_to(project.root / REPORT)
    assert f"no former record's: {REPORT}" in refused(project)
    assert (tmp_path / MODEL).is_file()


def test_without_a_commit_there_is_no_code_to_name(without_commits: Path, tmp_path: Path) -> None:
    root = copied(without_commits, tmp_path)
    with pytest.raises(AuditError, match="no commit has the code"):
        kept(Repository(root), tmp_path / KEPT)


# Keeping again, and elsewhere


def test_a_record_is_replaced_by_the_next_one(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    kept(Repository(project.root), project.root / KEPT)
    (project.root / KEPT / REPORT).unlink()  # as a writer that was stopped leaves it
    kept(Repository(project.root), project.root / KEPT, largest=10)
    thin = _texts(project.root / KEPT)
    assert REPORT not in thin and not (project.root / KEPT / "meta").exists()
    kept(Repository(project.root), project.root / KEPT)
    again = tmp_path / "again"
    kept(Repository(project.root), again)
    here, there = _texts(project.root / KEPT), _texts(again)
    records = [json.loads(side.pop("record.json")) for side in (here, there)]
    assert here == there and records[0].pop("kept") <= records[1].pop("kept") and records[0] == records[1]


def test_other_files_and_records_below_stay(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    project.write(f"{KEPT}/README.md", b"mine")
    kept(Repository(project.root), project.root / KEPT / "below")
    below = _texts(project.root / KEPT / "below")
    for largest in (1_000_000, 10):
        kept(Repository(project.root), project.root / KEPT, largest=largest)
        assert project.text(f"{KEPT}/README.md") == "mine" and _texts(project.root / KEPT / "below") == below
        for record in (KEPT, f"{KEPT}/below"):
            assert verify(Repository(project.root), str(project.root / record)).holds


def test_a_former_record_may_have_a_folder_where_the_next_has_a_file(simulated: Project, tmp_path: Path) -> None:
    project = ran(simulated, tmp_path / "project")
    kept(Repository(project.root), project.root / KEPT)
    (project.root / KEPT / REPORT).unlink()
    project.write(f"{KEPT}/{REPORT}/page", b"")
    shutil.rmtree(project.root / KEPT / PARTS)
    project.write(f"{KEPT}/{PARTS}", b"")
    edit(project, "record.json", f'"{REPORT}"', f'"{REPORT}/page"')
    edit(project, "record.json", f'"{PARTS}/a.txt"', f'"{PARTS}"')
    kept(Repository(project.root), project.root / KEPT)
    assert found(project) == set()


def _texts(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_code_of_an_experiment_is_that_of_the_commit_that_it_started_from(
    simulated: Project, tmp_path: Path
) -> None:
    project = ran(simulated, tmp_path / "project")
    code = Repository(project.root).head()
    project.experiment("faster")
    made = kept(Repository(project.root), tmp_path / KEPT, "faster")
    assert made.commit == code
    checked = verify(Repository(project.root), str(tmp_path / KEPT))
    assert checked.findings == () and checked.commit is not None and checked.commit.id == code


def test_without_the_commit_the_answer_is_partial(told: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(["git", "clone", "--quiet", "--depth=1", f"file://{told.project.root}", str(tmp_path / "shallow")], tmp_path)
    shallow = Project(tmp_path / "shallow")
    code, text = said(shallow, monkeypatch, "verify", KEPT)
    assert code == 3 and f"commit {told.code}" in text and "git fetch --unshallow" in text
    assert found(shallow) == {(Fault.UNREADABLE, None, str(shallow.root / KEPT))}
    assert said(shallow, monkeypatch, "trace", f"{METRICS}:score", "--rev", KEPT)[0] == 3
    assert said(shallow, monkeypatch, "diff", KEPT, "HEAD")[0] == 3
    edit(shallow, REPORT, "the score", "a score")
    assert said(shallow, monkeypatch, "verify", KEPT)[0] == 1


def test_it_is_found_from_the_folder_that_a_person_is_in(
    told: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.clone.root / "code")
    assert CliRunner().invoke(app, ["verify", f"../{KEPT}/"]).exit_code == 0
    assert CliRunner().invoke(app, ["keep", str(tmp_path / "copy"), f"../{KEPT}"]).exit_code == 0
    record = _texts(files_of(tmp_path / "copy"))
    assert {**record, "record.json": b""} == {**_texts(told.clone.root / KEPT), "record.json": b""}


def test_a_project_in_a_folder_is_kept_and_made_again_from_its_record(monorepo: Path, tmp_path: Path) -> None:
    root = copied(monorepo.parents[1], tmp_path) / "team" / "one"
    (root / ".dvcignore").write_text((root / ".dvcignore").read_text() + "/reports/kept/\n")
    (root / "raw.csv").write_text("1\n2\n")
    run(["dvc", "add", "--quiet", "raw.csv"], root)
    run(["dvc", "repro", "--quiet", "--all-pipelines"], root)
    kept(Repository(root), root / "reports/kept")
    assert {"raw.csv", "raw.csv.dvc", "count.json", "deep/dvc.lock"} <= set(_texts(root / "reports/kept"))
    run(["git", "checkout", "--quiet", "."], root)
    run(["git", "clean", "-fdxq", "--exclude=reports"], root.parents[1])
    shutil.rmtree(root / ".dvc/cache", ignore_errors=True)
    record = str(root / "reports/kept")
    assert verify(Repository(root), record).findings == ()
    assert rederive(Repository(root), "deep/dvc.yaml:after", record).answer is Answer.IDENTICAL


def test_all_that_dvc_knows_is_kept(broad: Path, tmp_path: Path) -> None:
    root = copied(broad, tmp_path)
    kept(Repository(root), tmp_path / KEPT)
    checked = [verify(Repository(root), revision) for revision in (str(tmp_path / KEPT), "HEAD")]
    assert checked[0].findings == checked[1].findings and checked[0].bytes > 0


def test_files_of_dvc_2_are_kept(legacy: Path, tmp_path: Path) -> None:
    root = copied(legacy, tmp_path)
    kept(Repository(root), tmp_path / KEPT)
    shutil.rmtree(root / ".dvc/cache")
    assert verify(Repository(root), str(tmp_path / KEPT)).findings == ()


@pytest.mark.parametrize("shadow", ["a record's folder", "a tag", "a branch called as a commit", "an experiment"])
def test_a_name_that_means_two_things_is_asked_back(
    clone: Project, told: Story, shadow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone.root)
    git, name = pygit2.Repository(str(clone.root)), "main"
    if shadow == "a record's folder":
        (clone.root / KEPT).rename(clone.root / name)
    elif shadow == "a tag":
        git.references.create(f"refs/tags/{name}", told.code)
    elif shadow == "a branch called as a commit":
        name = told.committed[:10]
        git.references.create(f"refs/heads/{name}", told.code)
    else:
        git.references.create(f"refs/exps/{told.code[:2]}/{told.code[2:]}/{name}", told.code)
    for asked in (name, f"{name}~1") if shadow == "a tag" else (name,):
        with pytest.raises(AuditError, match=r"names a revision, and a kept|names several revisions: .*, "):
            verify(Repository(clone.root), asked)
    assert verify(Repository(clone.root), told.committed).commit == Repository(clone.root).commit(told.committed)
