"""What `verify` finds in a simulated project, one fault at a time, down to exit codes and to what DVC never writes.

`test_kinds_of_change.py` has the kinds of tampering and their combinations.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from lineage.checks.case import Case
from lineage.checks.manifests import check_manifests
from lineage.cli import app
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.keep import keep
from lineage.model import Fault
from lineage.repository import Repository
from lineage.states import open_state
from lineage.trace import trace
from lineage.verify import verify
from tests.lineage.simulated import METRICS, PARTS, RAW, REPORT, ROWS, SHARED, Project, flip

Found = set[tuple[Fault, str | None, str]]
MODEL = "models/a.txt"


@pytest.fixture
def project(simulated: Project, tmp_path: Path) -> Project:
    """A copy that may be changed."""
    return simulated.copied(tmp_path / "project")


@pytest.fixture
def without_manifests(tmp_path: Path) -> Project:
    """The same project, whose stages say nothing of themselves."""
    return Project.new(tmp_path / "without-manifests", manifests=False)


def found(project: Project, revision: str | None = None) -> Found:
    """Fault, run and path of everything that `verify` finds."""
    return {(f.fault, f.run, f.path) for f in verify(Repository(project.root), revision).findings}


def kept(project: Project, path: str) -> Path:
    """Where the cache has an output; of a folder, its list."""
    outs = (out for entry in project.lock().values() for out in entry["outs"])
    return next(project.place(out["md5"]) for out in outs if out["path"] == path)


def kept_file(project: Project, path: str) -> Path:
    """Where the cache has a file of a folder."""
    return project.place(hashlib.md5((project.root / path).read_bytes()).hexdigest())


# Bytes


@pytest.mark.parametrize("where", ["workspace", "cache"])
def test_every_flipped_bit_of_a_folder_is_found(project: Project, where: str) -> None:
    path = f"{PARTS}/more/b.txt"
    place, fault = (project.root / path, Fault.OUTPUT) if where == "workspace" else (None, Fault.CACHE)
    place = place or kept_file(project, path)
    bits = place.stat().st_size * 8
    assert bits >= 32
    for bit in range(bits):
        flip(place, bit)
        assert found(project) == {(fault, "split", path)}
        flip(place, bit)


LOST: dict[str, Callable[[Path], object]] = {
    "gone": lambda folder: (folder / "a.txt").unlink(),
    "renamed": lambda folder: (folder / "a.txt").rename(folder / "c.txt"),
    "added": lambda folder: (folder / "new.txt").write_bytes(b""),
    "moved": lambda folder: (folder / "more/b.txt").rename(folder / "b.txt"),
}


@pytest.mark.parametrize(
    ("change", "names"),
    [("gone", {"a.txt"}), ("renamed", {"a.txt", "c.txt"}), ("added", {"new.txt"}), ("moved", {"more/b.txt", "b.txt"})],
)
def test_a_folder_with_other_names_is_found(project: Project, change: str, names: set[str]) -> None:
    LOST[change](project.root / PARTS)
    assert found(project) == {(Fault.OUTPUT, "split", f"{PARTS}/{name}") for name in names}


def test_a_file_that_is_one_with_its_cached_object_corrupts_both(project: Project) -> None:
    (project.root / MODEL).unlink()
    os.link(kept(project, MODEL), project.root / MODEL)
    flip(project.root / MODEL)
    assert found(project) == {(Fault.OUTPUT, "train@a-1", MODEL), (Fault.CACHE, "train@a-1", MODEL)}


def test_data_that_was_added_is_hashed_too(project: Project) -> None:
    flip(project.root / RAW)
    assert found(project) == {(Fault.OUTPUT, f"{RAW}.dvc", RAW)}


@pytest.mark.parametrize(
    "content",
    [
        b"no list",
        b"\xff",
        b"{}",
        b"[3]",
        b"[" * 100_000,
        b'[{"relpath": 3, "md5": 4}]',
        b'[{"relpath": "../../params.yaml", "md5": "%s"}]' % (b"0" * 32),
        b'[{"relpath": "/etc/passwd", "md5": "%s"}]' % (b"0" * 32),
    ],
    ids=lambda content: content[:12].decode(errors="replace"),
)
def test_a_folder_s_hash_that_names_no_list_is_forged(without_manifests: Project, content: bytes) -> None:
    project, lock = without_manifests, without_manifests.lock()
    digest = project.keep(content, ".dir")
    for entry in (*lock["split"]["outs"], *lock["train@a-1"]["deps"], *lock["train@b-1"]["deps"]):
        if entry["path"] == PARTS:
            entry["md5"] = digest
    project.write_lock(lock)
    project.commit("a list that DVC never writes")
    assert found(project, "HEAD") == {(Fault.FORGED, "split", PARTS)}
    assert found(project) == {(Fault.FORGED, "split", PARTS), (Fault.OUTPUT, "split", PARTS)}


def test_links_to_nowhere_and_pipes_are_no_files(project: Project) -> None:
    (project.root / PARTS / "link.txt").symlink_to("/nowhere")
    os.mkfifo(project.root / PARTS / "pipe")  # whoever opens it waits forever
    assert found(project) == set()
    (project.root / MODEL).unlink()
    os.mkfifo(project.root / MODEL)
    assert found(project) == {(Fault.OUTPUT, "train@a-1", MODEL)}


def test_a_manifest_that_nests_without_end_is_no_traceback(project: Project) -> None:
    path = "meta/report/manifest.json"
    project.write(path, b"[" * 100_000)
    assert found(project) == {(Fault.OUTPUT, "report", path)}


# What a run says of itself

Entry = dict[str, Any]


def claim(project: Project, change: Callable[[Entry], object], run: str = "train@a-1") -> set[str]:
    """Change a run's entry in the lock, commit, and return what is found of it; nothing else may be."""
    lock = project.lock()
    change(lock[run])
    project.write_lock(lock)
    project.commit("claimed")
    case = Case(Graph(open_state(Repository(project.root), "HEAD")), (run,))
    findings = [*check_manifests(case)]
    assert {finding.run for finding in findings} <= {run} and all(finding.proves_wrong for finding in findings)
    return {f"{finding.path}: {finding.what}" for finding in findings}


