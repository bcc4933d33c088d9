"""How a Dream step turns distributions into tokens and confidences, and confidences into positions.

Rows in, decisions out: nothing here knows of models, caches or sequences. Randomness comes in as uniform numbers, so
that the caller decides whose generator they are from.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softmask.decoding.dream_kinds import Algorithm
from softmask.feedback import negative_entropy

TINY = 1e-10
"""Guards the logarithm of Gumbel noise."""


class Choice(NamedTuple):
    """A token for each of m rows, `tokens` `[m]` int64, and the algorithm's `confidence` `[m]` float32 in it."""

    tokens: Tensor
    confidence: Tensor


def choose(
    log_probs: Tensor,
    algorithm: Algorithm,
    temperature: float,
    top_p: float | None,
    top_k: int | None,
    uniform: Tensor | None,
) -> Choice:
    """A token for each row, and how sure the model is of it (Dream's `sample_tokens`).

    Confidences are those of the tempered and truncated distribution, as in the official code: of the chosen token for
    `maskgit_plus`, the difference of the two largest for `topk_margin`, the negative entropy for `entropy`. `origin`
    has none and gets 0.

    Args:
        log_probs: `[m, V]` normalised, -inf allowed.
        algorithm: what is called confidence.
        temperature: 0 takes the likeliest token.
        top_p: nucleus; None and 1 change nothing.
        top_k: likeliest tokens to draw from; None changes nothing.
        uniform: `[m]` float64 in [0, 1), one number a row; None with temperature 0.
    """
    log_probs = truncated(log_probs, temperature, top_p, top_k)
    probs = log_probs.exp()
    if temperature > 0:
        assert uniform is not None, "temperature above 0 needs uniform numbers"
        tokens = draw(probs, uniform)
    else:
        tokens = probs.argmax(-1)
    if algorithm is Algorithm.MASKGIT_PLUS:
        confidence = probs.gather(-1, tokens[:, None]).squeeze(-1)
    elif algorithm is Algorithm.TOPK_MARGIN:
        two = probs.topk(2, dim=-1).values
        confidence = two[:, 0] - two[:, 1]
    elif algorithm is Algorithm.ENTROPY:
        confidence = negative_entropy(log_probs)
    else:
        confidence = probs.new_zeros(len(probs))
    return Choice(tokens, confidence)


def truncated(log_probs: Tensor, temperature: float, top_p: float | None, top_k: int | None) -> Tensor:
    """`log_probs` `[m, V]` with temperature, then nucleus, then top-k, normalised again; -inf where nothing is left.

    The nucleus is the official one: the token that crosses `top_p` belongs to it.
    """
    if temperature > 0:
        log_probs = F.log_softmax(log_probs / temperature, dim=-1)
    if top_p is not None and top_p < 1:
        ordered, indices = log_probs.sort(dim=-1, descending=True)
        before = ordered.exp().cumsum(-1).roll(1, dims=-1)  # of the tokens before each one
        before[:, 0] = 0
        outside = torch.zeros_like(before, dtype=torch.bool).scatter_(-1, indices, before > top_p)
        log_probs = F.log_softmax(log_probs.masked_fill(outside, float("-inf")), dim=-1)
    if top_k is not None and top_k < log_probs.shape[-1]:
        least = log_probs.topk(top_k, dim=-1).values[:, -1:]
        log_probs = F.log_softmax(log_probs.masked_fill(log_probs < least, float("-inf")), dim=-1)
    return log_probs


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Tokens `[m]` of the distributions `probs` `[m, V]`, by inversion in float64: one uniform number a row."""
    cumulative = probs.double().cumsum(-1)
    target = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True)  # right: a token without probability is never drawn
    return tokens.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def transfer_share(step: int, steps: int, eps: float) -> Tensor:
    """The share of a step, 0 to steps - 1, of what is masked before it: 1 - s/t, and 1 at the last step.

    t falls linearly from 1 to `eps` (official code); float32, because its products are cut to whole numbers.
    """
    if step >= steps - 1:
        return torch.ones(())
    times = torch.linspace(1, eps, steps + 1)
    return 1 - times[step + 1] / times[step]


def perturbed(confidence: Tensor, alg_temp: float, uniform: Tensor) -> Tensor:
    """Confidences whose largest n are n draws without replacement from softmax(confidence / alg_temp) (Gumbel top-k).

    Args:
        confidence: `[m]`.
        alg_temp: above 0.
        uniform: `[m]` float64 in [0, 1).
    """
    gumbel = -(TINY - (uniform + TINY).log()).log()
    return confidence.double() / alg_temp + gumbel.to(confidence.device)


def surest(confidence: Tensor, candidates: Tensor, last: Tensor, numbers: Tensor) -> Tensor:
    """The `numbers` surest candidates of each row, the left one of equals.

    Args:
        confidence: `[A, n]`, read at candidates only.
        candidates: `[A, n]` bool.
        last: `[A, n]` bool, candidates that come after all others whatever their confidence.
        numbers: `[A]`, how many; a row with fewer candidates gives them all.

    Returns:
        `[A, n]` bool.
    """
    by_confidence = confidence.argsort(dim=-1, descending=True, stable=True)
    group = torch.where(candidates, last.long(), 2).gather(-1, by_confidence)
    order = by_confidence.gather(-1, group.argsort(dim=-1, stable=True))
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return candidates & (rank < numbers[:, None])
