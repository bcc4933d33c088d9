"""dvc.lock cut at any byte, as a kill leaves it while DVC writes it: named, and put back from the copy."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from runner.lock import KEPT, LOCK, RWLOCK, keep, require_whole, restore
from softmask.errors import InputError

NAMES = ("first", "second", "third")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_dvc: None) -> Path:
    """A real project of three stages in a row, each with a folder and files; the current folder."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    Path("params.yaml").write_text("n: 10\n")
    Path("zero").mkdir()
    Path("zero/out").write_text("0")
    above, stages = "zero", {}
    for name in NAMES:
        made = [f"{name}/dir", f"{name}/out"]
        cmd = f"mkdir -p {name}/dir && date +%N | tee {name}/dir/a > {name}/log && cat {above}/out > {name}/out"
        stages[name] = {"cmd": cmd, "deps": [f"{above}/out"], "params": ["n"], "outs": made}
        above = name
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return tmp_path


def reproduce(*targets: str) -> bytes:
    """`dvc repro`; what dvc.lock holds then."""
    with Repo() as repo:
        repo.reproduce(targets=list(targets) or None)
    return LOCK.read_bytes()


def unnamed(whole: bytes) -> Iterator[bytes]:
    """The cuts of a lock that are taken for whole."""
    for end in range(len(whole)):
        LOCK.write_bytes(whole[:end])
        kept = KEPT.read_bytes() if KEPT.exists() else None
        try:
            require_whole()
        except InputError as error:
            assert "torn" in str(error) and "\n" not in str(error)
        else:
            yield whole[:end]
        if kept is not None:
            KEPT.write_bytes(kept)


def check_harmless(cuts: list[bytes], whole: bytes) -> None:
    """To DVC, the stages that a cut lacks or has in part are out of date."""
    assert 0 < len(cuts) < 7 * len(NAMES), [cut[-80:] for cut in cuts]
    entries = yaml.safe_load(whole)["stages"]
    for cut in cuts:
        LOCK.write_bytes(cut)
        left = yaml.safe_load(cut)["stages"]
        with Repo() as repo, repo.lock:
            stale = {stage.name for stage in repo.index.stages if stage.status()}
        assert stale == {name for name in NAMES if left.get(name) != entries[name]}, cut[-80:]


@pytest.mark.slow
def test_every_cut_of_a_rewritten_lock_is_named_or_harmless_and_the_copy_brings_all_back(project: Path) -> None:
    before = reproduce()
    keep()
    Path("params.yaml").write_text("n: 20\n")
    after = reproduce()
    assert after != before and KEPT.read_bytes() == before
    left = list(unnamed(after))
    check_harmless(left, after)
    assert KEPT.read_bytes() == before, "it may have been cut there"
    logs = [Path(name, "log").read_bytes() for name in NAMES]
    for end in (0, 1, len(after) // 2, after.index(b"  third:"), len(left[-1]), len(after) - 1):
        LOCK.write_bytes(after[:end])
        restore()
        assert LOCK.read_bytes() == KEPT.read_bytes() == before
        assert reproduce() == after  # from the run cache
    assert [Path(name, "log").read_bytes() for name in NAMES] == logs


@pytest.mark.slow
def test_every_cut_of_a_lock_with_a_new_stage_is_named_or_harmless(project: Path) -> None:
    reproduce("second")
    keep()
    after = reproduce()
    check_harmless(list(unnamed(after)), after)
    assert reproduce() == after


def test_a_lock_of_fewer_stages_is_no_torn_one(project: Path) -> None:
    first = reproduce("first")
    whole = reproduce()
    assert require_whole() == list(NAMES)
    LOCK.unlink()
    assert reproduce("first") == first  # from the run cache
    assert require_whole() == ["first"]
    restore()
    assert require_whole() == list(NAMES)
    with Repo() as repo:
        repo.remove("third")
    assert require_whole() == list(NAMES[:2])
    assert KEPT.read_bytes() == whole, "it may have been cut there"
    LOCK.write_bytes(first)
    subprocess.run(["git", "add", LOCK], check=True)
    assert require_whole() == ["first"]
    assert KEPT.read_bytes() == first
    LOCK.unlink()
    assert require_whole() == []


def test_without_a_copy_the_message_says_what_else_there_is(project: Path) -> None:
    whole = reproduce("first")
    LOCK.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"dvc\.lock: torn.*No copy is kept: `git checkout dvc\.lock`"):
        restore()
    KEPT.write_bytes(whole[:-9])
    with pytest.raises(InputError, match="No copy is kept"):
        restore()
    LOCK.write_bytes(whole)
    restore()
    assert LOCK.read_bytes() == whole


def test_dvcs_torn_note_of_its_readers_is_named_and_removed(project: Path) -> None:
    whole = reproduce("first")
    RWLOCK.write_text("")
    with pytest.raises(InputError, match="rwlock: torn"):
        require_whole()
    restore()
    assert reproduce("first") == whole
