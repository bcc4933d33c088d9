"""MDLM's training and sampling steps the plain way: logits, feedback and noise for all positions at once.

Written as the official code does it (language/algo.py, language/transparency_head.py), for comparison only: the same
numbers as `softmask`'s, from `[B, L, V]` tensors. Works on the weights of a `softmask` model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from softmask.backbones.dit import Mdlm
from softmask.feedback import LOG_EPS

NEG_INFINITY = -1_000_000.0
TINY = 1e-10


@dataclass(frozen=True)
class NaiveGuesses:
    """Feedback of all positions: -H(p) `[B, L]`, and the k likeliest tokens `[B, L, k]` with log-probabilities."""

    neg_entropy: Tensor
    log_probs: Tensor
    indices: Tensor


def embed(model: Mdlm, x_t: Tensor, guesses: NaiveGuesses | None) -> Tensor:
    """Input embeddings `[B, L, H]`: a mixture is made for all positions, and taken by the masked ones."""
    table, mask_id = model.backbone.vocab_embed.embedding, int(model.config.mask_token_id)
    embeddings = F.embedding(x_t, table)
    if guesses is None:
        return embeddings
    assert model.soft_mask is not None, "feedback needs a soft mask"
    pi = guesses.log_probs.softmax(-1)
    mixture = (pi[..., None] * F.embedding(guesses.indices, table)).sum(-2)
    lam = model.soft_mask.lam(guesses.neg_entropy)[..., None]
    return torch.where((x_t == mask_id)[..., None], (1 - lam) * table[mask_id] + lam * mixture, embeddings)


def log_probs_of(model: Mdlm, x_t: Tensor, guesses: NaiveGuesses | None) -> Tensor:
    """Log-probabilities `[B, L, V]` under SUBS, of all positions; those of unmasked ones are one-hot."""
    logits = model.backbone.head(model.backbone.trunk(embed(model, x_t, guesses)))
    mask_id = int(model.config.mask_token_id)
    logits[:, :, mask_id] += NEG_INFINITY
    logits = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    unmasked = x_t != mask_id
    logits[unmasked] = NEG_INFINITY
    logits[unmasked, x_t[unmasked]] = 0.0
    return logits


def feedback(log_probs: Tensor, k: int) -> NaiveGuesses:
    """What is fed back, computed for all positions; cut off from its graph only here."""
    log_probs = log_probs.detach()
    probs = log_probs.exp()
    top = log_probs.topk(k, dim=-1)
    return NaiveGuesses((probs * (probs + LOG_EPS).log()).sum(-1), top.values, top.indices)


def loss(model: Mdlm, x0: Tensor, x_t: Tensor, t: Tensor, two_pass: bool) -> Tensor:
    """Mean over all B x L tokens, in nats; the first pass has a graph, which `feedback` throws away."""
    guesses = None
    if two_pass and model.soft_mask is not None:
        guesses = feedback(log_probs_of(model, x_t, None), model.soft_mask.k)
    nll = -log_probs_of(model, x_t, guesses).gather(-1, x0[:, :, None]).squeeze(-1)
    return (nll / t[:, None]).mean()


def step(
    model: Mdlm, x_t: Tensor, guesses: NaiveGuesses | None, t: float, dt: float, nucleus_p: float
) -> tuple[Tensor, NaiveGuesses | None]:
    """One ancestral step from t to t - dt: the new tokens, and feedback if the model has a soft mask."""
    log_probs = log_probs_of(model, x_t, guesses)
    probs = _nucleus(log_probs.exp(), nucleus_p) * dt
    mask_id = int(model.config.mask_token_id)
    probs[:, :, mask_id] = t - dt
    drawn = _draw(probs)
    soft_mask = model.soft_mask
    left = None if soft_mask is None else feedback(log_probs, soft_mask.k)
    return torch.where(x_t == mask_id, drawn, x_t), left


def _nucleus(probs: Tensor, p: float) -> Tensor:
    ordered, indices = probs.sort(dim=-1, descending=True)
    keep = ordered.cumsum(-1) <= p
    keep[..., 0] = True
    kept = ordered * keep
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter_(-1, indices, kept)


def _draw(probs: Tensor) -> Tensor:
    uniform = torch.rand(probs.shape, dtype=torch.float64)
    return (probs.double() / (TINY - (uniform + TINY).log())).argmax(-1)
