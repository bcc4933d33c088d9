"""The corpus stage and its sources: what comes out, what is dropped, what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.hashing import path_hash
from artifacts.manifest import Outside
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from stages.corpus import Params, run
from stages.params.corpus import CorpusParams, PackageSourcesParams
from stages.sources.documents import read_documents
from stages.sources.duplicates import digest, normalise, position
from stages.sources.files import matching_files
from stages.sources.package import package_documents

DEFAULTS: dict[str, Any] = {
    "source": "files",
    "package_sources": {
        "package": "sympy",
        "version": "1.14.0",
        "include": ["sympy/printing/*.py"],
        "exclude": ["*/tests/*"],
        "max_characters": None,
    },
    "hub": {
        "path": "nowhere",
        "config": None,
        "split": "train",
        "revision": "0" * 40,
        "text_field": "text",
        "documents": None,
        "validation_documents": 2,
    },
    "files": {"paths": ["data/texts/*.txt"], "text_field": "text"},
    "validation": {"fraction": 0.3},
    "duplicates": {"drop": "exact_and_near", "threshold": 0.6, "permutations": 128, "shingle_words": 3, "seed": 1},
    "shards": {"row_group_characters": 1000, "shard_characters": 5000},
}


def params(**changes: dict[str, Any] | str) -> CorpusParams:
    """Valid params; a dict changes keys of its section."""
    values = {
        key: {**old, **changes.get(key, {})} if isinstance(old, dict) else changes.get(key, old)  # type: ignore[dict-item]
        for key, old in DEFAULTS.items()
    }
    return validate(CorpusParams, values, "params.yaml")


def run_stage(folder: Path, corpus: CorpusParams, store: str = "store") -> Context[Params]:
    outputs = {"train": folder / "train", "validation": folder / "validation", "manifest": folder / "manifest.json"}
    context = Context(
        Params(corpus=corpus), {"snapshots": folder / "snapshots"}, outputs, {}, Checkpoints(folder / store, "key")
    )
    run(context)
    return context


def make(folder: Path, corpus: CorpusParams, store: str = "store") -> tuple[list[str], list[str], dict[str, Any]]:
    """Run the stage; the texts of training and validation, and the counts."""
    context = run_stage(folder, corpus, store)
    texts = ([d.text for d in read_documents(context.outputs[split])] for split in ("train", "validation"))
    return *texts, context.counts  # type: ignore[return-value]


def write_jsonl(path: Path, texts: Iterable[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def sentences(seed: int, count: int = 40) -> str:
    return " ".join(f"word{seed * 1000 + number}" for number in range(count))


def in_validation(text: str, fraction: float = 0.3) -> bool:
    return position(digest(normalise(text))) < fraction


# Splits and duplicates


def test_every_document_is_on_one_side_and_counted(tmp_path: Path) -> None:
    texts = [sentences(number) for number in range(50)]
    train, held, counts = make(tmp_path, params(files={"paths": [write_jsonl(tmp_path / "a.jsonl", texts)]}))
    assert sorted(train + held) == sorted(texts)
    assert train and held
    assert counts["train"] == {
        "documents": len(train),
        "characters": sum(map(len, train)),
        "bytes": sum(len(text.encode()) for text in train),
    }
    assert counts["dropped_exact"]["documents"] == counts["dropped_near"]["documents"] == 0


def test_the_split_is_stable_when_the_data_grows(tmp_path: Path) -> None:
    texts = [sentences(number) for number in range(60)]
    few = make(tmp_path / "few", params(files={"paths": [write_jsonl(tmp_path / "few.jsonl", texts[:30])]}))
    more = make(tmp_path / "more", params(files={"paths": [write_jsonl(tmp_path / "more.jsonl", reversed(texts))]}))
    assert set(few[0]) <= set(more[0])
    assert set(few[1]) <= set(more[1])


def test_snapshots_are_training_text_and_leave_validation_as_it_is(tmp_path: Path) -> None:
    texts = [sentences(number) for number in range(30)]
    corpus = params(files={"paths": [write_jsonl(tmp_path / "a.jsonl", texts)], "text_field": "text"})
    before = make(tmp_path / "before", corpus)
    new = [sentences(number) for number in range(100, 120)]
    for name, added in (("b", new[:10]), ("a", [*new[10:], before[1][0]])):
        folder = tmp_path / "after/snapshots" / name
        folder.mkdir(parents=True)
        write_jsonl(folder / "documents.jsonl", added)
        write_jsonl(folder / "other.jsonl", [sentences(999)])
    train, validation, counts = make(tmp_path / "after", corpus)
    assert any(in_validation(text) for text in new), "the split would have sent it there"
    assert train == [*before[0], *new[10:], *new[:10]] and validation == before[1]
    assert counts["dropped_exact"]["documents"] == 1


def test_spelling_of_white_space_and_case_does_not_change_the_side() -> None:
    assert digest(normalise("The  Same\n Text ")) == digest(normalise("the same text"))
    assert digest(normalise("\ufb01n")) == digest(normalise("fin")), "NFKC"
    assert digest(normalise("the same text")) != digest(normalise("thesame text"))


def test_near_duplicates_across_the_split_leave_training(tmp_path: Path) -> None:
    held = next(text for text in map(sentences, range(100)) if in_validation(text))
    copies = (f"{held} and a tail {number}" for number in range(100))
    near = next(text for text in copies if not in_validation(text))
    other = next(text for text in map(sentences, range(200, 300)) if not in_validation(text))
    paths = [write_jsonl(tmp_path / "a.jsonl", [near, held, other])]
    train, validation, counts = make(tmp_path / "near", params(files={"paths": paths}))
    assert (train, validation) == ([other], [held])
    assert counts["dropped_near"] == {"documents": 1, "characters": len(near), "bytes": len(near)}
    exact_only = params(files={"paths": paths}, duplicates={"drop": "exact"})
    assert make(tmp_path / "exact", exact_only)[0] == [near, other]


def hub_folder(path: Path, texts: list[str]) -> str:
    path.mkdir()
    half = len(texts) // 2
    for number, part in enumerate((texts[:half], texts[half:])):
        pq.write_table(pa.table({"text": part}), path / f"train-{number:05d}-of-00002.parquet")
    return str(path)


def test_hub_validation_is_the_last_documents_and_their_copies_leave_training(tmp_path: Path) -> None:
    texts = [sentences(number) for number in range(7)]
    texts[1] = texts[6].upper()  # the same when normalised
    path = hub_folder(tmp_path / "dataset", texts)
    corpus = params(source="hub", hub={"path": path, "documents": 7})
    train, held, counts = make(tmp_path / "out", corpus)
    assert held == texts[5:]
    assert train == [texts[0], *texts[2:5]]
    assert counts["dropped_exact"]["documents"] == 1
    kept = make(
        tmp_path / "kept", params(source="hub", hub={"path": path, "documents": 7}, duplicates={"drop": "none"})
    )
    assert kept[0] == texts[:5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": 6}, "the stream has more"),
        ({"documents": 9}, "the stream has only 7"),
        ({"documents": None}, "documents: null"),
        ({"split": "test", "documents": 7}, "Bad split: test"),
        ({"text_field": "body", "documents": 7}, r"record 1: the field 'body'.*\['text'\]"),
    ],
)
def test_a_hub_dataset_that_is_not_as_said_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = hub_folder(tmp_path / "dataset", [sentences(number) for number in range(7)])
    with pytest.raises(InputError, match=message):
        make(tmp_path / "out", params(source="hub", hub={"path": path, **change}))


def test_the_same_params_give_the_same_bytes_in_shards_of_bounded_size(tmp_path: Path) -> None:
    paths = [write_jsonl(tmp_path / "a.jsonl", map(sentences, range(60)))]
    hashes = []
    for name in ("first", "second"):
        make(tmp_path / name, params(files={"paths": paths}))
        hashes.append(path_hash(tmp_path / name / "train"))
    assert hashes[0] == hashes[1]
    shards = sorted((tmp_path / "first" / "train").iterdir())
    assert [shard.name for shard in shards[:2]] == ["00000.parquet", "00001.parquet"]
    assert pq.ParquetFile(shards[0]).num_row_groups > 1
    assert pq.read_schema(shards[0]).field("text").type == pa.large_string()


def test_a_finished_draft_is_not_read_again_but_an_edited_file_is(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    corpus = params(files={"paths": [write_jsonl(file, map(sentences, range(20)))]})
    before = make(tmp_path, corpus)
    for shard in (tmp_path / "store" / "draft" / "train").iterdir():
        shard.unlink()
    with pytest.raises(InputError, match=r"all .* are duplicates"):
        make(tmp_path, corpus)  # the draft was used: it has no training shard now
    write_jsonl(file, map(sentences, range(21)))
    after = make(tmp_path, corpus)
    assert len(after[0] + after[1]) == len(before[0] + before[1]) + 1


# The user's own files


def test_text_jsonl_and_parquet_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes("\ufeffé one\r\ntwo".encode())
    write_jsonl(tmp_path / "c.jsonl", ["three", "four"])
    pq.write_table(pa.table({"text": ["five", "six"]}), tmp_path / "a.parquet")
    paths = [str(tmp_path / "*.*"), str(tmp_path / "b.txt")]
    corpus = params(files={"paths": paths}, validation={"fraction": 0.2}, duplicates={"drop": "none"})
    train, held, _ = make(tmp_path / "out", corpus)
    assert sorted(train + held) == sorted(["five", "six", "é one\ntwo", "three", "four"])
    ids = [document.id for split in ("train", "validation") for document in read_documents(tmp_path / "out" / split)]
    assert sorted(ids) == ["0/a.parquet#1", "0/a.parquet#2", "0/b.txt", "0/c.jsonl#1", "0/c.jsonl#2"]


def bad_parquet(path: Path) -> None:
    array = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": pa.concat_arrays([pa.array(["fine"]), array])}), path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt: the file is empty"),
        ("a.txt", b" \n", r"a\.txt: the text is empty"),
        ("a.txt", b"fine \xff", r"a\.txt: not UTF-8 \(byte 5"),
        ("a.pdf", b"%PDF", r"'\.pdf' files can't be read; expected \.txt, \.jsonl, \.parquet"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"a\.jsonl, record 2: not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ""}\n', r"a\.jsonl, record 2: the text is empty"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', r"record 2: no field 'text'.*\['body'\]"),
        ("a.jsonl", b'{"text": "x"}\nnot json\n', r"record 2: not valid JSON"),
        ("a.jsonl", b'{"text": 3}\n', r"record 1: the text is int"),
        ("a.jsonl", b'["x"]\n', r"record 1: holds list"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"record 1: not valid Unicode"),
        ("a.jsonl", b'{"text": "x", "n": ' + b"1" * 5000 + b"}\n", r"record 1: .*a number has more than 4300 digits"),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", r"record 1: .*nested too deeply"),
        ("a.jsonl", b'{"text": "x", "text": "y"}\n', r"record 1: .*the key 'text' is there twice"),
        ("a.jsonl", b"\n\n", r"a\.jsonl: the file has no record"),
        ("a.parquet", b"PAR0 nothing", r"a\.parquet: can't be read as Parquet"),
        ("a.parquet", bad_parquet, r"a\.parquet, record 2: not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_file_and_record(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    if callable(content):
        content(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        make(tmp_path / "out", params(files={"paths": [str(tmp_path / name)]}))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("texts/**.txt", "'texts/**.txt' is no glob (Invalid pattern: '**' can only be an entire path component)"),
        (".", "'.' is a folder"),
        ("./", "'./' is a folder"),
        ("..", "'..' is a folder"),
        ("/", "'/' is a folder"),
        ("//", "'//' is a folder"),
        ("~", "'~' is a folder"),
        ("~nobody-at-all/x", "'~nobody-at-all/x' is no glob (Could not determine home directory.)"),
        ("texts", "'texts' is a folder"),
        ("texts/", "'texts/' is a folder"),
        ("*.cobol", "no file matches '*.cobol'"),
        ("x" * 5000, "... is no glob (File name too long)"),
        ("texts/link.txt", "texts/link.txt: a link to nothing"),
        ("texts/*.txt", "texts/link.txt: a link to nothing"),
        ("texts/pipe.jsonl", "texts/pipe.jsonl: not a regular file"),
        ("texts/folder.txt", "'texts/folder.txt' is a folder"),
        ("/dev/zero", "/dev/zero: '' files can't be read"),
        ("other/*", "the name of 'other/caf\\udce9.txt' is not UTF-8; expected another. Rename the file"),
    ],
)
def test_what_a_glob_finds_and_is_no_text_is_named(
    pattern: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("texts/folder.txt", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "texts/link.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "texts/pipe.jsonl")
    (tmp_path / os.fsdecode(b"other/caf\xe9.txt")).write_text("text", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as corpus:
        make(tmp_path / "out", params(files={"paths": [pattern]}))
    assert message in str(corpus.value) and "\n" not in str(corpus.value)


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one.txt").write_text("text", encoding="utf-8")
    assert list(matching_files(params(files={"paths": ["~/*.txt"]}).files)) == ["0/one.txt"]


PEAK = """
import resource, sys
from pathlib import Path
from stages.sources.files import read_texts
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(text) > 1_900_000 for _, text in read_texts(Path(sys.argv[1]), "text"))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_few_bytes_of_parquet_take_no_more_memory_than_some_rows(tmp_path: Path) -> None:
    """1,000 rows of 2 MB in a file of some kilobytes, all of one row group."""
    rows = pa.table({"text": [f"{number} " + "x" * 2_000_000 for number in range(50)]})
    file = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(file, rows.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(pa.concat_tables([rows] * 20), row_group_size=1000)
    assert file.stat().st_size < 1_000_000
    done = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True)
    count, mebibytes = map(int, done.stdout.split())
    assert count == 1000 and mebibytes < 1000, done.stdout


