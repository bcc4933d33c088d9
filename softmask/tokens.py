"""A vocabulary's special ids, and packed tokens: rows of fixed length, mapped from disk, whose documents are known.

The layout of a packed split, all files little-endian: `tokens.bin` (rows x length ids), `document_starts.bin` (int64,
where each document begins), `document_bytes.bin` (int64, its UTF-8 bytes), `meta.json`. Knows no tokenizer.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from softmask.errors import InputError
from softmask.plain_json import read_json

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """What a model has to know of its tokenizer."""

    size: int
    """Ids in all, with the mask token."""
    mask_token_id: int
    """The last id."""
    eos_token_id: int
    """End-of-text: ends each document."""
    unknown_token_id: int | None
    """Stands for what the tokenizer doesn't know; None where it knows everything."""

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """The vocabulary.json of a tokenizer's folder.

        Raises:
            InputError: it is missing or damaged.
        """
        path = folder / "vocabulary.json"
        return cls.parse(read_json(path), path)

    @classmethod
    def parse(cls, raw: Any, where: Path) -> "Vocabulary":
        """A vocabulary from its JSON value.

        Raises:
            InputError: a key is missing or unknown, or the mask token isn't the last id.
        """
        try:
            vocabulary = cls(**raw)
        except TypeError as error:
            raise InputError(f"no vocabulary ({error})", where=str(where)) from None
        if vocabulary.mask_token_id != vocabulary.size - 1:
            raise InputError(
                f"mask_token_id is {vocabulary.mask_token_id}",
                where=str(where),
                expected=f"the last id, {vocabulary.size - 1}",
            )
        return vocabulary

    def to_dict(self) -> dict[str, int | None]:
        """The content of vocabulary.json."""
        return asdict(self)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned integer that holds every id, little-endian."""
        return np.min_scalar_type(self.size - 1).newbyteorder("<")


@dataclass(frozen=True)
class PackedMeta:
    """Content of a packed split's meta.json."""

    rows: int
    length: int
    documents: int
    dtype: str
    vocabulary: Vocabulary

    def to_dict(self) -> dict[str, Any]:
        """The content of meta.json."""
        return asdict(self)

    def sizes(self) -> dict[str, int]:
        """File name -> bytes of the files beside meta.json."""
        tokens = self.rows * self.length * np.dtype(self.dtype).itemsize
        return {
            "tokens.bin": tokens,
            "document_starts.bin": self.documents * 8,
            "document_bytes.bin": self.documents * 8,
        }


class PackedTokens:
    """The rows of a packed split. Opening it reads no token; a row is read when it is asked for."""

    def __init__(self, folder: Path, meta: PackedMeta) -> None:
        """Use `PackedTokens.open`."""
        self.meta = meta
        self.length = meta.length
        self.vocabulary = meta.vocabulary
        self.n_documents = meta.documents
        shape = (meta.rows, meta.length)
        self._tokens = np.memmap(folder / "tokens.bin", dtype=meta.dtype, mode="r", shape=shape)
        self._starts = np.memmap(folder / "document_starts.bin", dtype="<i8", mode="r")
        self._bytes = np.memmap(folder / "document_bytes.bin", dtype="<i8", mode="r")

    @classmethod
    def open(cls, folder: Path) -> "PackedTokens":
        """Open a packed split.

        Raises:
            InputError: the folder is missing, torn (a file's size isn't what meta.json says), or no packed split; or
                it has no row.
        """
        meta = _read_meta(folder)
        for name, expected in meta.sizes().items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != expected:
                what = "the file is missing" if found is None else f"the file has {found} bytes"
                raise InputError(what, where=str(path), expected=f"{expected} bytes, by meta.json")
        if meta.rows == 0:
            raise InputError(
                f"no complete row of {meta.length} tokens",
                where=str(folder),
                expected="more text, or a smaller tokens.length",
            )
        return cls(folder, meta)

    def __len__(self) -> int:
        """Number of rows."""
        return self.meta.rows

    @property
    def vocab_size(self) -> int:
        """Ids in all, with the mask token."""
        return self.vocabulary.size

    @property
    def mask_token_id(self) -> int:
        """The mask token, which never occurs in the rows."""
        return self.vocabulary.mask_token_id

    @property
    def eos_token_id(self) -> int:
        """End-of-text."""
        return self.vocabulary.eos_token_id

    @property
    def bytes_of_documents(self) -> Int64Array:
        """UTF-8 bytes of each document, int64 [n_documents]; of the last one, of the part that is in the rows."""
        return np.asarray(self._bytes, dtype=np.int64)

    def rows(self, indices: npt.ArrayLike) -> Int64Array:
        """Token ids of rows, int64 [n, length].

        Args:
            indices: row numbers [n], from 0, in any order.

        Raises:
            IndexError: there is no such row.
        """
        return self._tokens[self._checked(indices)].astype(np.int64)

    def documents_of(self, row_indices: npt.ArrayLike) -> Int64Array:
        """Document of each token of these rows, int64 [n, length]; an end-of-text belongs to the document it ends.

        Raises:
            IndexError: there is no such row.
        """
        first = self._checked(row_indices)[:, None] * self.length
        positions = first + np.arange(self.length, dtype=np.int64)
        return np.searchsorted(self._starts, positions, side="right").astype(np.int64) - 1

    def _checked(self, indices: npt.ArrayLike) -> Int64Array:
        numbers = np.asarray(indices, dtype=np.int64)
        if numbers.ndim != 1:
            raise IndexError(f"row numbers of shape {numbers.shape}; expected one dimension")
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {len(self)}")
        return numbers


def _read_meta(folder: Path) -> PackedMeta:
    path = folder / "meta.json"
    raw = read_json(path)
    try:
        vocabulary = Vocabulary.parse(raw["vocabulary"], path)
        meta = PackedMeta(**{**raw, "vocabulary": vocabulary})
        counts = (meta.rows, meta.length, meta.documents)
        ours = (
            all(isinstance(count, int) and count >= 0 for count in counts) and np.dtype(meta.dtype) == vocabulary.dtype
        )
        ours = ours and meta.length > 0 and (meta.rows == 0 or meta.documents > 0)
    except (TypeError, KeyError) as error:
        raise InputError(f"not the meta.json of packed tokens ({error})", where=str(path)) from None
    if not ours:
        raise InputError("counts or dtype make no sense", where=str(path))
    return meta
