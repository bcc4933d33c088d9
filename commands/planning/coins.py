"""The coins of soft-masked trainings: tossed as the run will toss them, or their mean where there are too many."""

from functools import cache

from commands.planning.work import Basis
from softmask.training.answers import AnswerCollator, AnswerNoise
from softmask.training.masking import MaskingCollator
from stages.params.model import SoftMaskParams

TOSSED = 500_000
"""Up to so many micro-batches are tossed for: 10 microseconds each."""


def probability(soft_mask: SoftMaskParams | None) -> float:
    """p_sm; 0 for a binary model."""
    return 0.0 if soft_mask is None else soft_mask.p_sm


def tossed(p_sm: float, micro_batches: int) -> bool:
    """Whether these coins are tossed; those that always fall alike need not be."""
    return 0 < p_sm < 1 and micro_batches <= TOSSED


def basis(p_sm: float, micro_batches: int) -> Basis:
    """How sure the number of forwards is."""
    return Basis.EXACT if tossed(p_sm, micro_batches) or p_sm in (0.0, 1.0) else Basis.EXPECTED


class MeanMasking(MaskingCollator):
    """Counts on the mean of its coins."""

    def forwards(self, micro_batches: int) -> int:
        """Expected forward passes of the first `micro_batches` micro-batches."""
        return round(micro_batches * (1 + self._p_sm))


class MeanAnswers(AnswerCollator):
    """Counts on the mean of its coins."""

    def forwards(self, micro_batches: int) -> int:
        """Expected forward passes of the first `micro_batches` micro-batches."""
        return round(micro_batches * (1 + self._p_sm))


class TossedAnswers(AnswerCollator):
    """Remembers how its coins fell: families and arms share them."""

    def forwards(self, micro_batches: int) -> int:
        """Forward passes of the first `micro_batches` micro-batches."""
        return _tossed(self._noise, self._p_sm, micro_batches)


@cache
def _tossed(noise: AnswerNoise, p_sm: float, micro_batches: int) -> int:
    return AnswerCollator(noise, 1, p_sm).forwards(micro_batches)