def test_a_glob_without_files_and_a_split_without_a_side_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.files\.paths\.0: no file matches"):
        make(tmp_path / "none", params(files={"paths": [str(tmp_path / "*.txt")]}))
    (tmp_path / "one.txt").write_text("one document", encoding="utf-8")
    with pytest.raises(InputError, match=r"leaves no validation document of 1.*cut it into several"):
        make(tmp_path / "one", params(files={"paths": [str(tmp_path / "*.txt")]}, validation={"fraction": 1e-9}))


# Package sources


def test_the_manifest_names_the_package_and_the_bytes_that_were_read(tmp_path: Path) -> None:
    corpus = params(source="package_sources", duplicates={"drop": "none"})
    (read,) = run_stage(tmp_path, corpus).sources
    package = corpus.package_sources
    texts = {document.id: document.text for document in package_documents(package)}
    lines = [f"{name}\n{sha256(text.encode()).hexdigest()}\n" for name, text in sorted(texts.items())]
    digest = sha256("".join(lines).encode()).hexdigest()
    assert read == Outside(source=package.package, revision=package.version, sha256=digest)


def test_package_sources_are_the_selected_files_of_the_pinned_version(tmp_path: Path) -> None:
    documents = {document.id: document.text for document in package_documents(params().package_sources)}
    assert "def latex(" in documents["sympy/printing/latex.py"]
    assert not any("/tests/" in name for name in documents)


