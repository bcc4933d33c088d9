"""dvc.lock read stage by stage is dvc.lock read whole, whatever is in it; what can't be read is said."""

from copy import deepcopy
from io import StringIO
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import lineage.lockfile
from lineage.errors import Unreadable
from lineage.lockfile import data_run, lock_run, lock_stages, stage_texts
from lineage.model import File, Kind
from lineage.yaml12 import Loader

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32) | st.text("0123456789", min_size=32, max_size=32)
PATHS = NAMES | st.sampled_from(["a/b.py", "true", "Null", "1.5", "1e5", "a: b", "x #y", "-a", "a=b@1+2", "~", "é/ü"])
FILE = st.fixed_dictionaries(
    {"path": PATHS, "hash": st.just("md5"), "md5": HEX | HEX.map(lambda text: f"{text}.dir")},
    optional={"size": st.integers(0, 10**12), "nfiles": st.integers(0, 99), "isexec": st.booleans()},
)
MD5 = "ab" * 16
ENTRY = {"cmd": "python a.py", "outs": [{"path": "a", "hash": "md5", "md5": "0" * 32, "size": 1}]}


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=4))
def test_reading_piece_by_piece_is_reading_the_whole(params: dict[str, dict[str, Any]]) -> None:
    stages = {name: {**ENTRY, "params": {"params.yaml": values}} for name, values in params.items()}
    text = dumps_yaml({"schema": "2.0", "stages": stages})
    assert lock_stages(text.encode()) == yaml.load(text, Loader=Loader)["stages"]


@given(st.lists(FILE, max_size=4), st.lists(FILE, max_size=3), st.text(max_size=30))
def test_lists_of_files_are_what_yaml_reads(deps: list[Any], outs: list[Any], command: str) -> None:
    entry = {"cmd": command, "deps": deps, "params": {"params.yaml": {"x": command}}, "outs": outs}
    text = dumps_yaml({"schema": "2.0", "stages": {"a": entry}})
    assert lock_stages(text.encode()) == yaml.load(text, Loader=Loader)["stages"]


def test_the_layout_of_dvc_is_read_in_pieces() -> None:
    stages = {name: {"cmd": "x", "outs": []} for name in ("a", "b@x-1")}
    text = dumps_yaml({"schema": "2.0", "stages": stages})
    assert [*(stage_texts(text.encode()) or {})] == ["a", "b@x-1"]


def reformatted(data: object) -> str:
    """A lock as formatters of YAML leave it: all indented by four, comments between stages."""
    writer, text = YAML(), StringIO()
    writer.indent(mapping=4, sequence=6, offset=4)
    writer.dump(data, text)
    return text.getvalue().replace("\n    b@x-1:", "\n    # The second.\n    b@x-1:")


def test_a_lock_that_was_reformatted_is_read_in_pieces_too() -> None:
    stages = {name: {**deepcopy(ENTRY), "params": {"params.yaml": {"rate": 1e-8}}} for name in ("a", "b@x-1")}
    text = reformatted({"schema": "2.0", "stages": stages}).encode()
    assert b"\n    # The second.\n    b@x-1:\n        cmd:" in text and b"\n            - path:" in text
    assert [*(stage_texts(text) or {})] == ["a", "b@x-1"]
    assert lock_stages(text) == stages


@pytest.mark.parametrize("text", ["schema: '2.0'\nstages:\n", "schema: '2.0'\nstages:\n  # None.\n", "schema: '2.0'\n"])
def test_a_lock_without_stages_has_none(text: str) -> None:
    assert lock_stages(text.encode()) == {}


