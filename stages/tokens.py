"""Pack the documents into rows of fixed length: encode, end each with end-of-text, wrap. In memory: one batch."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from artifacts.files import fresh_folder, read_tokenizer, write_json
from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError
from softmask.tokens import PackedMeta, Vocabulary
from stages.params.tokens import TokensParams
from stages.sources.documents import count_documents, read_documents

SPLITS = ("train", "validation")


class Params(StageParams):
    """How the tokens are packed."""

    tokens: TokensParams


def run(context: Context[Params]) -> None:
    """Pack both splits.

    Raises:
        InputError: a split has not one complete row.
    """
    folder = context.inputs["tokenizer"]
    vocabulary = Vocabulary.read(folder)
    tokenizer = read_tokenizer(folder)
    # The letters of "<|endoftext|>" inside a document are text; only the packer ends a document.
    tokenizer.encode_special_tokens = True
    for split in SPLITS:
        texts = _texts(context.inputs[split], split)
        context.counts[split] = pack(texts, context.outputs[split], tokenizer, vocabulary, context.params.tokens)


def pack(
    texts: Iterator[str], folder: Path, tokenizer: Tokenizer, vocabulary: Vocabulary, params: TokensParams
) -> dict[str, int]:
    """Write a packed split (layout: softmask/tokens.py) and return its counts.

    The incomplete last row is dropped. A document that it cuts keeps the bytes of its kept part; documents that lie
    in it as a whole are not in the split.

    Raises:
        InputError: there is not one complete row.
    """
    fresh_folder(folder)
    names = ("tokens.bin", "document_starts.bin", "document_bytes.bin")
    total = documents = unknown = 0
    tail: deque[tuple[int, str]] = deque()  # documents that the last row may cut: where they begin, and their text
    with ExitStack() as stack:
        tokens, starts, sizes = (stack.enter_context((folder / name).open("wb")) for name in names)
        for batch in _batches(texts, params.batch_characters):
            for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
                ids = np.array([*encoding.ids, vocabulary.eos_token_id], dtype=vocabulary.dtype)
                tokens.write(ids.tobytes())
                starts.write(np.array(total, dtype="<i8").tobytes())
                sizes.write(np.array(len(text.encode("utf-8")), dtype="<i8").tobytes())
                tail.append((total, text))
                total, documents = total + len(ids), documents + 1
                unknown += _count_unknown(ids, vocabulary)
            while len(tail) > 1 and tail[1][0] <= total - params.length:
                tail.popleft()
    rows = total // params.length
    if rows == 0:
        raise InputError(
            f"{total} tokens in {documents} documents make no complete row of {params.length}",
            where=str(folder),
            expected="more text, or a smaller tokens.length",
        )
    kept = _cut(folder, tail, rows * params.length, documents, tokenizer, vocabulary)
    meta = PackedMeta(rows, params.length, kept, vocabulary.dtype.str, vocabulary)
    write_json(folder / "meta.json", meta.to_dict())
    return {
        "rows": rows,
        "tokens": rows * params.length,
        "documents": kept,
        "dropped_tokens": total - rows * params.length,
        "dropped_documents": documents - kept,
        "unknown_tokens": unknown,
    }


def _batches(texts: Iterator[str], characters: int) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _cut(
    folder: Path, tail: deque[tuple[int, str]], end: int, documents: int, tokenizer: Tokenizer, vocabulary: Vocabulary
) -> int:
    """Cut the files to `end` tokens; returns the number of documents that begin before it."""
    inside = [(start, text) for start, text in tail if start < end]
    kept = documents - (len(tail) - len(inside))
    start, text = inside[-1]
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    if end - start < len(offsets):
        text = text[: offsets[end - start - 1][1]]
    _truncate(folder / "tokens.bin", end * vocabulary.dtype.itemsize)
    _truncate(folder / "document_starts.bin", kept * 8)
    _truncate(folder / "document_bytes.bin", (kept - 1) * 8)
    with (folder / "document_bytes.bin").open("ab") as file:
        file.write(np.array(len(text.encode("utf-8")), dtype="<i8").tobytes())
    return kept


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _count_unknown(ids: np.ndarray[Any, Any], vocabulary: Vocabulary) -> int:
    return 0 if vocabulary.unknown_token_id is None else int(np.count_nonzero(ids == vocabulary.unknown_token_id))


def _texts(folder: Path, split: str) -> Iterator[str]:
    total = count_documents(folder)
    for document in tqdm(read_documents(folder), desc=f"packing {split}", unit="doc", unit_scale=True, total=total):
        yield document.text


STAGE = Stage(
    name="tokens",
    params=Params,
    run=run,
    inputs={
        "check": "data/check/valid.json",
        "train": "data/corpus/train",
        "validation": "data/corpus/validation",
        "tokenizer": "data/tokenizer/tokenizer",
    },
    outputs={
        "train": "data/tokens/train",
        "validation": "data/tokens/validation",
        "manifest": "data/tokens/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
