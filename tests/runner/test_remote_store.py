"""The checkpoint store behind a URL, on fsspec's file system for local folders; the others have its interface."""

import json
import time
from pathlib import Path

import pytest

from runner import remote_store
from runner.store import hold, location
from softmask.errors import InputError
from softmask.training import checkpoints

KEY = "0123456789abcdef0123"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two machines' folders; local.toml of the current folder names a store that both see."""
    (tmp_path / "local.toml").write_text(f'[checkpoints]\nurl = "file://{tmp_path / "shared"}"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "one", tmp_path / "two"


def never() -> int:
    raise AssertionError("computed again")


def sealed(root: Path, step: int) -> Path:
    draft, final = root / checkpoints.DRAFT / f"checkpoint-{step}", root / f"checkpoint-{step}"
    draft.mkdir(parents=True)
    (draft / "weights").write_bytes(bytes([step]) * 100)
    checkpoints.seal(draft, final, KEY)
    return final


def test_a_unit_that_one_machine_finished_is_found_on_another(machines: tuple[Path, Path]) -> None:
    with hold(machines[0], "generate@base", KEY) as first:
        assert first.unit("batch-0", lambda: [1, 2]) == [1, 2]
    with hold(machines[1], "generate@base", KEY) as second:
        assert second.unit("batch-0", never) == [1, 2]


def test_a_checkpoint_is_found_on_another_machine_and_pruned_there_too(machines: tuple[Path, Path]) -> None:
    with hold(machines[0], "base", KEY) as first:
        root = first.path / "training"
        for step in (1, 2, 3):
            final = sealed(root, step)
            checkpoints.prune(root, 2)
            first.published(final)
    with hold(machines[1], "base", KEY) as second:
        found = checkpoints.all_checkpoints(second.path / "training")
        assert [checkpoints.step_of(folder) for folder in found] == [3, 2]
        assert checkpoints.newest_sound(second.path / "training", KEY) == (found[0], [])


def test_a_copy_that_broke_off_is_torn_and_the_one_before_is_used(machines: tuple[Path, Path], tmp_path: Path) -> None:
    with hold(machines[0], "base", KEY) as first:
        for step in (1, 2):
            first.published(sealed(first.path / "training", step))
    (seal,) = tmp_path.glob("shared/*/training/checkpoint-2/seal.json")
    seal.unlink()  # the seal is copied last
    with hold(machines[1], "base", KEY) as second:
        newest, complaints = checkpoints.newest_sound(second.path / "training", KEY)
    assert newest is not None and newest.name == "checkpoint-1"
    assert "checkpoint-2 is torn: it has no seal" in complaints[0]


def test_two_machines_never_hold_one_key(machines: tuple[Path, Path]) -> None:
    with (
        hold(machines[0], "base", KEY),
        pytest.raises(InputError, match="another machine is working on this stage"),
        hold(machines[1], "base", KEY),
    ):
        pass
    with hold(machines[1], "base", KEY):
        pass  # free again


def test_a_dead_writers_lease_ends(machines: tuple[Path, Path], tmp_path: Path) -> None:
    lease = tmp_path / "shared" / f"base-{KEY[:16]}.lease"
    lease.parent.mkdir()
    lease.write_text(json.dumps({"owner": "dead", "renewed": time.time() - remote_store.LEASE_SECONDS - 1}))
    with hold(machines[0], "base", KEY):
        assert json.loads(lease.read_text())["owner"] != "dead"
    assert not lease.exists()


def test_who_has_lost_the_lease_publishes_no_more(
    machines: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_store, "LEASE_SECONDS", 0.4)
    mirror = remote_store.Mirror(f"file://{tmp_path / 'shared'}", "x", tmp_path / "one")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.json").write_text("{}")
    told: list[bool] = []
    with mirror.leased(lambda: told.append(True)):
        (tmp_path / "shared" / "x.lease").write_text(json.dumps({"owner": "other", "renewed": time.time()}))
        deadline = time.time() + 10
        while not told and time.time() < deadline:
            time.sleep(0.05)
        with pytest.raises(InputError, match="another machine has taken over"):
            mirror.publish(tmp_path / "one" / "a.json")
    assert told and json.loads((tmp_path / "shared" / "x.lease").read_text())["owner"] == "other"


def test_the_mirror_is_gone_when_the_stage_has_finished(machines: tuple[Path, Path], tmp_path: Path) -> None:
    with hold(machines[0], "base", KEY) as held:
        held.unit("a", lambda: 1)
        assert list(tmp_path.glob("shared/base-*/units/a.json"))
        held.clear()
    assert [path for path in (tmp_path / "shared").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "content",
    ["", "[checkpoints]\n", '[checkpoints]\nurl = "no-url"\n', "[checkpoints]\npath = 3\n", "[checkpoints\n",
     '[checkpoints]\npath = "a"\nurl = "s3://b"\n', '[checkpoints]\nfolder = "a"\n'],
)  # fmt: skip
def test_a_wrong_local_toml_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "local.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=r"local\.toml: .*; expected"):
        location(file)


def test_a_protocol_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("local.toml").write_text('[checkpoints]\nurl = "nothing://bucket"\n')
    with pytest.raises(InputError, match="nothing://bucket"), hold(tmp_path / "one", "base", KEY):
        pass
