"""`code.finetuning`, `code.arms` and a family's base training: how Dream models are trained on answers."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from runner.section import Section, Seed
from softmask.loss_kinds import Normalisation
from stages.params.arms import ArmParams, Budget, name_problems
from stages.params.training import RunParams


class Schedule(StrEnum):
    """The learning rate after its linear warm-up."""

    CONSTANT = "constant_with_warmup"
    COSINE = "cosine"


class AnswerNoiseParams(Section):
    """How answers are masked in training and in the evaluation loss."""

    t_low: float = Field(gt=0, lt=1)
    """Smallest t in training."""
    t_high: float = Field(gt=0, le=1)
    """Largest t in training."""
    extra_pads: int = Field(ge=0)
    """Up to so many end tokens are put behind an answer in training, and scored."""
    multiple_of: int = Field(ge=1)
    """Lengths are rounded up to a multiple of it, with further end tokens."""
    normalisation: Normalisation
    """What a sequence's sum of cross entropy / t is divided by."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from _time_problems(self.t_low, self.t_high)


class AnswerEvaluationParams(Section):
    """The evaluation loss: fixed chats at fixed times with fixed masks."""

    examples: int = Field(ge=1)
    """Validation chats, the first ones."""
    batch_size: int = Field(ge=1)
    """Chats a forward pass."""
    t_low: float = Field(gt=0, lt=1)
    """First time of the grid."""
    t_high: float = Field(gt=0, le=1)
    """Last time of the grid."""
    seed: Seed
    """Of the masks."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from _time_problems(self.t_low, self.t_high)


def _time_problems(t_low: float, t_high: float) -> Iterator[str]:
    if t_high < t_low:
        yield f"t_high {t_high} is below t_low {t_low}; expected at least that"


class AnswerTrainingParams(RunParams):
    """One training run on answers."""

    schedule: Schedule
    """Learning rate after the warm-up."""
    noise: AnswerNoiseParams
    length_window: int = Field(ge=1)
    """Micro-batches that are sorted together by length, so that a batch has little padding; 1: none."""
    gradient_checkpointing: bool
    """Activations are made again in the backward pass: less memory, more time."""
    evaluate_every: int = Field(ge=1)
    """Steps between two evaluations; the weights with the lowest evaluation loss are kept."""
    evaluation: AnswerEvaluationParams


class AdapterParams(Section):
    """The adapter that is finetuned."""

    rank: int = Field(ge=1)
    """Rank of LoRA's matrices."""
    alpha: int = Field(ge=1)
    """LoRA's alpha."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout before LoRA's matrices."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Names of the linear layers that get one."""
    dora: bool
    """Weight-decomposed (DoRA)."""


class FinetuningParams(Section):
    """What all arms share."""

    training: AnswerTrainingParams
    adapter: AdapterParams


class CodeArmsParams(Section):
    """The arms of the code study."""

    names: list[str] = Field(min_length=1)
    """Which of the settings run."""
    settings: dict[str, ArmParams]
    """The arms by name."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from name_problems(self.names, self.settings, "code.arms.settings")
        for name in self.names:
            if name in self.settings and self.settings[name].budget is Budget.NONE:
                yield (
                    f"settings.{name}.budget 'none' is for arms of the language study; expected a finetuning's budget "
                    "(for training-free feedback on a Dream base: python -m commands.evaluate_adapter)"
                )
