"""Drawing tokens from distributions: nucleus filter and Gumbel-max in float64. Knows nothing of diffusion."""

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-10
"""Guards the logarithm, as in the reference's sampler."""
CANDIDATES = 1024
"""Tokens that are looked for the nucleus in, before all are sorted."""


def nucleus(probs: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens whose cumulative probability is at most `p`, at least one, renormalised.

    Args:
        probs: `[m, V]` normalised.
        p: in (0, 1]; 1 keeps every token.

    Returns:
        Probabilities and token ids, both `[m, n]`, with zeros for what is not kept (reference: ReMDM's and the official
        code's nucleus filter).
    """
    if p >= 1:
        return probs, torch.arange(probs.shape[-1], device=probs.device).expand_as(probs)
    ordered, indices = _likeliest(probs, p)
    keep = ordered.cumsum(-1) <= p
    keep[..., 0] = True
    kept = ordered * keep
    return kept / kept.sum(-1, keepdim=True), indices


def _likeliest(probs: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The tokens in falling order, as many as the nucleus can reach: sorting 50,000 takes longer than a forward."""
    if probs.shape[-1] > CANDIDATES:
        ordered, indices = probs.topk(CANDIDATES, dim=-1)
        if bool((ordered.cumsum(-1)[:, -1] > p).all()):
            return ordered, indices
    ordered, indices = probs.sort(dim=-1, descending=True)
    return ordered, indices


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
    uniform = torch.rand(log_probs.shape, generator=generator, dtype=torch.float64, device=generator.device)
    weights, indices = nucleus(log_probs.exp(), p)
    chosen = gumbel_argmax(weights, uniform.to(indices.device).gather(-1, indices))
    return indices.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
