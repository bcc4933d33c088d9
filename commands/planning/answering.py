"""How many forwards Dream's decoder takes for one answer, step by step as it goes through its blocks.

The numbers are bounds: an answer is finished when all before its first end token is there, and a threshold unmasks
one position a step at least. Only rows of the head can be more, where a model chooses the mask itself as a token, as an
untrained one does. Knows no model.
"""

from dataclasses import dataclass

from softmask.decoding.dream_kinds import Algorithm, CacheMode
from softmask.decoding.dream_sampling import transfer_share
from softmask.feedback_kinds import FeedbackKind
from stages.params.code.generation import CellParams


@dataclass(frozen=True)
class Answered:
    """Of one answer, at most.

    Args:
        whole: forwards of the whole sequence.
        within: forwards within a block, which read the rest from a cache.
        positions_within: positions that these compute.
        head_rows: rows of the head, where no token that is chosen is the mask.
        most_head_rows: the same, whatever is chosen.
    """

    whole: int
    within: int
    positions_within: int
    head_rows: int
    most_head_rows: int

    @property
    def forwards(self) -> int:
        """All of them."""
        return self.whole + self.within

    def positions(self, context: int) -> int:
        """Positions that the trunk computes for prompt and response of `context` tokens."""
        return self.whole * context + self.positions_within


def answered(
    cell: CellParams, length: int, algorithm: Algorithm, eps: float, feedback: FeedbackKind | None
) -> Answered:
    """What a response of `length` tokens takes.

    Args:
        cell: how it is decoded.
        algorithm, eps: of code.generation.
        feedback: of the model; None: it has no soft mask.
    """
    size = cell.block_length or length
    blocks = length // size
    steps = (cell.steps(length) or length) // blocks
    whole = within = positions = rows = most_rows = 0
    for block in range(blocks):
        masked, beyond = size, length - (block + 1) * size
        for step in range(steps):
            if masked == 0:
                break
            first = block == step == 0
            if cell.cache is CacheMode.NONE or step % (cell.refresh_every or steps) == 0:
                whole, seen, others = whole + 1, beyond, length - size
            else:
                seen = others = 0 if cell.cache is CacheMode.DUAL else beyond
                within, positions = within + 1, positions + size + seen + 1  # 1: the position before, by Dream's shift
            rows += masked + _for_feedback(feedback, masked, seen, first)
            most_rows += size + _for_feedback(feedback, size, others, first)
            masked -= _unmasked(cell, algorithm, masked, step, steps, eps)
    return Answered(whole, within, positions, rows, most_rows)


def _for_feedback(feedback: FeedbackKind | None, masked: int, seen: int, first: bool) -> int:
    """Rows of the head beside those of the block's masks, where the pass has seen so many further masks."""
    if feedback is None:
        return 0
    if feedback is FeedbackKind.TOP_K:
        return seen
    return 0 if first else masked + seen  # full: computed anew when they are fed back


def _unmasked(cell: CellParams, algorithm: Algorithm, masked: int, step: int, steps: int, eps: float) -> int:
    """Positions that a step unmasks, at least."""
    if cell.threshold is not None:
        return 1
    if algorithm is Algorithm.ORIGIN and step < steps - 1:
        return 0  # chance may leave all of them to the last step
    return int((masked * transfer_share(step, steps, eps)).item())
