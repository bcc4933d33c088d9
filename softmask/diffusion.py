"""Masked diffusion (MDLM): noise schedule, masking, the SUBS parameterisation and the per-token NLL.

Symbols as in the MDLM paper: a token is masked at time t with probability 1 - alpha_t; log-linear noise has
alpha_t = 1 - (1 - eps) t. Knows nothing of networks beyond "a head that gives logits for rows".
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PIECE = 2**19
"""Numbers a piece: 2 MiB in float32."""
Head = Callable[[Tensor], Tensor]
"""Hidden rows `[m, H]` -> logits `[m, V]`."""


class LogLinear:
    """Log-linear noise: alpha_t = 1 - (1 - eps) t (MDLM, section 3.4)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is still unmasked at time t."""
        return 1 - (1 - self.eps) * t

    def dalpha(self, t: Tensor) -> Tensor:
        """Time derivative of alpha_t."""
        return -(1 - self.eps) * torch.ones_like(t)

    def nll_weight(self, t: Tensor) -> Tensor:
        """-alpha'_t / (1 - alpha_t), the weight of cross entropy in the continuous-time ELBO; here 1 / t."""
        return -self.dalpha(t) / (1 - self.alpha(t))


def antithetic_t(u: Tensor, sampling_eps: float) -> Tensor:
    """Low-discrepancy times: one per sequence, spread evenly over (sampling_eps, 1].

    Args:
        u: `[B]` uniform in [0, 1).
        sampling_eps: the smallest time.

    Returns:
        `[B]`; entry i lies in the i-th of B equal parts of the range (MDLM, antithetic sampling).
    """
    n = len(u)
    offset = torch.arange(n, device=u.device, dtype=u.dtype) / n
    return (1 - sampling_eps) * ((u / n + offset) % 1) + sampling_eps


def mask_tokens(x0: Tensor, move_chance: Tensor, uniform: Tensor, mask_token_id: int) -> Tensor:
    """x_t: each token of `x0` `[B, L]` is masked where `uniform` `[B, L]` < `move_chance` `[B, 1]` = 1 - alpha_t."""
    return torch.where(uniform < move_chance, mask_token_id, x0)


def subs_log_probs(logits: Tensor, mask_token_id: int) -> Tensor:
    """The SUBS parameterisation on masked rows: the mask token has no probability (MDLM, section 3.2.3).

    The other half of SUBS, that unmasked tokens stay, needs no computation: those rows are never asked for.

    Args:
        logits: `[m, V]`.
        mask_token_id: the mask token.

    Returns:
        `[m, V]` float32 normalised log-probabilities, -inf at the mask token.
    """
    logits = logits.float()
    column = torch.tensor(mask_token_id, device=logits.device)
    return F.log_softmax(logits.index_fill(-1, column, float("-inf")), dim=-1)


def pieces(rows: Tensor) -> tuple[Tensor, ...]:
    """`rows` `[m, V]` in pieces that stay in a CPU's cache; elsewhere in one piece.

    What is computed of them needs several temporaries of their size, which are fast only in memory that is still warm
    (entropies of 256 rows of GPT-2's vocabulary: 0.02 s in pieces of 10 rows, 0.1 s in one; of 512 rows of Dream's:
    0.13 s in pieces of 4 rows, 1.0 s in one of 64 or 512).
    """
    if rows.device.type != "cpu":
        return (rows,)
    parts: tuple[Tensor, ...] = rows.split(max(1, PIECE // rows.shape[-1]))
    return parts


@torch.no_grad()
def log_prob_chunks(hidden: Tensor, head: Head, mask_token_id: int, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """`(rows, log_probs [m, V])` over all of `hidden` `[M, H]`, without gradients: the head in chunks, its output in
    pieces, each the same as `subs_log_probs` gives."""
    start = 0
    for part in hidden.split(chunk):
        logits = head(part).float()
        logits[:, mask_token_id] = float("-inf")
        for piece in pieces(logits):
            yield slice(start, start + len(piece)), F.log_softmax(piece, dim=-1)
            start += len(piece)


class _ChunkedNll(torch.autograd.Function):
    """sum_i w_i NLL_i and the NLLs, with the gradients of hidden, weight and bias made chunk by chunk in the forward.

    Plain autograd would keep every chunk's logits for the backward pass, together `[M, V]`. A frozen weight gets none.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        w: Tensor,
        mask_id: int | None,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        needs = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs[0] else None
        grad_weight = torch.zeros_like(weight) if needs[1] else None
        grad_bias = torch.zeros_like(bias) if needs[2] and bias is not None else None
        compute = hidden.dtype
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = F.linear(hidden[rows], weight.to(compute), None if bias is None else bias.to(compute)).float()
            if mask_id is not None:
                logits[:, mask_id] = float("-inf")
            log_z = torch.logsumexp(logits, dim=-1, keepdim=True)
            nll[rows] = (log_z - logits.gather(-1, targets[rows, None])).squeeze(-1)
            if not any(needs):
                continue
            dlogits = logits.sub_(log_z).exp_()
            dlogits.scatter_add_(-1, targets[rows, None], dlogits.new_full((len(dlogits), 1), -1.0))
            dlogits = dlogits.mul_(w[rows, None]).to(compute)
            if grad_hidden is not None:
                grad_hidden[rows] = dlogits @ weight.to(compute)
            if grad_weight is not None:
                if compute == weight.dtype:
                    grad_weight.addmm_(dlogits.T, hidden[rows])
                else:
                    grad_weight += (dlogits.T @ hidden[rows]).to(weight.dtype)
            if grad_bias is not None:
                grad_bias += dlogits.sum(0).to(grad_bias.dtype)
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(nll)
        return (w * nll).sum(), nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        scale = grads[0]
        made = [None if grad is None else grad.mul_(scale.to(grad.dtype)) for grad in ctx.grads]
        ctx.grads = None
        return (*made, None, None, None, None)


def weighted_nll(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    w: Tensor,
    mask_token_id: int | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of M masked rows, in chunks, with exact gradients and no `[M, V]` kept.

    Args:
        hidden: `[M, H]` rows that enter the head's linear layer.
        weight: `[V, H]`, bias: `[V]` of that layer, or None where it has none.
        targets: `[M]` int64.
        w: `[M]` float32 weights, such as 1 / t.
        mask_token_id: has no probability, as SUBS wants it; None leaves it one, as Dream does.
        chunk: rows a chunk.

    Returns:
        `sum_i w_i NLL_i`, differentiable, and the `[M]` float32 NLLs in nats, not differentiable.
    """
    if not torch.is_grad_enabled():  # a Function sees that parameters require gradients, and would make them
        hidden, weight = hidden.detach(), weight.detach()
        bias = None if bias is None else bias.detach()
    total, nll = _ChunkedNll.apply(hidden, weight, bias, targets, w, mask_token_id, chunk)  # type: ignore[no-untyped-call]
    return total, nll