def retell(project: Project, params: Entry | None, run: str = "train@a-1") -> None:
    """Have a run's manifest say other parameters, or nothing of them, and the lock its hash."""
    path, lock = f"meta/{run}/manifest.json", project.lock()
    manifest = {**json.loads(project.text(path)), "params": params}
    project.put(path, json.dumps({key: value for key, value in manifest.items() if value is not None}).encode(), True)
    lock[run]["outs"] = [project._entry(out["path"]) for out in lock[run]["outs"]]
    project.write_lock(lock)


def settings(**changes: Any) -> Callable[[Entry], object]:
    """Change what the lock says of parameters (`_` for `.`); None takes one away."""

    def change(entry: Entry) -> None:
        values = entry["params"]["params.yaml"]
        for name, value in changes.items():
            values[name.replace("_", ".")] = value
        entry["params"]["params.yaml"] = {key: value for key, value in values.items() if value is not None}

    return change


PARAMETERS: list[tuple[Callable[[Entry], object], set[tuple[str, str, str]]]] = [
    (settings(), set()),
    (settings(train_rate=2.0), set()),
    (settings(train_rate=60), {("train.rate", "60", "2")}),
    (settings(train_seed=True), {("train.seed", "true", "1")}),
    (settings(train_rate=1, train_seed=2), {("train.rate", "1", "2"), ("train.seed", "2", "1")}),
    (settings(train_rate={"high": 2}), {("train.rate", '{"high": 2}', "2")}),
    (settings(train_rate=None), {("train.rate", "absent", "2")}),
    (settings(train_steps=3), {("train.steps", "3", "absent")}),
]


@pytest.mark.parametrize(("change", "expected"), PARAMETERS)
def test_a_parameter_that_no_run_had_is_found(
    project: Project, change: Callable[[Entry], object], expected: set[tuple[str, str, str]]
) -> None:
    said = {f"params.yaml: {key} is {lock} in dvc.lock, its manifest says {run}" for key, lock, run in expected}
    assert claim(project, change) == said


