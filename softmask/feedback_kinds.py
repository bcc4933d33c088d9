"""The choices of soft-masking, without torch, so that parameters can be checked quickly."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class FeedbackKind(StrEnum):
    """Which guesses are fed back."""

    TOP_K = "top_k"
    FULL = "full"


class Interpolation(StrEnum):
    """How the mask's embedding and the guesses' mixture are blended."""

    LINEAR = "linear"
    """(1 - lambda) m + lambda v (the paper)."""
    SPHERICAL = "spherical"
    """Along the arc from m's direction to v's, with a length between theirs (later work's idea, not the paper's)."""


class OmegaSchedule(StrEnum):
    """How omega_s changes over decoding (paper, Table 12), by the fraction of positions still masked."""

    CONSTANT = "constant"
    LINEAR = "linear"
    STEPWISE = "stepwise"

    def factor(self, masked_fraction: "Tensor") -> "Tensor":
        """What omega_s is multiplied by, in [0, 1], for `masked_fraction` in [0, 1], any shape."""
        if self is OmegaSchedule.LINEAR:
            return masked_fraction
        if self is OmegaSchedule.STEPWISE:
            return (masked_fraction > 0.5).to(masked_fraction.dtype)
        return masked_fraction.new_ones(masked_fraction.shape)
