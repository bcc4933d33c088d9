"""A dataset of the Hugging Face hub as a stream of documents. No dataset's own code is ever run."""

from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa

from softmask.errors import InputError, Unavailable
from stages.params.corpus import HubParams
from stages.sources.documents import Document

WHERE = "params.yaml: corpus.hub"


class HubStream:
    """The split as a stream, with the number of documents known beforehand, so that the last ones can be told apart."""

    def __init__(self, params: HubParams) -> None:
        """Open the dataset; nothing is read but its information.

        Raises:
            InputError: the dataset, configuration or split isn't there, or its size isn't known.
        """
        self._params = params
        try:
            self._rows: Any = datasets.load_dataset(
                params.path, params.config, split=params.split, revision=params.revision, streaming=True
            )
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())
            raise Unavailable(
                f"{params.path} (config {params.config}, split {params.split}) can't be opened: {reason}",
                where=WHERE,
                todo="Check path, config, split and revision, and that the hub can be reached",
            ) from None
        self.documents = self._count()

    def _count(self) -> int:
        splits = self._rows.info.splits or {}
        count = self._params.documents
        if count is None and self._params.split in splits:
            count = splits[self._params.split].num_examples
        if not count:
            raise InputError(
                "null, and the dataset has no information on its size",
                where=f"{WHERE}.documents",
                expected="the number of documents in the split",
            )
        if self._params.validation_documents >= count:
            raise InputError(
                f"{self._params.validation_documents} of {count} documents leave no training text",
                where=f"{WHERE}.validation_documents",
                expected=f"fewer than {count}",
            )
        return int(count)

    def __iter__(self) -> Iterator[tuple[Document, bool]]:
        """Documents, and whether each is one of the last `validation_documents`.

        Raises:
            InputError: a record has no text, or the stream has another length than was said.
        """
        first_validation = self.documents - self._params.validation_documents
        read = 0
        for read, record in enumerate(self._records(), start=1):
            if read > self.documents:
                break
            yield self._document(read - 1, record), read > first_validation
        if read != self.documents:
            more = "more" if read > self.documents else f"only {read}"
            raise InputError(
                f"{self.documents} documents were expected and the stream has {more}",
                where=f"{WHERE}.documents",
                expected="the number of documents in the split",
            )

    def _records(self) -> Iterator[dict[str, Any]]:
        number = 0
        rows = iter(self._rows)
        while True:
            try:
                record = next(rows)
            except StopIteration:
                return
            except (OSError, ValueError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
                reason = " ".join(str(error).split())
                raise Unavailable(
                    f"the stream breaks off after record {number}: {reason}",
                    where=self._params.path,
                    todo="Check that the hub can be reached, or the file; then run again",
                ) from None
            number += 1
            yield record

    def _document(self, index: int, record: dict[str, Any]) -> Document:
        text = record.get(self._params.text_field)
        if not isinstance(text, str):
            raise InputError(
                f"the field {self._params.text_field!r} holds {type(text).__name__}",
                where=f"{self._params.path}, record {index + 1}",
                expected=f"text; the record's fields are {sorted(record)}",
            )
        return Document(f"{self._params.split}/{index}", text)
