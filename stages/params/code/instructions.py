"""`code.settings.FAMILY.instructions`: where a family's chats come from. `code.instructions`: what is kept of them."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from runner.section import Commit, Section, Seed

Text = Annotated[str, Field(min_length=1)]


class InstructionSource(StrEnum):
    """Where chats come from."""

    MICRO = "micro"
    """The problems of the stages `micro` and `arithmetic`, asked as the models are asked later."""
    TULU3_SMOLTALK = "tulu3_smoltalk"
    """Dream's in the paper: two sets of the hub, concatenated."""
    LING_CODER = "ling_coder"
    """Dream-Coder's in the paper: one set of the hub."""
    FILES = "files"
    """The user's own chats."""


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class ChatTemplateParams(Section):
    """How a problem is asked; the same as in code.generation.tasks."""

    instruction: Text
    """The user's message; {request}, {prompt} and {signature} stand for the problem's."""
    prefill: str
    """How the answer begins. It is part of the prompt, and nothing is learnt on it; with the same placeholders."""


class ArithmeticChatsParams(ChatTemplateParams):
    """Chats of arithmetic problems."""

    count: int = Field(ge=0)
    """So many of the stage `arithmetic`'s training problems, the first ones."""


class MicroChatsParams(ChatTemplateParams):
    """Chats of all micro training problems, and of arithmetic ones."""

    arithmetic: ArithmeticChatsParams


class ChatFieldsParams(Section):
    """Where a record keeps its messages."""

    messages: Text
    """Field with the list of messages, each with `role` and `content`."""
    roles: dict[str, Role] = Field(min_length=1)
    """What a record calls a role -> the role. The last message must be the assistant's."""


class ChatHubParams(ChatFieldsParams):
    """A set of chats of the Hugging Face hub, or a local folder in its layout."""

    path: Text
    """`owner/name`, or the path of a local folder with the same files (then `revision` says what it is a copy of)."""
    config: str | None
    """Configuration of the dataset; null: its only one."""
    split: Text
    """Split that is read."""
    revision: Commit
    """Commit of the dataset: 40 hex digits, no branch name."""


class ChatFilesParams(ChatFieldsParams):
    """The user's own chats."""

    paths: tuple[Text, ...] = Field(min_length=1)
    """Globs of .jsonl and .parquet files, one chat a record. DVC watches the folder `data/chats/`: what lies elsewhere
    is read too, but a change there is not noticed."""


class InstructionSourceParams(Section):
    """A family's chats. `source` says which of the sub-sections is used."""

    source: InstructionSource
    """Where chats come from."""
    micro: MicroChatsParams | None
    """micro: how the problems are asked."""
    hub: tuple[ChatHubParams, ...]
    """tulu3_smoltalk, ling_coder: the sets, concatenated."""
    files: ChatFilesParams | None
    """files: where they lie."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.source is InstructionSource.MICRO and self.micro is None:
            yield "source 'micro' with micro null is impossible; expected how the problems are asked"
        if self.source is InstructionSource.FILES and self.files is None:
            yield "source 'files' with files null is impossible; expected paths, messages and roles"
        sets = {InstructionSource.TULU3_SMOLTALK: 2, InstructionSource.LING_CODER: 1}.get(self.source)
        if sets is not None and len(self.hub) != sets:
            yield f"source '{self.source}' with {len(self.hub)} sets in hub is impossible; expected {sets}"


class InstructionsParams(Section):
    """What is kept of the chats; the same for all families."""

    seed: Seed
    """Of the order in which chats are taken."""
    validation_examples: int = Field(ge=1)
    """Chats for the evaluation loss: the first ones in that order."""
    max_examples: int | None = Field(ge=1)
    """Training chats at most: the next ones; null: all. Those too long or too short for training count too."""
    drop_tool_calls: bool
    """Whether chats with tool calls are left out."""
    tool_call_markers: tuple[Text, ...]
    """A chat has tool calls if one of these stands in a message, or if its record has some beside its text."""
    max_length: int = Field(ge=2)
    """Chats of more tokens, prompt and response, are left out."""
    min_response_tokens: int = Field(ge=1)
    """Responses of fewer tokens, their end token among them, are left out."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.min_response_tokens >= self.max_length:
            yield (
                f"min_response_tokens {self.min_response_tokens} with max_length {self.max_length} leaves no chat; "
                "expected less than max_length"
            )
