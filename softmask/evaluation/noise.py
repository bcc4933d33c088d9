"""The noise of an evaluation: t and masks depend on the seed, the draw and the row alone, the same for all models."""

import torch
from torch import Tensor

from softmask.diffusion import LogLinear, antithetic_t, mask_tokens
from softmask.seeds import mix_seed

TIMES, MASKS = 11, 12


class EvaluationNoise:
    """The common t and masks of an evaluation.

    Args:
        seed: the evaluation seed.
        rows: N, rows evaluated; each draw spreads t evenly over them, in an order of its own.
        noise: the schedule.
        sampling_eps: smallest t.
        mask_token_id: the mask token.
    """

    def __init__(self, *, seed: int, rows: int, noise: LogLinear, sampling_eps: float, mask_token_id: int) -> None:
        self._seed, self._rows, self.noise = seed, rows, noise
        self._sampling_eps, self._mask_token_id = sampling_eps, mask_token_id

    def t(self, draw: int) -> Tensor:
        """`[N]` float32, the time of each row in this draw."""
        generator = torch.Generator().manual_seed(mix_seed(self._seed, TIMES, draw))
        t = antithetic_t(torch.rand(self._rows, generator=generator), self._sampling_eps)
        return t[torch.randperm(self._rows, generator=generator)]

    def x_t(self, draw: int, first_row: int, x0: Tensor, t: Tensor) -> Tensor:
        """The masked `[B, L]` of rows `first_row`...; `t` `[B]` is theirs."""
        uniform = torch.stack([self._uniform(draw, first_row + i, x0.shape[1]) for i in range(len(x0))])
        return mask_tokens(x0, 1 - self.noise.alpha(t)[:, None], uniform, self._mask_token_id)

    def _uniform(self, draw: int, row: int, length: int) -> Tensor:
        seed = mix_seed(self._seed, MASKS, draw, row)
        return torch.rand(length, generator=torch.Generator().manual_seed(seed))