def test_values_that_two_stages_share_by_an_anchor_are_read() -> None:
    shared = {"rate": 1e-8}
    stages = {name: {**ENTRY, "params": {"params.yaml": {"training": shared}}} for name in ("a", "b")}
    text = yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)
    assert "&id" in text and "*id" in text
    assert lock_stages(text.encode())["b"]["params"]["params.yaml"]["training"] == shared


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a:\n    cmd: x\n=======\n>>>>>>> other\n", "conflict markers"),
        ("schema: '1.0'\nstages:\n  a:\n    cmd: x\n", "schema"),
        ("- 1\n- 2\n", "schema"),
        ("schema: '2.0'\nstages:\n  a: [\n", "YAML"),
        ("schema: '2.0'\nstages:\n  a:\n    deps: []\n", "no command"),
    ],
)
def test_what_is_no_lock_says_why(text: str, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        lock_stages(text.encode())


def test_an_entry_becomes_a_run_with_paths_from_the_root() -> None:
    deps = [{"path": "../code.py", "hash": "md5", "md5": "1" * 32, "size": 7}, {"path": "s3://bucket/x", "etag": "e"}]
    outs = [{"path": "out", "hash": "md5", "md5": "2" * 32 + ".dir", "size": 9, "nfiles": 2}]
    entry = {"cmd": ["a", "b"], "deps": deps, "outs": outs, "params": {"p.json": {"x": 1}}}
    run = lock_run("train@a", entry, "sub/dvc.lock", "sub")
    assert (run.name, run.kind, run.command) == ("sub/dvc.yaml:train@a", Kind.STAGE, ("a", "b"))
    assert run.inputs == (File("code.py", "1" * 32, size=7), File("s3://bucket/x", "e", "etag"))
    assert run.outputs == (File("sub/out", "2" * 32 + ".dir", size=9, files=2),)
    assert run.outputs[0].is_folder and run.inputs[1].is_external
    assert run.parameters == {"sub/p.json": {"x": 1}}


def test_a_hash_of_dvc_before_version_3_is_told_apart() -> None:
    run = lock_run("a", {"cmd": "x", "outs": [{"path": "a", "md5": "0" * 32}]}, "dvc.lock", "")
    assert run.outputs[0].algorithm == "md5-dos2unix"


def test_dvc_files_are_runs_that_a_person_made() -> None:
    added = data_run(f"outs:\n- md5: {MD5}\n  hash: md5\n  path: raw.csv\n".encode(), "data/raw.csv.dvc")
    assert (added.kind, added.outputs) == (Kind.DATA, (File("data/raw.csv", MD5),))
    text = f"deps:\n- path: a.csv\n  repo:\n    url: /r\n    rev_lock: abc\nouts:\n- md5: {MD5}\n  path: a.csv\n"
    imported = data_run(text.encode(), "a.csv.dvc")
    assert (imported.kind, imported.origin["repo"]["rev_lock"]) == (Kind.IMPORT, "abc")
    with pytest.raises(Unreadable, match="outs"):
        data_run(b"hello", "a.dvc")


@pytest.mark.parametrize("digest", ["../../x", "ab", "AB" * 16, "ab" * 16 + ".tar", 17])
def test_a_hash_that_is_none_is_no_place_in_the_cache(digest: object) -> None:
    with pytest.raises(Unreadable, match="which is none"):
        lock_run("a", {"cmd": "x", "outs": [{"path": "a", "hash": "md5", "md5": digest}]}, "dvc.lock", "")


@pytest.mark.parametrize("params", [3, {"params.yaml": 3}, {3: {"a": 1}}, ["a"]])
def test_parameters_that_are_no_values_by_name_are_not_as_dvc_writes_them(params: object) -> None:
    with pytest.raises(Unreadable, match="not as DVC writes it"):
        lock_run("a", {"cmd": "x", "params": params}, "dvc.lock", "")


@pytest.mark.parametrize(
    "stage",
    [
        f'  a:\n    cmd: "x\n    outs:\n    - path: m\n      md5: {MD5}\n    deps: "\n',
        f" a:\n  cmd: x\n  params:\n   p.yaml:\n    outs:\n    - path: m\n      md5: {MD5}\n",
    ],
    ids=["in a command", "in a parameter"],
)
def test_what_only_looks_like_a_list_of_files_is_none(stage: str) -> None:
    text = f"schema: '2.0'\nstages:\n{stage}"
    assert lock_stages(text.encode()) == YAML(typ="safe").load(StringIO(text))["stages"]


def test_a_size_without_end_is_a_clear_line() -> None:
    stage = f"  a:\n    cmd: x\n    outs:\n    - path: m\n      md5: {MD5}\n      size: {'9' * 5000}\n"
    with pytest.raises(Unreadable, match="larger than any"):
        lock_stages(f"schema: '2.0'\nstages:\n{stage}".encode())


def test_a_stage_is_the_same_in_all_locks_of_any_layout() -> None:
    one, other = (
        lock_stages(f"{{schema: '2.0', stages: {{a: {{cmd: x}}{more}}}}}".encode()) for more in ("", ", b: {cmd: y}")
    )
    assert one["a"] is other["a"]


def test_a_number_that_is_a_key_stays_one_when_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"schema: '2.0'\nstages:\n  a:\n    cmd: remembered\n    params:\n      p.yaml:\n        rates: {1: 0.1}\n"
    for _ in range(2):
        assert lock_stages(text)["a"]["params"] == {"p.yaml": {"rates": {1: 0.1}}}
        monkeypatch.setattr(lineage.lockfile, "_known", {})
