"""Drawing tokens from distributions: nucleus filter and Gumbel-max in float64. Knows nothing of diffusion."""

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-10
"""Guards the logarithm, as in the reference's sampler."""


def nucleus(probs: Tensor, p: float) -> Tensor:
    """Keep the likeliest tokens whose cumulative probability is at most `p`, at least one, renormalised.

    Args:
        probs: `[m, V]` normalised.
        p: in (0, 1]; 1 changes nothing.

    Returns:
        `[m, V]` (reference: ReMDM's and the official code's nucleus filter).
    """
    if p >= 1:
        return probs
    ordered, indices = probs.sort(dim=-1, descending=True)
    keep = ordered.cumsum(-1) <= p
    keep[..., 0] = True
    kept = ordered * keep
    kept /= kept.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter_(-1, indices, kept)


def gumbel_argmax(weights: Tensor, uniform: Tensor) -> Tensor:
    """Exact categorical draws: argmax of w / -log(u) in float64 (lower precision truncates the Gumbel's tail).

    Args:
        weights: `[..., V]` unnormalised, >= 0.
        uniform: `[..., V]` float64 in [0, 1).

    Returns:
        `[...]` int64.
    """
    return (weights.double() / (TINY - (uniform + TINY).log())).argmax(-1)


def sample_tokens(log_probs: Tensor, p: float, temperature: float, generator: torch.Generator) -> Tensor:
    """A token for each row of normalised `log_probs` `[m, V]`, tempered, from the nucleus; `[m]` int64."""
    if temperature != 1:
        log_probs = F.log_softmax(log_probs / temperature, dim=-1)
    probs = nucleus(log_probs.exp(), p)
    uniform = torch.rand(probs.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return gumbel_argmax(probs, uniform.to(probs.device))
