"""The settings of Dream's decoder, as one frozen value."""

from dataclasses import dataclass

from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.feedback_kinds import OmegaSchedule


@dataclass(frozen=True)
class DreamDecoding:
    """How to decode.

    Args:
        algorithm: what decides where a step unmasks.
        steps: of the whole response, dealt evenly to its blocks, so that each block runs the official schedule over
            its share; the real number of forwards, unless a sequence finishes early. None with a threshold: as many
            as it takes.
        threshold: a step unmasks every position whose token has a larger probability (at temperature 1, not
            truncated), and one at least, the likeliest first whatever the algorithm (Fast-dLLM's rule). With `steps`
            it unmasks these or what the schedule says, whichever is more. None: what `steps` says.
        temperature, top_p, top_k: of the tokens; feedback sees the distribution without them.
        alg_temp: positions are drawn with softmax(confidence / alg_temp). None and 0 take the surest; so does a
            threshold.
        eps: time of the last step (official schedule).
        omega_schedule: of omega_s over the share of the response that is still masked.
        eos_rule: where end tokens may come.
        end_ids: the end tokens.
        stop_at_end: a sequence has finished when nothing before its first end token is masked; the masks after that
            become the same end token.
        cache: which keys and values stand still within a block.
        block_length: a divisor of the response length; blocks are decoded from the left. None: one block.
        refresh_every: steps from one whole forward to the next within a block; None: only at its start.
        head_chunk: rows a chunk of the head.
    """

    algorithm: Algorithm
    steps: int | None
    threshold: float | None
    temperature: float
    top_p: float | None
    top_k: int | None
    alg_temp: float | None
    eps: float
    omega_schedule: OmegaSchedule
    eos_rule: EosRule
    end_ids: tuple[int, ...]
    stop_at_end: bool
    cache: CacheMode
    block_length: int | None
    refresh_every: int | None
    head_chunk: int

    def __post_init__(self) -> None:
        if self.steps is None and self.threshold is None:
            raise ValueError("neither steps nor threshold is given; expected one of them, or both")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected 1 and more")
        if self.algorithm is Algorithm.ORIGIN and (self.threshold is not None or self.eos_rule is EosRule.LAST):
            raise ValueError(
                "'origin' has no confidence; expected another algorithm for a threshold or end tokens last"
            )

    def blocks(self, response_length: int) -> list[slice]:
        """The blocks of a response, from the left; ValueError where they don't fit."""
        length = self.block_length or response_length
        if response_length % length:
            raise ValueError(f"block_length {length} is no divisor of the response length {response_length}")
        blocks = [slice(start, start + length) for start in range(0, response_length, length)]
        if self.steps is not None and self.steps % len(blocks):
            raise ValueError(f"{self.steps} steps are not the same number for each of {len(blocks)} blocks")
        return blocks
