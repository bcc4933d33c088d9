"""Documents and the Parquet shards that carry them. Knows neither where documents come from nor how they are split."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.files import fresh_folder
from softmask.errors import InputError
from stages.params.corpus import ShardsParams

SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.large_string())])


@dataclass(frozen=True)
class Document:
    """A text and the name that leads back to where it came from."""

    id: str
    text: str


@dataclass
class Count:
    """Size of a set of documents."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0

    def add(self, document: Document) -> None:
        """Count a document; bytes are UTF-8."""
        self.documents += 1
        self.characters += len(document.text)
        self.bytes += len(document.text.encode("utf-8"))


@dataclass
class ShardWriter:
    """Writes documents into `folder` as 00000.parquet, 00001.parquet, ...; the bytes depend on the documents only.

    Holds one row group in memory. Use it as a context manager, so that the last row group gets written.
    """

    folder: Path
    shards: ShardsParams
    count: Count = field(default_factory=Count)
    _rows: list[Document] = field(default_factory=list)
    _row_characters: int = 0
    _shard_characters: int = 0
    _shard: int = 0
    _writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "ShardWriter":
        fresh_folder(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._close_shard()

    def write(self, document: Document) -> None:
        """Append a document."""
        self.count.add(document)
        self._rows.append(document)
        self._row_characters += len(document.text)
        if self._row_characters >= self.shards.row_group_characters:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.folder / f"{self._shard:05d}.parquet", SCHEMA, compression="zstd")
        columns = {"id": [row.id for row in self._rows], "text": [row.text for row in self._rows]}
        self._writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=len(self._rows))
        self._shard_characters += self._row_characters
        self._rows, self._row_characters = [], 0
        if self._shard_characters >= self.shards.shard_characters:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._shard, self._shard_characters = None, self._shard + 1, 0


def count_documents(folder: Path) -> int:
    """How many documents a folder of shards holds; reads no document."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents in a folder of shards, in the order in which they were written; one row group in memory.

    Raises:
        InputError: a shard can't be read or isn't one of ours.
    """
    for path in sorted(folder.glob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["id", "text"])
                    for row in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
                        yield Document(*row)
        except (pa.ArrowException, KeyError) as error:
            raise InputError(f"can't be read as a corpus shard ({error})", where=str(path)) from None
