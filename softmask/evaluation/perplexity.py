"""Validation NLL: the ELBO expression by Monte Carlo, on the binary path and, with a soft mask, on the second pass.

On the second pass it is the bound of the process that makes both passes at every step (two forwards); it is no
likelihood of the sampler that carries feedback over.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.diffusion import log_prob_chunks
from softmask.feedback import concatenate, negative_entropy, top_k_guesses
from softmask.feedback_kinds import FeedbackKind
from softmask.training.elbo import masked_nll


@dataclass(frozen=True)
class BatchNll:
    """Of the M masked positions of a batch, in row-major order: NLLs in nats, and with a soft mask the gate.

    Args:
        binary: `[M]`, first pass.
        two_pass: `[M]`, second pass, or None for a binary model.
        lam: `[M]` lambda fed to the second pass, or None.
        entropy: `[M]` nats, of the first pass.
    """

    binary: Tensor
    two_pass: Tensor | None
    lam: Tensor | None
    entropy: Tensor


@torch.no_grad()
def batch_nll(model: Mdlm, x0: Tensor, x_t: Tensor, head_chunk: int) -> BatchNll:
    """NLLs of the masked positions of `x_t` `[B, L]`: one forward, two with a soft mask."""
    mask_id = int(model.config.mask_token_id)
    masked = x_t == mask_id
    rows, targets = model.hidden(x_t), x0[masked]
    soft_mask = model.soft_mask
    top_k = soft_mask is not None and soft_mask.kind is FeedbackKind.TOP_K
    nll, entropy, kept = [], [], []
    for part, log_probs in log_prob_chunks(rows, model.backbone.head, mask_id, head_chunk):
        nll.append(-log_probs.gather(-1, targets[part, None]).squeeze(-1))
        if soft_mask is not None and top_k:
            kept.append(top_k_guesses(log_probs, soft_mask.k))
        entropy.append(-(kept[-1].neg_entropy if kept else negative_entropy(log_probs)))
    binary, entropies = torch.cat(nll), torch.cat(entropy)
    if soft_mask is None:
        return BatchNll(binary, None, None, entropies)
    guesses = concatenate(kept) if top_k else model.guesses(rows, head_chunk)
    unweighted = torch.ones(len(x0), device=x0.device)
    _, two_pass = masked_nll(model, x0, x_t, unweighted, guesses, head_chunk)
    return BatchNll(binary, two_pass, soft_mask.lam_of(guesses), entropies)


def sum_by_unit(values: Tensor, w: Tensor, masked: Tensor, units: Tensor, n_units: int) -> Tensor:
    """Weighted sums of `values` `[M]` by unit: `[n_units]` float64.

    Args:
        values: of the masked positions.
        w: `[B]` weight of each row, such as 1 / t.
        masked: `[B, L]` bool; units: `[B, L]` int64, the unit of each position.
    """
    weights = w[:, None].expand_as(units)[masked].double().cpu()
    return torch.bincount(units[masked].cpu(), weights=weights * values.double().cpu(), minlength=n_units)
