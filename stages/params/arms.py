"""`arms`: the continued trainings that are compared."""

import re
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from stages.params.base import Weights
from stages.params.model import SoftMaskParams
from stages.params.section import Section
from stages.params.training import TrainingParams


class Budget(StrEnum):
    """How many optimizer steps an arm gets, from the `steps` that all arms share."""

    SAME_UPDATES = "same_updates"
    """All steps (paper: iso-update)."""
    HALF = "half"
    """Half of them (paper: iso-compute)."""
    EXPECTED_FORWARDS = "expected_forwards"
    """steps / (1 + p_sm): the same expected number of forwards as a binary arm."""


class ArmParams(Section):
    """One arm."""

    budget: Budget
    """Optimizer steps, relative to arms.training.steps."""
    soft_mask: SoftMaskParams | None
    """Soft-masking, or null for the binary control."""

    def steps(self, steps: int) -> int:
        """This arm's optimizer steps."""
        if self.budget is Budget.HALF:
            return max(1, steps // 2)
        if self.budget is Budget.EXPECTED_FORWARDS and self.soft_mask is not None:
            return max(1, round(steps / (1 + self.soft_mask.p_sm)))
        return steps


class ArmTrainingParams(TrainingParams):
    """What all arms share."""

    weights: Weights
    """Averaged or raw weights are evaluated."""
    probe_rows: int = Field(ge=1)
    """Validation rows on which lambda is measured while training."""
    probe_seed: int = Field(ge=0)
    """Seed of the probe's masks."""


class ArmsParams(Section):
    """The arms of the study."""

    names: list[str] = Field(min_length=1)
    """Which of the settings run."""
    training: ArmTrainingParams
    """What all arms share."""
    settings: dict[str, ArmParams]
    """The arms by name."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in self.names:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "base":
                raise ValueError(f"names: {name!r} is no arm's name; expected letters, digits and _, and not 'base'")
            if name not in self.settings:
                raise ValueError(f"names: {name!r} has no settings; expected one of {sorted(self.settings)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names: {self.names} has a repeated name; expected each arm once")
        return self