OLD: list[tuple[Entry, Callable[[Entry], object], set[tuple[str, str, str]]]] = [
    ({"rate": 2, "seed": 1}, settings(), set()),
    ({"speed": 2, "seed": 1}, settings(), set()),
    ({"seed": 1, "speed": 2}, settings(train_rate=60), {("train.rate", "60", "2")}),
    (
        {"rate": 2, "seed": 1},
        settings(train_rate=60, train_seed=2),
        {("train.rate", "60", "2"), ("train.seed", "2", "1")},
    ),
    ({"rate": 2, "seed": 1}, settings(train_seed=None), {("seed", "absent", "1")}),
]


@pytest.mark.parametrize(("said", "change", "expected"), OLD)
def test_an_older_manifest_names_parameters_by_words_of_its_stage(
    project: Project, said: Entry, change: Callable[[Entry], object], expected: set[tuple[str, str, str]]
) -> None:
    retell(project, said)
    findings = {f"params.yaml: {key} is {lock} in dvc.lock, its manifest says {run}" for key, lock, run in expected}
    assert claim(project, change) == findings


def test_a_manifest_without_parameters_says_nothing_of_them(project: Project) -> None:
    retell(project, None)
    assert claim(project, settings(train_rate=60)) == set()


def drop(role: str, path: str) -> Callable[[Entry], object]:
    """Take a file from a run's entry."""

    def change(entry: Entry) -> None:
        entry[role] = [file for file in entry[role] if file["path"] != path]

    return change


def resize(role: str, path: str) -> Callable[[Entry], object]:
    """Say that a file has a byte more."""

    def change(entry: Entry) -> None:
        (file,) = (file for file in entry[role] if file["path"] == path)
        file["size"] += 1

    return change


MORE = {"path": "code/evaluate.py", "hash": "md5", "md5": "0" * 32, "size": 1}
FILES: list[tuple[Callable[[Entry], object], str, str]] = [
    (drop("outs", MODEL), MODEL, "its manifest says that it made it, dvc.lock doesn't"),
    (drop("deps", SHARED), SHARED, "its manifest says that it read it, dvc.lock doesn't"),
    (
        lambda entry: entry["deps"].append(MORE),
        "code/evaluate.py",
        "dvc.lock says that it read it, its manifest doesn't",
    ),
    (resize("outs", MODEL), MODEL, "dvc.lock has 17 bytes, its manifest 16"),
    (resize("deps", PARTS), PARTS, "dvc.lock has 12 bytes, its manifest 11"),
]


@pytest.mark.parametrize(("change", "path", "what"), FILES)
def test_a_file_that_only_one_of_lock_and_manifest_has_is_found(
    project: Project, change: Callable[[Entry], object], path: str, what: str
) -> None:
    assert claim(project, change) == {f"{path}: {what}"}


# What dvc.yaml says


@pytest.mark.parametrize(
    ("old", "new", "run"),
    [
        ("    params:\n    - prepare.limit\n", "    - code/evaluate.py\n    params:\n    - prepare.limit\n", "prepare"),
        ("    - code/evaluate.py\n", "", "evaluate"),
        ("    - prepare.limit\n", "    - prepare.limit\n    - train.rate\n", "prepare"),
        ("    - prepare.limit\n", "", "prepare"),
        ("    - report.txt\n", "    - report.txt\n    - more.txt\n", "report"),
        ("    - report.txt\n", "    - report.txt:\n        cache: false\n", None),
        ("    - prepare.limit\n", "    - params.yaml:\n      - prepare.limit\n", None),
        ("    - prepare.limit\n    - source\n", "    - params.yaml:\n", None),
    ],
)
def test_what_a_stage_reads_and_makes_by_dvc_yaml_alone_is_found(
    project: Project, old: str, new: str, run: str | None
) -> None:
    project.replace("dvc.yaml", old, new)
    project.commit("declared, and not run")
    expected = set() if run is None else {(Fault.DECLARATION, run, "dvc.yaml")}
    assert found(project) == found(project, "HEAD") == expected


