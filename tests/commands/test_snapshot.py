"""New documents for a retrain: what is taken, what goes into quarantine, what is dropped, and what stays untouched."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.files import read_json
from artifacts.hashing import path_hash
from commands import snapshot
from commands.retraining import Repeat, Snapshot
from commands.snapshot import ChampionText, Params, collect, incoming_files, take
from runner.section import validate
from runner.stage import run_command
from softmask.errors import InputError
from stages.params.corpus import ShardsParams
from stages.sources.documents import Document, ShardWriter
from tests.stages.test_base_checkpoint import REVISION, hub_of

ROOT = Path(__file__).parents[2]
LONGEST = 1000
TRAIN, VALIDATION = Path("data/corpus/train"), Path("data/corpus/validation")


def sentences(seed: int, count: int = 40) -> str:
    return " ".join(f"word{seed * 1000 + number}" for number in range(count))


HELD, TRAINED = [sentences(1), sentences(2)], [sentences(3), sentences(4)]
NEW = [sentences(number) for number in range(10, 16)]


def params(drop: str = "exact_and_near") -> dict[str, Any]:
    """Those of the repository, with a short longest text."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["retrain"]["snapshot"]["longest"] = LONGEST
    values["corpus"]["duplicates"]["drop"] = drop
    return values


def make_champion(root: Path) -> Path:
    """A checkout that has a corpus."""
    for folder, texts in ((TRAIN, TRAINED), (VALIDATION, HELD)):
        with ShardWriter(root / folder, ShardsParams(row_group_characters=100, shard_characters=300)) as writer:
            for number, text in enumerate(texts):
                writer.write(Document(str(number), text))
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with params.yaml, a champion and an empty folder `incoming`."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params()), encoding="utf-8")
    make_champion(Path("champion"))
    Path("incoming").mkdir()
    return tmp_path


def put(name: str, content: bytes | str | Iterable[Any]) -> None:
    """Write a file of incoming: bytes, text, or a list, whose strings become records and whose bytes are lines."""
    path = Path("incoming") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"text": list(content)}), path)
    else:
        rows = (row if isinstance(row, bytes) else json.dumps({"text": row}).encode() for row in content)
        path.write_bytes(b"\n".join(rows) + b"\n")


def taken(out: str = "out") -> tuple[Snapshot, list[str], list[dict[str, Any]]]:
    """Take the snapshot: the result, the documents, the quarantine."""
    result = take(Path("champion"), Path(out), Path("incoming"))
    assert read_json(Path(out) / "snapshot.json") == result.model_dump(mode="json")
    assert result.documents_md5 == path_hash(Path(out) / "documents")["md5"]
    assert sorted(path.name for path in Path(out).iterdir()) == ["documents", "quarantine.jsonl", "snapshot.json"]
    texts = [json.loads(line)["text"] for line in lines(Path(out) / "documents/documents.jsonl")]
    quarantine = [json.loads(line) for line in lines(Path(out) / "quarantine.jsonl")]
    assert result.accepted.documents == len(texts) and result.accepted.characters == sum(map(len, texts))
    assert result.quarantined.count == len(quarantine) == sum(result.quarantined.files.values())
    assert balanced(result)
    return result, texts, quarantine


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def balanced(result: Snapshot) -> bool:
    parts = (result.accepted.documents, result.quarantined.count, *result.dropped.values())
    return sum(parts) == result.records


def state(*roots: str) -> dict[Path, tuple[bytes, int]]:
    found = [path for root in roots for path in (Path(root), *Path(root).rglob("*"))]
    return {path: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in found}


