"""`judge`: the autoregressive model that scores samples, trained on the corpus or fetched from the hub."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Commit, Section, Seed
from stages.params.model import MOST_LAYERS, size_problems
from stages.params.training import TrainingParams


class JudgeSource(StrEnum):
    """Where the judge comes from."""

    TRAIN = "train"
    HUB = "hub"


class TrainJudgeParams(Section):
    """A small causal language model (Llama's blocks), trained on the training rows with a copy of their tokenizer.

    It reads as many tokens at once as a packed row has. Rotary positions and gated MLPs learn much faster than GPT-2's
    blocks at this size: 5.5 against 7.5 perplexity after the same 50 s on one core, on Python sources.
    """

    seed: Seed
    """Initial weights and order of the data."""
    hidden_size: int = Field(ge=4)
    """Width."""
    intermediate_size: int = Field(ge=4)
    """Width inside the gated MLP."""
    n_layers: int = Field(ge=1, le=MOST_LAYERS)
    """Blocks."""
    n_heads: int = Field(ge=1)
    """Attention heads."""
    training: TrainingParams
    """The run."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.hidden_size % (2 * self.n_heads):
            yield (
                f"hidden_size {self.hidden_size} with n_heads {self.n_heads} is impossible; "
                "expected a multiple of 2 x n_heads (rotary positions turn pairs)"
            )
        parameters = self.n_layers * self.hidden_size * (4 * self.hidden_size + 3 * self.intermediate_size)
        sizes = f"hidden_size {self.hidden_size} with intermediate_size {self.intermediate_size}"
        yield from size_problems(parameters, f"{sizes} and n_layers {self.n_layers}")


class HubJudgeParams(Section):
    """A causal language model of the Hugging Face hub, with its tokenizer.json and its weights as safetensors."""

    path: str = Field(min_length=1)
    """`owner/name`, or a local folder with the same files (then `revision` says what it is a copy of)."""
    revision: Commit
    """Commit: 40 hex digits, no branch name."""


class JudgeParams(Section):
    """The judge. `source` says which of the sub-sections is used."""

    source: JudgeSource
    """Where the judge comes from."""
    train: TrainJudgeParams
    """For source: train."""
    hub: HubJudgeParams
    """For source: hub."""