def test_of_a_run_whose_stage_is_gone_only_its_outputs_are_held_against_the_record(project: Project) -> None:
    stages = yaml.safe_load(project.text("dvc.yaml"))["stages"]
    left = {name: stages.pop(name) for name in ("evaluate", "report")}
    project.write("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False).encode())
    project.replace("code/evaluate.py", "7", "11")
    project.commit("two stages fewer, and other code of one")
    expected = {(Fault.LEFT_OVER, name, "dvc.lock") for name in left}
    assert found(project) == found(project, "HEAD") == expected
    assert not any(fault.proves_wrong for fault in verify(Repository(project.root)).findings)
    flip(project.root / REPORT)
    assert found(project) == {*expected, (Fault.OUTPUT, "report", REPORT)}


@pytest.mark.parametrize("last", [False, True])
def test_the_run_of_a_stage_that_was_renamed_makes_nothing_any_more(project: Project, last: bool) -> None:
    """DVC leaves it in dvc.lock with the output as it was, before the new name or, if taken back, after it."""
    lock = project.lock()
    (metric,) = (out for out in lock["evaluate"]["outs"] if out["path"] == METRICS)
    former = {**lock["evaluate"], "outs": [{**metric, "md5": "0" * 32}]}
    project.write_lock({**lock, "scored": former} if last else {"scored": former, **lock})
    project.commit("renamed")
    assert found(project, "HEAD") == {(Fault.LEFT_OVER, "scored", "dvc.lock")}
    keep(Repository(project.root), project.root.parent / "kept")
    assert trace(Repository(project.root), f"{METRICS}:score", "HEAD").target.runs == ("evaluate",)


# What can be read of a broken project


def test_around_a_lock_with_conflicts_the_rest_is_checked(project: Project) -> None:
    project.write("dvc.lock", b"<<<<<<< HEAD\n" + project.text("dvc.lock").encode() + b">>>>>>> other\n")
    flip(project.root / RAW)
    faults = found(project)
    assert {(Fault.UNREADABLE, None, "dvc.lock"), (Fault.OUTPUT, f"{RAW}.dvc", RAW)} <= faults
    assert {fault for fault, _, _ in faults} == {Fault.UNREADABLE, Fault.OUTPUT, Fault.NEVER_RUN}


def test_a_forgery_that_nobody_read_since_is_an_inconsistent_lock(without_manifests: Project) -> None:
    project, lock = without_manifests, without_manifests.lock()
    project.put(MODEL, b"999 1 numpy 1.0\n", True)
    (lock["train@a-1"]["outs"][0]["md5"],) = {project.keep(b"999 1 numpy 1.0\n")}
    project.write_lock(lock)
    project.commit("forged, and nothing run since")
    assert found(project) == found(project, "HEAD") == {(Fault.LOCK, "evaluate", MODEL)}


# The remote


def test_corrupt_and_missing_objects_of_a_remote_are_found(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    project.write(".dvc/config", f"['remote \"store\"']\n    url = {remote}\n[core]\n    remote = store\n".encode())
    shutil.copytree(project.root / ".dvc/cache", remote)
    assert said(project, monkeypatch, "--remote", "store")[0] == said(project, monkeypatch, "--remote", "")[0] == 0
    inside = f"{PARTS}/a.txt"
    flip(remote / kept_file(project, inside).relative_to(project.root / ".dvc/cache"))
    (remote / kept(project, REPORT).relative_to(project.root / ".dvc/cache")).unlink()
    code, text = said(project, monkeypatch, "--remote", "store")
    assert code == 1
    assert f"remote corrupt: {inside} (split)" in text and f"missing: {REPORT} (report)" in text
    assert said(project, monkeypatch)[0] == 0
    with pytest.raises(AuditError, match="elsewhere"):
        verify(Repository(project.root), remote="elsewhere")


# The command line


def said(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of `python -m lineage verify`."""
    monkeypatch.chdir(project.root)
    result = CliRunner().invoke(app, ["verify", *arguments])
    return result.exit_code, result.output


def test_exit_codes_tell_what_holds_from_what_is_wrong_and_what_is_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "kept"
    project.experiment(name)
    for state in ((), ("HEAD",), (name,)):
        code, text = said(project, monkeypatch, *state)
        assert code == 0 and "holds" in text
    kept(project, ROWS).unlink()
    code, text = said(project, monkeypatch, "HEAD")
    assert code == 3 and f"missing: {ROWS} (prepare)" in text and "wrong" not in text
    assert said(project, monkeypatch)[0] == 0  # it lies here
    flip(kept(project, REPORT))
    code, text = said(project, monkeypatch, "HEAD")
    assert code == 1
    assert f"missing: {ROWS} (prepare)" in text and f"cache corrupt: {REPORT} (report)" in text
    assert said(project, monkeypatch, "HEAD", "--target", MODEL)[0] == 3  # the report isn't upstream of it


def test_the_whole_answer_is_json(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(project.root / METRICS)
    kept(project, ROWS).unlink()
    code, text = said(project, monkeypatch, "--json")
    answer = json.loads(text)
    assert (code, answer["verdict"]) == (1, "wrong")
    (finding,) = answer["findings"]
    assert (finding["fault"], finding["run"], finding["path"]) == (Fault.METRIC, "evaluate", METRICS)
    assert finding["proves_wrong"]
    answer = json.loads(said(project, monkeypatch, "HEAD", "--json")[1])
    assert (answer["verdict"], [f["proves_wrong"] for f in answer["findings"]]) == ("partial", [False])


# Two runs of one place


def test_a_renamed_stage_takes_its_output_along(without_manifests: Project) -> None:
    project = without_manifests
    for old, new, command in (("report", "told", "tell"), ("told", "report", "tell it all")):
        stage = project.stages.pop(old)
        project.stages[new] = replace(stage, command=command, run=lambda _, said=command: {REPORT: said.encode()})
        project.run()
        project.commit(f"{new} instead of {old}")
        assert found(project) == found(project, "HEAD") == {(Fault.LEFT_OVER, old, "dvc.lock")}
        traced = trace(Repository(project.root), REPORT)
        assert (traced.target.runs, traced.gaps) == ((new,), ())


@pytest.mark.parametrize("path", [METRICS, f"{METRICS}/inner", "data/parts/a.txt"])
def test_an_output_of_two_stages_has_no_known_maker(project: Project, path: str) -> None:
    out = {"path": path, "hash": "md5", "md5": project.keep(b"{}"), "size": 2}
    project.write("more.dvc", yaml.safe_dump({"outs": [out]}).encode())
    project.commit("more")
    assert (Fault.UNREADABLE, None, path) in found(project, "HEAD")
    assert [gap.where for gap in trace(Repository(project.root), METRICS).gaps] == [path]


# Hashes of two kinds, as after an upgrade from DVC 2


def as_dvc_2(entry: dict[str, Any], path: str, data: bytes) -> None:
    """Have an input recorded as DVC before 3.0 does."""
    (dep,) = (dep for dep in entry["deps"] if dep["path"] == path)
    del dep["hash"]
    dep["md5"] = hashlib.md5(data.replace(b"\r\n", b"\n")).hexdigest()


@pytest.mark.parametrize(("read", "expected"), [(b"1\r\n2\r\n", set()), (b"others", {(Fault.LOCK, "report", METRICS)})])
def test_an_input_by_another_kind_of_hash_is_held_against_the_bytes(
    without_manifests: Project, read: bytes, expected: Found
) -> None:
    project, made = without_manifests, b"1\r\n2\r\n"
    project.stages["evaluate"] = replace(project.stages["evaluate"], run=lambda _: {METRICS: made})
    project.run(force=["evaluate"])
    lock = project.lock()
    as_dvc_2(lock["report"], METRICS, read)
    project.write_lock(lock)
    project.commit("upgraded")
    assert found(project) == found(project, "HEAD") == expected


def test_a_file_here_has_no_hash_of_another_kind(project: Project) -> None:
    project.replace("dvc.lock", "    md5: ", "    etag: ")
    assert {f for f in found(project) if f[0] is Fault.UNREADABLE} == {(Fault.UNREADABLE, None, "dvc.lock")}


def test_code_and_parameters_of_a_frozen_stage_may_change_but_not_in_silence(project: Project) -> None:
    project.replace("dvc.yaml", "  prepare:\n", "  prepare:\n    frozen: true\n")
    project.replace("params.yaml", "limit: 50", "limit: 60")
    project.replace("code/prepare.py", "FACTOR = 2", "FACTOR = 9")
    project.commit("moved on")
    moved = {(Fault.STALE, "prepare", "params.yaml"), (Fault.STALE, "prepare", "code/prepare.py")}
    assert found(project) == found(project, "HEAD") == moved