# Quarantine


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff"}', "not UTF-8 (byte 10: invalid start byte)"),
        (b'{"text": " "}', "the text is empty; expected text"),
        (b'{"body": "y"}', "no field 'text'; expected params.yaml: corpus.files.text_field to be one of ['body']"),
        (b'{"text": "cut', "not valid JSON (Invalid control character at: line 1 column 14 (char 13)); expected ..."),
        (
            b'{"text": ' + b"1" * 5000 + b"}",
            "not valid JSON (a number has more than 4300 digits); expected one object a line",
        ),
        (b"[" * 100_000, "not valid JSON (nested too deeply); expected one object a line"),
        (b'{"text": "a", "text": "b"}', "not valid JSON (the key 'text' is there twice); expected one object a line"),
        (b'{"text": 3}', "the text is int; expected a string"),
        (b'["x"]', "holds list; expected an object"),
        (b'{"text": "\\ud800"}', "not valid Unicode: surrogates not allowed (character 0)"),
        (b'{"text": "a\\u0000b"}', "the text has NUL (character 1); expected text"),
        (
            json.dumps({"text": "\x1b\x85" + 37 * "a"}).encode(),
            "5.1% of the text are control characters; expected at most 5.0% "
            "(params.yaml: retrain.snapshot.most_control)",
        ),
        (
            json.dumps({"text": "a" * (LONGEST + 1)}).encode(),
            "the text has 1001 characters; expected at most 1000 (params.yaml: retrain.snapshot.longest)",
        ),
    ],
)
def test_a_bad_line_is_named_and_the_lines_around_it_are_taken(folder: Path, line: bytes, reason: str) -> None:
    put("deep/a.jsonl", [NEW[0], line, b"", NEW[1]])
    result, texts, (entry,) = taken()
    assert sorted(texts) == NEW[:2] and (result.files, result.records) == (1, 3)
    assert (entry["file"], entry["record"]) == ("deep/a.jsonl", 2)
    start = reason.removesuffix("...")
    assert entry["reason"].startswith(start) and (start != reason or entry["reason"] == reason)
    assert result.quarantined.files == {"deep/a.jsonl": 1}


def parquet(path: Path) -> None:
    array = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": pa.concat_arrays([pa.array([NEW[0], None]), array, pa.array(NEW[1:2])])}), path)


def dates(path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([2**60 + 1, 1], pa.timestamp("us"))}), path)


def damaged(path: Path) -> None:
    """The first row group is good, the page of the second is not."""
    pq.write_table(pa.table({"text": NEW[:2]}), path, row_group_size=1, compression="none", use_dictionary=False)
    content = path.read_bytes()
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])


def other_column(path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), path)


@pytest.mark.parametrize(
    ("make", "good", "expected"),
    [
        (parquet, 2, [(2, "the text is NoneType"), (3, "not UTF-8 (byte 0")]),
        (damaged, 1, [(None, "can't be read as Parquet after record 1 (")]),
        (other_column, 0, [(None, "no field 'text'; expected")]),
        (dates, 0, [(1, "the value can't be read ("), (2, "the text is datetime")]),
        (lambda path: path.write_bytes(b"PAR0 nothing"), 0, [(None, "can't be read as Parquet after record 0 (")]),
        (lambda path: pq.write_table(pa.table({"text": pa.array([], "string")}), path), 0, [(None, "the file has no")]),
    ],
    ids=["values", "a page", "another column", "dates", "no Parquet", "no record"],
)
def test_bad_values_of_parquet_are_named_and_the_others_are_taken(
    folder: Path, make: Callable[[Path], object], good: int, expected: list[tuple[int | None, str]]
) -> None:
    make(Path("incoming/a.parquet"))
    put("b.parquet", [NEW[5]])
    _, texts, quarantine = taken()
    assert sorted(texts) == [*NEW[:good], NEW[5]]
    assert [(entry["file"], entry["record"]) for entry in quarantine] == [("a.parquet", n) for n, _ in expected]
    assert all(entry["reason"].startswith(start) for entry, (_, start) in zip(quarantine, expected, strict=True))


