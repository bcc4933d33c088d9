"""`code.settings.FAMILY.tokenizer`: a family's chat tokenizer, trained on its instructions or a published one."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section
from stages.params.code.published import PublishedParams, Source
from stages.params.tokenizer import MOST_IDS

BYTES_AND_SPECIAL = 260
"""Smallest vocabulary: 256 bytes and four special tokens."""


class TrainChatTokenizerParams(Section):
    """Byte-level BPE on the training chats, split as Qwen's (digits stand alone), with ChatML's special tokens."""

    vocab_size: int = Field(ge=BYTES_AND_SPECIAL, le=MOST_IDS)
    """Ids in all, with the special tokens, which are the last ones."""
    min_count: int = Field(ge=1)
    """Rarer pairs are not merged."""


class ChatTokenizerParams(Section):
    """The chat tokenizer. `source` says which of the sub-sections is used."""

    source: Source
    """`train`, a folder (`path`) or a repository (`hub`)."""
    train: TrainChatTokenizerParams
    published: PublishedParams

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from self.published.lacking(self.source)
