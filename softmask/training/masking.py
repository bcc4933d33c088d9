"""The collator of masked diffusion: draws t, the masks and the coin p_sm, each a function of seed and position.

A run that is resumed, accumulated or spread over processes draws the same noise for the same item.
"""

from typing import Any, TypedDict

import torch
from torch import Tensor

from softmask.diffusion import LogLinear, antithetic_t, mask_tokens
from softmask.seeds import mix_seed

TIMES, MASKS, COIN = 1, 2, 3


class MaskedBatch(TypedDict):
    """What the objectives take: `x0`, `x_t` `[B, L]` int64, `t` `[B]` float32, `two_pass`."""

    x0: Tensor
    x_t: Tensor
    t: Tensor
    two_pass: bool


class MaskingCollator:
    """Stream items -> `MaskedBatch`.

    Args:
        mask_token_id: the mask token.
        noise: the schedule.
        sampling_eps: smallest t.
        micro_batch: sequences of a micro-batch over all processes: t is spread evenly over them.
        p_sm: probability of the two-pass step, drawn once a micro-batch, the same on every process.
        seed: of all noise.
    """

    def __init__(
        self, *, mask_token_id: int, noise: LogLinear, sampling_eps: float, micro_batch: int, p_sm: float, seed: int
    ) -> None:
        self._mask_token_id, self._noise, self._sampling_eps = mask_token_id, noise, sampling_eps
        self._micro_batch, self._p_sm, self._seed = micro_batch, p_sm, seed

    def __call__(self, items: list[dict[str, Any]]) -> MaskedBatch:
        x0 = torch.stack([item["input_ids"] for item in items])
        positions = [int(item["position"]) for item in items]
        micro = positions[0] // self._micro_batch
        slots = torch.tensor([position % self._micro_batch for position in positions])
        t = antithetic_t(self._uniform(self._micro_batch, TIMES, micro), self._sampling_eps)[slots]
        uniform = torch.stack([self._uniform(x0.shape[1], MASKS, position) for position in positions])
        x_t = mask_tokens(x0, 1 - self._noise.alpha(t)[:, None], uniform, self._mask_token_id)
        return {"x0": x0, "x_t": x_t, "t": t, "two_pass": self.two_pass(micro)}

    def two_pass(self, micro: int) -> bool:
        """The coin of micro-batch number `micro` of the run."""
        return bool(self._uniform(1, COIN, micro).item() < self._p_sm)

    def forwards(self, micro_batches: int) -> int:
        """Forward passes that the first `micro_batches` micro-batches take."""
        return micro_batches + sum(self.two_pass(micro) for micro in range(micro_batches))

    def _uniform(self, n: int, purpose: int, index: int) -> Tensor:
        return torch.rand(n, generator=torch.Generator().manual_seed(mix_seed(self._seed, purpose, index)))