def test_a_file_that_cannot_be_read_is_one_entry_without_a_record(folder: Path) -> None:
    put("a.txt", b"")
    put("b.txt", b"fine \xff")
    put("c.pdf", b"%PDF")
    put("d.jsonl", b"\n\n")
    put("e.txt", " \n")
    put("f.TXT", "an ending that is read in lower case only")
    put("z.txt", NEW[0])
    Path("incoming/g.txt").symlink_to("nowhere")
    Path("incoming/h").symlink_to(folder / "champion")
    os.mkfifo("incoming/i.jsonl")
    Path(os.fsdecode(b"incoming/j\xe9.txt")).write_text("", encoding="utf-8")
    result, texts, quarantine = taken()
    assert texts == [NEW[0]] and result.files == result.records == 11
    kinds = "files can't be read; expected .txt, .jsonl, .parquet"
    assert [(entry["file"], entry["reason"]) for entry in quarantine] == [
        ("a.txt", "the file is empty; expected text"),
        ("b.txt", "not UTF-8 (byte 5: invalid start byte)"),
        ("c.pdf", f"'.pdf' {kinds}"),
        ("d.jsonl", "the file has no record; expected text"),
        ("e.txt", "the text is empty; expected text"),
        ("f.TXT", f"'.TXT' {kinds}"),
        ("g.txt", "a link to nothing; expected a file"),
        ("h", f"'' {kinds}"),
        ("i.jsonl", "not a regular file; expected a file"),
        ("j\\xe9.txt", "the file is empty; expected text"),
    ]
    assert {entry["record"] for entry in quarantine} == {None}


def test_control_characters_up_to_the_share_and_texts_up_to_the_length_are_taken(folder: Path) -> None:
    fine = ["\x1b" + 19 * "a", "\t\n\r" * 10 + "b", "c" * LONGEST]
    put("a.jsonl", fine)
    assert sorted(taken()[1]) == sorted(fine)


# What is dropped


def test_each_kind_of_repeat_is_dropped_and_counted(folder: Path) -> None:
    near = [f"{HELD[0]} and a tail", f"{HELD[1]} and another"]
    put("a.jsonl", [HELD[0].upper(), *near, TRAINED[0], f"  {TRAINED[1]}", TRAINED[0], NEW[0], NEW[1]])
    put("b.parquet", [NEW[0], NEW[1].upper(), NEW[0]])
    result, texts, quarantine = taken()
    assert not quarantine and len(texts) == 2 and texts.count(NEW[0]) == 1
    assert result.dropped == {
        Repeat.VALIDATION_EXACT: 1,
        Repeat.VALIDATION_NEAR: 2,
        Repeat.KNOWN: 3,
        Repeat.REPEATED: 3,
    }
    for drop in ("exact", "none"):
        Path("params.yaml").write_text(yaml.safe_dump(params(drop)), encoding="utf-8")
        result, texts, _ = taken()
        assert len(texts) == 4 and set(near) < set(texts)
        assert list(result.dropped.values()) == [1, 0, 3, 3]


# The same documents, the same bytes


def test_names_and_splits_of_files_do_not_change_the_documents(folder: Path) -> None:
    texts = [*NEW, NEW[0].upper(), NEW[1].capitalize(), "line\u2028separator", HELD[0], TRAINED[0]]
    hashes, counts = set(), []
    for number, split in enumerate(([texts], [texts[::-1]], [texts[6:], texts[:6]], [[text] for text in texts])):
        shutil.rmtree("incoming")
        for place, part in enumerate(split):
            put(f"{number}/{'zyx'[place % 3]}{place}.{('jsonl', 'parquet')[place % 2]}", part)
        result, found, _ = taken()
        assert len(found) == 7
        hashes.add(result.documents_md5)
        counts.append((result.records, result.accepted, result.dropped))
    assert len(hashes) == 1 and all(count == counts[0] for count in counts)


def test_the_same_files_give_the_same_bytes_anywhere_and_stay_as_they_are(folder: Path) -> None:
    put("deep/a.jsonl", [*NEW, b"not json"])
    put("b.parquet", b"PAR0")
    put("c.txt", NEW[0])
    before = state("incoming", "champion")
    taken()
    first = path_hash(Path("out"))
    taken()
    assert path_hash(Path("out")) == first, "over an earlier snapshot"
    take(folder / "champion", folder / "elsewhere/out", folder / "incoming")
    assert path_hash(Path("elsewhere/out")) == first
    assert state("incoming", "champion") == before
    assert not any(str(folder) in path.read_text(encoding="utf-8") for path in Path("out").rglob("*.json*"))


