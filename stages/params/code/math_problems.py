"""Where a set of maths problems comes from: the hub, a local file, or the arithmetic problems that are made here."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Commit, Section


class MathSource(StrEnum):
    """Where a set of maths problems comes from."""

    ARITHMETIC = "arithmetic"
    """The test problems of the stage `arithmetic`."""
    HUB = "hub"
    FILE = "file"


class MathHubParams(Section):
    """A dataset of the Hugging Face hub, or a local folder in its layout."""

    path: str = Field(min_length=1)
    """`owner/name`, or the folder."""
    config: str | None
    """Configuration of the dataset; null: its only one."""
    split: str = Field(min_length=1)
    """Split that is read."""
    revision: Commit
    """Commit of the dataset: 40 hex digits, no branch name."""


class MathFieldsParams(Section):
    """Where a record keeps what a problem needs."""

    request: str = Field(min_length=1)
    """Field with the question."""
    answer: str = Field(min_length=1)
    """Field with the right answer."""
    answer_after: str | None = Field(min_length=1)
    """The answer is what follows the last one of these in its field (GSM8K: "####"); null: the whole field."""
    task_id: str | None = Field(min_length=1)
    """Field with the problem's own name; null: its number."""


class MathSetParams(Section):
    """One set of maths problems. `source` says which of `hub` and `file` is used."""

    source: MathSource
    """Where the problems come from."""
    hub: MathHubParams | None
    """hub: the dataset."""
    file: str | None = Field(min_length=1)
    """file: a .jsonl or .parquet file."""
    fields: MathFieldsParams | None
    """hub, file: where a record keeps what a problem needs."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.source is MathSource.HUB and self.hub is None:
            yield "source 'hub' with hub null is impossible; expected path, config, split and revision"
        if self.source is MathSource.FILE and self.file is None:
            yield "source 'file' with file null is impossible; expected the path of a .jsonl or .parquet file"
        if self.source is not MathSource.ARITHMETIC and self.fields is None:
            yield f"source '{self.source}' with fields null is impossible; expected the names of the fields"