def test_max_characters_takes_a_stable_part(tmp_path: Path) -> None:
    limited = params(package_sources={"max_characters": 100_000}).package_sources
    first, again = (list(package_documents(limited)) for _ in range(2))
    assert first == again
    assert 50_000 < sum(len(document.text) for document in first) <= 100_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "1.13.0"}, "sympy 1.14.0 is installed; expected version 1.13.0"),
        ({"package": "no-such-package"}, "no-such-package isn't installed"),
        ({"include": ["*.cobol"]}, "no file of sympy matches"),
        ({"max_characters": 3}, "leaves no text"),
    ],
)
def test_a_wrong_package_is_refused(change: dict[str, Any], message: str) -> None:
    sources: PackageSourcesParams = params(package_sources=change).package_sources
    with pytest.raises(InputError, match=message):
        list(package_documents(sources))


# Params


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "web"}, "source: 'web' is wrong; expected .*'package_sources'"),
        ({"files": {"paths": []}}, r"files\.paths \[\] with source 'files' is impossible; expected at least one glob"),
        ({"hub": {"revision": "main"}}, "hub.revision: 'main' is wrong"),
        ({"hub": {"documents": 5, "validation_documents": 5}}, "leaves no training text"),
        ({"validation": {"fraction": 1.0}}, "validation.fraction: 1.0 is wrong"),
        ({"duplicates": {"drop": "fuzzy"}}, "duplicates.drop: 'fuzzy' is wrong"),
        ({"duplicates": {"treshold": 0.5}}, "duplicates.treshold: unknown key"),
    ],
)
def test_impossible_params_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        params(**change)