@pytest.mark.parametrize("content", [None, [HELD[0], TRAINED[0]], [b"not json"]])
def test_nothing_to_take_is_no_error(folder: Path, content: list[Any] | None) -> None:
    if content:
        put("a.jsonl", content)
    result, texts, _ = taken()
    assert not texts and result.accepted.documents == result.accepted.characters == 0
    assert result.records == len(content or []) and not list(Path("out/documents").iterdir())


PIECES = [json.dumps({"text": text}).encode() for text in (*NEW[:2], HELD[0], HELD[0] + " tail", TRAINED[0], "\0", "")]
LINES = st.sampled_from([*PIECES, b"", b"{}", b"\xef\xbb\xbf", b"\xff"]) | st.binary(max_size=8)
FILES = st.dictionaries(st.sampled_from(["a.txt", "b.jsonl", "c/d.jsonl", "e.parquet", "f"]), st.lists(LINES))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, ChampionText]:
    """Params and the index of a champion, made once."""
    values = params()
    made = validate(Params, {name: values[name] for name in Params.model_fields}, "")
    root = make_champion(tmp_path_factory.mktemp("champion"))
    return made, ChampionText.of({"train": root / TRAIN, "validation": root / VALIDATION}, made.corpus.duplicates)


@given(files=FILES)
@settings(max_examples=60)
def test_every_record_is_accepted_quarantined_or_dropped(
    files: dict[str, list[bytes]], compared: tuple[Params, ChampionText]
) -> None:
    with TemporaryDirectory() as name:
        root, out = Path(name) / "in", Path(name) / "out"
        (root / "c").mkdir(parents=True)
        out.mkdir()
        for file, content in files.items():
            (root / file).write_bytes(b"\n".join(content))
        result = collect("folder", incoming_files(root), compared[1], compared[0], out)
        assert balanced(result) and result.files == len(files) <= result.records
        assert result.accepted.documents == len(lines(out / "documents/documents.jsonl")) <= 2 + len(files)


# Where documents come from


def test_hidden_files_are_passed_over(folder: Path) -> None:
    put(".gitkeep", b"")
    put(".a.jsonl.Xy1", b"half a rec")
    put(".git/a.txt", NEW[0])
    put("a.txt", NEW[1])
    result, texts, _ = taken()
    assert texts == [NEW[1]] and result.files == 1


def test_the_folder_of_params_is_looked_into_when_none_is_given(folder: Path) -> None:
    put("a.txt", NEW[0])
    values = params()
    values["retrain"]["incoming"]["folder"] = "incoming"
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert take(Path("champion"), Path("out")).accepted.documents == 1
    values["retrain"]["incoming"]["folder"] = "nowhere"
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(InputError, match=r"^params.yaml: retrain.incoming.folder: there is no folder nowhere"):
        take(Path("champion"), Path("out"))


def from_hub(path: str, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Take the newest revision of a hub's dataset, in a process of its own: the client reads its settings early."""
    values = params()
    values["retrain"]["incoming"].update(source="hub", hub={"path": path, "revision": "main", "files": ["*.jsonl"]})
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(Path("home").absolute()), "PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-m", "commands.snapshot", "--champion", "champion", "--out", "out"]
    return subprocess.run(command, env=hub, capture_output=True, text=True, check=False)


