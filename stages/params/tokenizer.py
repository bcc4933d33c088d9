"""`tokenizer`: trained on the corpus, or a pinned one of the hub."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Commit, Section


class TokenizerSource(StrEnum):
    """Where the tokenizer comes from."""

    TRAIN = "train"
    HUB = "hub"


class TokenizerKind(StrEnum):
    """What is trained."""

    CHARACTERS = "characters"
    BPE = "bpe"


BYTES_AND_END = 257
"""Smallest BPE vocabulary: 256 bytes and end-of-text."""
MOST_IDS = 1 << 20


class TrainTokenizerParams(Section):
    """A tokenizer trained on the training documents."""

    kind: TokenizerKind
    """One id a character, or byte-level BPE."""
    vocab_size: int | None = Field(ge=BYTES_AND_END, le=MOST_IDS)
    """BPE: ids in all, without the mask token. characters: null, the text decides."""
    min_count: int = Field(ge=1)
    """characters: rarer ones become the unknown token. BPE: rarer pairs are not merged."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.kind is TokenizerKind.BPE and self.vocab_size is None:
            yield f"vocab_size null with kind 'bpe' is impossible; expected {BYTES_AND_END} or more"
        if self.kind is TokenizerKind.CHARACTERS and self.vocab_size is not None:
            yield f"vocab_size {self.vocab_size} with kind 'characters' is impossible; expected null"


class HubTokenizerParams(Section):
    """A fast tokenizer of the Hugging Face hub."""

    path: str = Field(min_length=1)
    """`owner/name`, or a local folder that holds its tokenizer.json (then `revision` says what it is a copy of)."""
    revision: Commit
    """Commit: 40 hex digits, no branch name."""
    eos_token: str = Field(min_length=1)
    """Its end-of-text token."""


class TokenizerParams(Section):
    """The tokenizer. `source` says which of the sub-sections is used."""

    source: TokenizerSource
    """Where the tokenizer comes from."""
    train: TrainTokenizerParams
    hub: HubTokenizerParams
