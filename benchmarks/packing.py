"""Throughput and memory of tokenising and packing, at three sizes of text, against `datasets.map` alone.

The text is the corpus of Python sources, over and over, each document made another one. Every measurement is the real
stage, in a process of its own. Needs 4 GB of disk.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from artifacts.files import write_json
from benchmarks.packing_process import TASKS
from benchmarks.table import Cost, Measured
from stages.corpus import Params
from stages.params.corpus import ShardsParams
from stages.params.tokenizer import TokenizerKind, TrainTokenizerParams
from stages.sources.documents import Document, ShardWriter
from stages.sources.package import package_documents
from stages.tokenizer import END_OF_TEXT, UNKNOWN, add_mask, train_bpe, train_characters

MB = 10**6
SIZES = {"10 MB": 10 * MB, "100 MB": 100 * MB, "1 GB": 1000 * MB}
SMALLER, LARGER = "100 MB", "1 GB"
"""Whose memory is compared."""
TOKENIZERS = {
    "characters": TrainTokenizerParams(kind=TokenizerKind.CHARACTERS, vocab_size=None, min_count=100),
    "BPE": TrainTokenizerParams(kind=TokenizerKind.BPE, vocab_size=16_384, min_count=2),
}
"""The local profile's, and one like GPT-2's, which the largest size is not packed with: it would take minutes more."""
VALIDATION_CHARACTERS = 10_000
"""Of the one validation document, at least: enough for a row."""


def measure() -> list[Measured]:
    """Every size against `datasets.map`, and how memory grows; half an hour on two busy cores."""
    corpus = Params.read({}).corpus
    documents = list(package_documents(corpus.package_sources))
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in TOKENIZERS:
            _make_tokenizer(kind, documents, folder / kind / "tokenizer")
            (folder / kind / "corpus").symlink_to(folder / "corpus")
        for size, wanted in SIZES.items():
            text_bytes = _write_corpus(documents, wanted, folder / "corpus", corpus.shards)
            rows.append(_compare(f"packing {size}", "characters", folder, text_bytes))
            if size != LARGER:
                rows.append(_compare(f"packing {size}, BPE", "BPE", folder, text_bytes))
    peaks = {row.name: Cost(peak_mib=row.cost.peak_mib) for row in rows}
    small, large = f"packing {SMALLER}", f"packing {LARGER}"
    return [*rows, Measured(f"{large}, memory", peaks[large], small, peaks[small], 1.2, "with Python's own")]


def _make_tokenizer(kind: str, documents: list[Document], folder: Path) -> None:
    texts = (document.text for document in documents)
    characters = kind == "characters"
    tokenizer = (train_characters if characters else train_bpe)(texts, TOKENIZERS[kind])
    vocabulary = add_mask(tokenizer, END_OF_TEXT, UNKNOWN if characters else None)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocabulary.json", vocabulary.to_dict())


def _write_corpus(documents: list[Document], wanted: int, folder: Path, shards: ShardsParams) -> int:
    """That many bytes of training text, at least, and one document of validation text; returns the bytes."""
    with ShardWriter(folder / "validation", shards) as validation:
        validation.write(next(document for document in documents if len(document.text) > VALIDATION_CHARACTERS))
    with ShardWriter(folder / "train", shards) as train:
        for document in _copies(documents):
            train.write(document)
            if train.count.bytes >= wanted:
                break
    return train.count.bytes


def _copies(documents: list[Document]) -> Iterator[Document]:
    for number in count():
        for document in documents:
            yield Document(f"{document.id}-{number}", f"# copy {number}\n{document.text}")


def _compare(name: str, kind: str, folder: Path, text_bytes: int) -> Measured:
    ours, theirs = (_cost(task, folder / kind) for task in TASKS)
    speeds = " and ".join(f"{text_bytes / MB / cost.seconds:.1f}" for cost in (ours, theirs) if cost.seconds)
    return Measured(name, ours, "datasets.map", theirs, note=f"{kind}, {speeds} MB/s")


def _cost(task: str, folder: Path) -> Cost:
    command = [sys.executable, "-m", "benchmarks.packing_process", task, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{task} ended with {done.returncode}: {done.stderr[-1000:]}")
    for made in ("tokens", "cache"):
        shutil.rmtree(folder / made, ignore_errors=True)
    return Cost(**json.loads(done.stdout))
