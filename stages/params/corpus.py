"""`corpus`: where the text comes from, how it is split, and what counts as a duplicate."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from runner.section import Commit, Section, Seed


class CorpusSource(StrEnum):
    """Where documents come from."""

    PACKAGE_SOURCES = "package_sources"
    HUB = "hub"
    FILES = "files"


class Drop(StrEnum):
    """Which training documents are dropped because validation has them too."""

    NONE = "none"
    EXACT = "exact"
    EXACT_AND_NEAR = "exact_and_near"


class PackageSourcesParams(Section):
    """The text files of an installed package; one file is one document."""

    package: str = Field(min_length=1)
    """Distribution whose files are read."""
    version: str = Field(min_length=1)
    """Its version; another installed version is an error."""
    include: tuple[str, ...] = Field(min_length=1)
    """Patterns of paths inside site-packages; `*` also matches `/`."""
    exclude: tuple[str, ...]
    """Patterns of paths that are left out."""
    max_characters: int | None = Field(ge=1)
    """Files are taken in the order of their paths' hash; one that would go over this is skipped. null: all."""


class HubParams(Section):
    """A dataset of the Hugging Face hub (or a folder in its layout), streamed."""

    path: str = Field(min_length=1)
    """`owner/name`, or the path of a local folder with the same files (then `revision` says what it is a copy of)."""
    config: str | None
    """Configuration of the dataset; null: its only one."""
    split: str = Field(min_length=1)
    """Split that is read."""
    revision: Commit
    """Commit of the dataset: 40 hex digits, no branch name."""
    text_field: str = Field(min_length=1)
    """Column with the document."""
    documents: int | None = Field(ge=2)
    """Documents in the split; null: as the dataset's own information says. Another count in the stream is an error."""
    validation_documents: int = Field(ge=1)
    """The last so many documents are validation (OpenWebText: 100,000, as MDLM)."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.documents is not None and self.validation_documents >= self.documents:
            yield (
                f"validation_documents {self.validation_documents} leaves no training text; "
                f"expected fewer than documents {self.documents}"
            )


class FilesParams(Section):
    """The user's own text."""

    paths: tuple[Annotated[str, Field(min_length=1)], ...]
    """Globs of .txt (one document a file), .jsonl and .parquet files (one document a record). DVC watches the folder
    `data/texts/`: what lies elsewhere is read too, but a change there is not noticed."""
    text_field: str = Field(min_length=1)
    """Field of a .jsonl record or column of a .parquet file that holds the document."""


class ValidationParams(Section):
    """The split of every source but `hub`."""

    fraction: float = Field(gt=0, lt=1)
    """A document is validation if the hash of its normalised text, read as a number in [0, 1), is below this."""


class DuplicatesParams(Section):
    """Duplicates across the split: dropped from training, counted in the manifest."""

    drop: Drop
    """`exact` compares normalised text; `near` compares sets of word shingles (MinHash, LSH)."""
    threshold: float = Field(gt=0, le=0.9)
    """Estimated Jaccard similarity from which on two documents are near duplicates."""
    permutations: int = Field(ge=32, le=1024)
    """MinHash permutations: the estimate's standard error is about 0.5 / sqrt(permutations)."""
    shingle_words: int = Field(ge=1, le=64)
    """Consecutive words in a shingle."""
    seed: Seed
    """Seed of the permutations."""


class ShardsParams(Section):
    """Size of the Parquet files: bounds memory, here and in every reader."""

    row_group_characters: int = Field(ge=1)
    """A row group ends with the document that reaches this."""
    shard_characters: int = Field(ge=1)
    """A file ends with the row group that reaches this."""


class CorpusParams(Section):
    """The text corpus. `source` says which of the sub-sections is used."""

    source: CorpusSource
    """Where documents come from."""
    package_sources: PackageSourcesParams
    hub: HubParams
    files: FilesParams
    validation: ValidationParams
    duplicates: DuplicatesParams
    shards: ShardsParams

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.source is CorpusSource.FILES and not self.files.paths:
            yield "files.paths [] with source 'files' is impossible; expected at least one glob"
