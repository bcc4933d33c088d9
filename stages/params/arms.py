"""`arms`: the continued trainings that are compared."""

import re
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from pydantic import Field

from runner.section import Section, Seed
from runner.wording import NAME, PATTERNS
from softmask.backbones.passes import BACKWARD
from stages.params.base import Weights
from stages.params.model import SoftMaskParams
from stages.params.training import RunParams, TrainingParams


class Budget(StrEnum):
    """How many optimizer steps an arm gets, from the `steps` that all arms share."""

    SAME_UPDATES = "same_updates"
    """All steps (paper: iso-update)."""
    HALF = "half"
    """Half of them (paper: iso-compute)."""
    EXPECTED_FORWARDS = "expected_forwards"
    """steps / (1 + p_sm): the same expected number of forwards as a binary arm."""
    EXPECTED_FLOPS = "expected_flops"
    """The same expected number of FLOPs as a binary arm, whose steps have the same backward pass."""
    NONE = "none"
    """No training: the base with the soft mask at its initial values (training-free feedback)."""


class ArmParams(Section):
    """One arm."""

    budget: Budget
    """Optimizer steps, relative to arms.training.steps."""
    soft_mask: SoftMaskParams | None
    """Soft-masking, or null for the binary control."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.budget is Budget.NONE and self.soft_mask is None:
            yield "budget 'none' with soft_mask null is the base; expected a soft mask"

    def steps(self, steps: int, backward: int) -> int:
        """This arm's optimizer steps.

        Args:
            steps: that all arms share.
            backward: cost of a step's backward pass, in forwards.
        """
        if self.budget is Budget.NONE:
            return 0
        if self.budget is Budget.HALF:
            return max(1, steps // 2)
        p_sm = 0.0 if self.soft_mask is None else self.soft_mask.p_sm
        if self.budget is Budget.EXPECTED_FORWARDS:
            return max(1, round(steps / (1 + p_sm)))
        if self.budget is Budget.EXPECTED_FLOPS:
            return max(1, round(steps * (1 + backward) / (1 + p_sm + backward)))
        return steps


def name_problems(names: Sequence[str], settings: Collection[str], key: str) -> Iterator[str]:
    """What is wrong with the arms that are to run, one line each.

    Args:
        names: of the arms.
        settings: the arms that there are.
        key: the dotted key of the settings, for the message.
    """
    for name in names:
        if not re.fullmatch(NAME, name) or name == "base":
            yield f"names {name!r} is no arm's name; expected {PATTERNS[NAME]}, and not 'base'"
        elif name not in settings:
            yield f"names {name!r} has no settings; expected a key of {key}: {', '.join(settings)}"
    if len(set(names)) != len(names):
        yield f"names {names} has a repeated name; expected each arm once"


class Arms(Protocol):
    """The arms of a study."""

    @property
    def names(self) -> list[str]:
        """Which of the settings run."""
        ...

    @property
    def settings(self) -> dict[str, ArmParams]:
        """The arms by name."""
        ...


def budget_problems(arms: Arms, key: str, training: RunParams, backward: int) -> Iterator[str]:
    """Which of the arms that run end within the warm-up, one line each.

    Args:
        arms: that run, and their settings.
        key: their section, with its dot, as seen from where the lines are shown.
        training: that all of them share.
        backward: as in `ArmParams.steps`.
    """
    for name in arms.names:
        arm = arms.settings.get(name)
        steps = 0 if arm is None else arm.steps(training.steps, backward)
        if arm is not None and 0 < steps < training.warmup_steps <= training.steps:
            yield (
                f"{key}settings.{name}.budget '{arm.budget}' makes {steps} steps, and warmup_steps is "
                f"{training.warmup_steps}; expected at most as many"
            )


def guess_problems(arms: Arms, key: str, vocabulary: int | None) -> Iterator[str]:
    """Which of the arms that run feed back more guesses than there are, one line each.

    Args:
        arms: that run, and their settings.
        key: their section.
        vocabulary: the model's size of it; None: not known.
    """
    for name in arms.names:
        arm = arms.settings.get(name)
        if vocabulary is not None and arm is not None and arm.soft_mask is not None and arm.soft_mask.k > vocabulary:
            yield (
                f"{key}.settings.{name}.soft_mask.k {arm.soft_mask.k} is more than the {vocabulary} ids of the "
                "vocabulary; expected a few"
            )


class ArmTrainingParams(TrainingParams):
    """What all arms share."""

    weights: Weights
    """Averaged or raw weights are evaluated."""
    probe_rows: int = Field(ge=1)
    """Validation rows on which lambda is measured while training."""
    probe_seed: Seed
    """Seed of the probe's masks."""


class ArmsParams(Section):
    """The arms of the study."""

    names: list[str] = Field(min_length=1)
    """Which of the settings run."""
    training: ArmTrainingParams
    """What all arms share."""
    settings: dict[str, ArmParams]
    """The arms by name."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        yield from name_problems(self.names, self.settings, "arms.settings")
        yield from budget_problems(self, "", self.training, BACKWARD)