def test_the_newest_revision_of_a_hub_dataset_is_taken_like_a_folder(folder: Path) -> None:
    asked: list[str] = []
    Path("repository").mkdir()
    put("../repository/a.jsonl", [NEW[0], TRAINED[0], HELD[0]])
    put("../repository/b.jsonl", [b"poison", NEW[1]])
    put("../repository/script.py", b"not fetched")
    with hub_of(Path("repository"), asked) as endpoint:
        done = from_hub("a/b", endpoint)
        missing = from_hub("a/c", endpoint)
    assert done.returncode == 0, done.stderr
    result = Snapshot.model_validate(read_json(Path("out/snapshot.json")))
    assert result.source == f"a/b@{REVISION}" and result.files == 2 and result.accepted.documents == 2
    assert result.quarantined.files == {"b.jsonl": 1} and not any("script.py" in path for path in asked)
    assert missing.returncode == 75
    assert "error: params.yaml: retrain.incoming.hub: a/c at main can't be fetched: " in missing.stderr


# What is refused


def _damage_shard(folder: Path) -> None:
    next((folder / "champion" / TRAIN).iterdir()).write_bytes(b"PAR0")


def _file_as_out(folder: Path) -> None:
    (folder / "out").write_text("of the user", encoding="utf-8")


def _foreign(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/thesis.tex").write_text("of the user", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "changes", "message"),
    [
        (None, {"incoming": "nowhere"}, "--incoming: there is no folder nowhere; expected a folder"),
        (None, {"champion": "nowhere"}, "--champion: there is no folder nowhere; expected a folder"),
        (
            lambda folder: shutil.rmtree(folder / "champion" / VALIDATION),
            {},
            f"champion/{VALIDATION}: the champion's corpus is missing. Make it there first: dvc repro",
        ),
        (_damage_shard, {}, f"champion/{TRAIN}/00000.parquet: can't be read as a corpus shard"),
        (lambda folder: (folder / "params.yaml").unlink(), {}, "params.yaml: the file is missing"),
        (_file_as_out, {}, "--out: out is no folder"),
        (_foreign, {}, "--out: out has 'thesis.tex', which would be lost; expected an empty folder or an"),
        (None, {"out": "incoming"}, "--out: incoming overlaps incoming, which is read"),
        (None, {"out": "incoming/deep"}, "--out: incoming/deep overlaps incoming, which is read"),
        (None, {"out": "."}, "--out: . overlaps champion, which is read"),
        (None, {"out": f"champion/{TRAIN}/new"}, f"--out: champion/{TRAIN}/new overlaps champion/{TRAIN}, which"),
    ],
)
def test_a_mistake_is_one_message_and_changes_nothing(
    damage: Callable[[Path], object] | None,
    changes: dict[str, str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put("a.txt", NEW[0])
    if damage:
        damage(folder)
    before = state(".")
    assert command(monkeypatch, **changes) == 2
    out, err = capsys.readouterr()
    assert not out and f"error: {message}" in err and "Traceback" not in err
    assert state(".") == before


def command(monkeypatch: pytest.MonkeyPatch, **changes: str) -> Any:
    """Run the command; its exit code."""
    options = {"incoming": "incoming", "champion": "champion", "out": "out", **changes}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["snapshot", *arguments])
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: typer.run(snapshot.main))
    return exit_.value.code


def test_a_full_disk_is_one_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "TemporaryFile", full)
    with pytest.raises(InputError, match=r"^out: can't be written \(No space left on device\)\. Mend that"):
        taken()


def test_the_command_shows_the_counts_and_the_first_of_the_quarantine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put("[b].jsonl", [NEW[0], NEW[0], *[b"[]"] * 6])
    put("a.txt", b"")
    assert command(monkeypatch, out="champion/new") == 0, "a place in the champion's checkout, beside what is read"
    printed = capsys.readouterr().out
    assert "9 records in 2 files" in printed and f"accepted ({len(NEW[0])} characters)" in printed
    assert printed.partition("In quarantine")[2].splitlines() == [
        ", see champion/new/quarantine.jsonl:",
        *(f"- [b].jsonl, record {number}: holds list; expected an object" for number in range(3, 8)),
    ]
    shutil.rmtree("incoming")
    put("a.txt", NEW[0])
    assert command(monkeypatch) == 0 and "quarantine.jsonl" not in capsys.readouterr().out
