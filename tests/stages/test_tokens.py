"""The packing stage: rows, documents and bytes of what the corpus holds."""

from pathlib import Path

import numpy as np
import pytest

from artifacts.files import write_json
from artifacts.hashing import path_hash
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from softmask.tokens import PackedTokens
from stages.params.corpus import ShardsParams
from stages.params.tokenizer import TokenizerKind, TrainTokenizerParams
from stages.params.tokens import TokensParams
from stages.sources.documents import Document, ShardWriter
from stages.tokenizer import END_OF_TEXT, UNKNOWN, add_mask, train_characters
from stages.tokens import Params, run

TEXTS = ["abc", "ü" * 7, "a", "bb" * 20, "cab", "zz"]


def make(folder: Path, texts: list[str], length: int = 8, batch: int = 10) -> tuple[PackedTokens, dict[str, int]]:
    """Run the stage with `texts` on both sides; the packed training split and its counts."""
    for split in ("train", "validation"):
        with ShardWriter(
            folder / "corpus" / split, ShardsParams(row_group_characters=9, shard_characters=30)
        ) as writer:
            for number, text in enumerate(texts):
                writer.write(Document(str(number), text))
    tokenizer = train_characters(
        iter("abcü"), TrainTokenizerParams(kind=TokenizerKind.CHARACTERS, vocab_size=None, min_count=1)
    )
    vocabulary = add_mask(tokenizer, END_OF_TEXT, UNKNOWN)
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    write_json(folder / "tokenizer" / "vocabulary.json", vocabulary.to_dict())
    inputs = {split: folder / "corpus" / split for split in ("train", "validation")}
    outputs = {split: folder / "tokens" / split for split in ("train", "validation")}
    params = Params(tokens=TokensParams(length=length, batch_characters=batch))
    context = Context(params, {**inputs, "tokenizer": folder / "tokenizer"}, outputs, {}, Checkpoints(folder, "key"))
    run(context)
    return PackedTokens.open(outputs["train"]), context.counts["train"]


def test_documents_are_joined_with_end_of_text_and_wrapped(tmp_path: Path) -> None:
    packed, counts = make(tmp_path, TEXTS)
    alphabet = dict(zip("abcü", range(4), strict=True))
    stream = [i for text in TEXTS for i in [*(alphabet.get(c, 4) for c in text), packed.eos_token_id]]
    rows = len(stream) // 8
    assert packed.rows(range(rows)).tolist() == np.reshape(stream[: rows * 8], (rows, 8)).tolist()
    assert len(packed) == rows == counts["rows"]
    assert counts["dropped_tokens"] == len(stream) - rows * 8
    assert packed.mask_token_id == packed.vocab_size - 1 == 6


def test_each_token_knows_its_document_and_the_end_belongs_to_what_it_ends(tmp_path: Path) -> None:
    packed, _ = make(tmp_path, TEXTS)
    of_stream = [number for number, text in enumerate(TEXTS) for _ in range(len(text) + 1)]
    assert packed.documents_of(range(len(packed))).ravel().tolist() == of_stream[: len(packed) * 8]
    assert packed.documents_of([2, 0])[1].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("length", [2, 3, 5, 8, 13, 30, 62])
def test_bytes_are_of_what_is_in_the_rows(tmp_path: Path, length: int) -> None:
    packed, counts = make(tmp_path, TEXTS, length)
    end = len(packed) * length
    expected, start = [], 0
    for text in TEXTS:
        if start < end:
            expected.append(len(text[: end - start].encode()))
        start += len(text) + 1
    assert packed.bytes_of_documents.tolist() == expected
    assert packed.n_documents == len(expected) == counts["documents"]
    assert counts["dropped_documents"] == len(TEXTS) - len(expected)


def test_the_letters_of_end_of_text_do_not_end_a_document(tmp_path: Path) -> None:
    packed, _ = make(tmp_path, [f"a{END_OF_TEXT}b[MASK]", "c" * 30])
    ids = packed.rows(range(len(packed))).ravel()
    assert np.flatnonzero(ids == packed.eos_token_id)[0] == 1 + len(END_OF_TEXT) + 1 + len("[MASK]")
    assert packed.mask_token_id not in ids


def test_batches_change_no_byte(tmp_path: Path) -> None:
    for batch in (1, 1000):
        make(tmp_path / str(batch), TEXTS, batch=batch)
    assert path_hash(tmp_path / "1" / "tokens") == path_hash(tmp_path / "1000" / "tokens")


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    assert make(tmp_path, TEXTS)[1]["unknown_tokens"] == 2


def test_a_split_without_a_complete_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"5 tokens in 1 documents make no complete row of 8.*tokens\.length"):
        make(tmp_path, ["abca"])
