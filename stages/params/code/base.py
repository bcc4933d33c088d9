"""`code.settings.FAMILY.base`: the Dream model that a family's arms start from, trained here or a published one."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section, Seed
from stages.params.code.finetuning import AnswerTrainingParams
from stages.params.code.published import PublishedParams, Source
from stages.params.model import MOST_LAYERS, size_problems


class DreamShapeParams(Section):
    """Shape of a Dream model that is trained from scratch; its vocabulary is its tokenizer's."""

    hidden_size: int = Field(ge=2)
    """Width of the layers and of the embeddings."""
    intermediate_size: int = Field(ge=1)
    """Width of the gated MLP."""
    n_layers: int = Field(ge=1, le=MOST_LAYERS)
    """Transformer layers."""
    n_heads: int = Field(ge=1)
    """Query heads."""
    n_key_value_heads: int = Field(ge=1)
    """Key and value heads, a divisor of n_heads."""
    max_length: int = Field(ge=1)
    """Longest sequence that it is meant for."""
    rope_theta: float = Field(gt=1)
    """Base of the rotary frequencies."""
    rms_norm_eps: float = Field(gt=0)
    """Of every norm."""
    initializer_range: float = Field(gt=0)
    """Standard deviation of fresh weights."""
    tie_embeddings: bool
    """The head is the embedding."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.hidden_size % (2 * self.n_heads):
            yield (
                f"hidden_size {self.hidden_size} can't be split into {self.n_heads} heads of even width; "
                "expected a multiple of 2 x n_heads"
            )
        if self.n_heads % self.n_key_value_heads:
            yield (
                f"n_key_value_heads {self.n_key_value_heads} with n_heads {self.n_heads} is impossible; "
                "expected a divisor"
            )
        parameters = self.n_layers * self.hidden_size * (2 * self.hidden_size + 3 * self.intermediate_size)
        sizes = f"hidden_size {self.hidden_size} with intermediate_size {self.intermediate_size}"
        yield from size_problems(parameters, f"{sizes} and n_layers {self.n_layers}")


class DreamBaseTrainingParams(AnswerTrainingParams):
    """The training of a base from scratch."""

    muon_learning_rate: float | None = Field(gt=0, le=1)
    """Peak learning rate of the layers' matrices with Muon, beside AdamW for the rest; null: AdamW for everything."""


class DreamBaseParams(Section):
    """The base. `source` says which of the sub-sections is used."""

    source: Source
    """`train` from scratch on the family's instructions, a folder (`path`) or a repository (`hub`)."""
    published: PublishedParams
    seed: Seed
    """train: of the initial weights, data order and noise."""
    model: DreamShapeParams
    """train: its shape."""
    training: DreamBaseTrainingParams
    """train: the run, over all weights."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from self.published.lacking(self.source)
