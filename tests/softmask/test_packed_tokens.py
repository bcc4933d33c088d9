"""Packed tokens and the vocabulary, read back; torn and foreign folders are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmask.errors import InputError
from softmask.tokens import PackedMeta, PackedTokens, Vocabulary

ROWS = [[1, 2, 0], [3, 0, 1], [1, 1, 1]]


def write_split(folder: Path, size: int = 5) -> None:
    vocabulary = Vocabulary(size=size, mask_token_id=size - 1, eos_token_id=0, unknown_token_id=None)
    np.array(ROWS, dtype=vocabulary.dtype).tofile(folder / "tokens.bin")
    np.array([0, 3, 5], dtype="<i8").tofile(folder / "document_starts.bin")
    np.array([2, 1, 4], dtype="<i8").tofile(folder / "document_bytes.bin")
    meta = PackedMeta(rows=3, length=3, documents=3, dtype=vocabulary.dtype.str, vocabulary=vocabulary)
    (folder / "meta.json").write_text(json.dumps(meta.to_dict()), encoding="utf-8")


@pytest.mark.parametrize(("size", "itemsize"), [(5, 1), (256, 1), (257, 2), (50_258, 2), (65_537, 4)])
def test_rows_come_back_from_the_smallest_type_that_fits(tmp_path: Path, size: int, itemsize: int) -> None:
    write_split(tmp_path, size)
    packed = PackedTokens.open(tmp_path)
    assert (tmp_path / "tokens.bin").stat().st_size == 9 * itemsize
    rows = packed.rows([2, 0, 2])
    assert rows.dtype == np.int64
    assert rows.tolist() == [ROWS[2], ROWS[0], ROWS[2]]
    assert (len(packed), packed.length, packed.n_documents, packed.vocab_size) == (3, 3, 3, size)
    assert (packed.mask_token_id, packed.eos_token_id) == (size - 1, 0)


def test_documents_of_tokens(tmp_path: Path) -> None:
    write_split(tmp_path)
    packed = PackedTokens.open(tmp_path)
    assert packed.documents_of(np.arange(3)).tolist() == [[0, 0, 0], [1, 1, 2], [2, 2, 2]]
    assert packed.bytes_of_documents.tolist() == [2, 1, 4]
    assert packed.rows([]).shape == packed.documents_of([]).shape == (0, 3)


@pytest.mark.parametrize("indices", [[-1], [3], [[0]]])
def test_there_is_no_such_row(tmp_path: Path, indices: Any) -> None:
    write_split(tmp_path)
    with pytest.raises(IndexError):
        PackedTokens.open(tmp_path).rows(indices)


@pytest.mark.parametrize("name", ["tokens.bin", "document_starts.bin", "document_bytes.bin"])
def test_a_torn_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_split(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=rf"{name}: the file has \d+ bytes; expected \d+ bytes, by meta.json"):
        PackedTokens.open(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: the file is missing"):
        PackedTokens.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "3"}, "make no sense"),
        ({"length": 0}, "make no sense"),
        ({"documents": 0}, "make no sense"),
        ({"dtype": "<u4"}, "make no sense"),
        ({"extra": 1}, "not the meta.json"),
        ({"vocabulary": {"size": 5}}, "no vocabulary"),
        ({"rows": 0, "documents": 0}, "no complete row of 3 tokens"),
    ],
)
def test_a_foreign_meta_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_split(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text(encoding="utf-8"))
    (tmp_path / "meta.json").write_text(json.dumps({**meta, **change}), encoding="utf-8")
    if change.get("rows") == 0:
        for name in ("tokens.bin", "document_starts.bin", "document_bytes.bin"):
            (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=message):
        PackedTokens.open(tmp_path)


def test_a_folder_that_is_no_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"meta\.json: the file is missing"):
        PackedTokens.open(tmp_path)


def test_the_mask_token_must_be_the_last_id(tmp_path: Path) -> None:
    raw = {"size": 9, "mask_token_id": 3, "eos_token_id": 0, "unknown_token_id": None}
    (tmp_path / "vocabulary.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(InputError, match="mask_token_id is 3; expected the last id, 8"):
        Vocabulary.read(tmp_path)
