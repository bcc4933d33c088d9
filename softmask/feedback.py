"""The soft mask: how the guesses of one pass become the input of the next (paper, section 3).

For a position that stays masked, the input embedding is

    x = (1 - lam(p)) m + lam(p) sum_i pi_i v_i,    lam(p) = omega_s sigmoid(omega_a (-H(p) - omega_b))

with the mask's embedding m, token embeddings v_i, and pi the previous pass's probabilities, renormalised over
the top-k or sharpened by a temperature over the full vocabulary. Everything here is on the M masked rows only;
nothing knows of positions, batches or networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from softmask.feedback_kinds import FeedbackKind, Interpolation

EPS = 1e-6
"""Keeps the constrained parameters inside their open ranges (official code)."""
LOG_EPS = 1e-10
"""Inside the entropy's logarithm (official code)."""
NO_PROBABILITY = -1e6
"""Least log-probability under a temperature (official code): the gradient of -inf / temperature would be NaN."""


@dataclass(frozen=True)
class TopKGuesses:
    """The k likeliest tokens that a pass leaves for M masked rows. Detached: the feedback is stop-gradient.

    Args:
        neg_entropy: `[M]`, -H(p) in nats, of the untruncated distribution at temperature 1.
        log_probs: `[M, k]`, of the k likeliest tokens.
        indices: `[M, k]` int64 token ids.
    """

    neg_entropy: Tensor
    log_probs: Tensor
    indices: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "TopKGuesses":
        return TopKGuesses(self.neg_entropy[rows], self.log_probs[rows], self.indices[rows])


@dataclass(frozen=True)
class FullGuesses:
    """The whole distribution of a pass for M masked rows, kept as what it is computed from: no `[M, V]` is stored.

    Args:
        hidden: `[M, H]` detached last hidden states.
        log_probs_of: `[m, H]` -> normalised log-probabilities `[m, V]` of a chunk of rows.
        chunk: rows a chunk.
    """

    hidden: Tensor
    log_probs_of: Callable[[Tensor], Tensor]
    chunk: int

    def __getitem__(self, rows: Tensor | slice) -> "FullGuesses":
        return FullGuesses(self.hidden[rows], self.log_probs_of, self.chunk)


Guesses = TopKGuesses | FullGuesses


def negative_entropy(log_probs: Tensor) -> Tensor:
    """-H(p) in nats over the last dimension: sum p log(p + 1e-10), as the official code writes it."""
    probs = log_probs.exp()
    return (probs * (probs + LOG_EPS).log()).sum(-1)


def top_k_guesses(log_probs: Tensor, k: int) -> TopKGuesses:
    """The k likeliest tokens of normalised `log_probs` `[M, V]`, -inf allowed; k is cut to V."""
    log_probs = log_probs.detach()
    top = log_probs.topk(min(k, log_probs.shape[-1]), dim=-1)
    return TopKGuesses(negative_entropy(log_probs), top.values, top.indices)


def concatenate(parts: list[TopKGuesses]) -> TopKGuesses:
    """The guesses of several chunks of rows, one after the other."""
    return TopKGuesses(
        torch.cat([part.neg_entropy for part in parts]),
        torch.cat([part.log_probs for part in parts]),
        torch.cat([part.indices for part in parts]),
    )


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation: the direction on the arc from `start` to `end`, the length linear between theirs.

    Args:
        start: `[E]` or `[M, E]`, not zero.
        end: `[M, E]`, not zero.
        share: `[M, 1]` in [0, 1]; 0 gives `start`.

    Returns:
        `[M, E]`. Where both point the same or opposite ways there is no arc, and it is the linear interpolation.
    """
    lengths = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    a, b = start / lengths[0], end / lengths[1]
    cosine = (a * b).sum(-1, keepdim=True)
    has_arc = cosine.abs() < 1 - EPS
    angle = torch.acos(torch.where(has_arc, cosine, 0.0))  # the gradient of acos at its ends is infinite
    direction = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    on_arc = torch.lerp(*lengths, share) * direction
    return torch.where(has_arc, on_arc, torch.lerp(start.expand_as(end), end, share))


class SoftMask(nn.Module):
    """The three trained scalars omega_s, omega_a, omega_b (and a temperature), and the mixture they control.

    Parametrisation (official code): omega_s = sigmoid(raw) in (0, 1); omega_a = softplus(raw) + 1e-6 > 0;
    omega_b = -softplus(raw) - 1e-6 < 0; temperature = softplus(raw) + 1e-6 > 0.

    Args:
        omega_s: initial cap on lambda; 0 and 1 are moved 1e-6 inside.
        omega_a: initial slope, > 0.
        omega_b: initial confidence threshold in nats, < 0.
        temperature: initial temperature of full-vocabulary feedback, > 0.
        kind: top-k or full-vocabulary feedback.
        k: how many guesses for top-k.
        interpolation: linear, or spherical.
    """

    def __init__(
        self,
        *,
        omega_s: float,
        omega_a: float,
        omega_b: float,
        temperature: float,
        kind: FeedbackKind,
        k: int,
        interpolation: Interpolation,
    ) -> None:
        super().__init__()
        self.kind, self.k, self.interpolation = kind, k, interpolation
        clipped = min(max(omega_s, EPS), 1 - EPS)
        self.raw_omega_s = nn.Parameter(torch.tensor(math.log(clipped / (1 - clipped))))
        self.raw_omega_a = nn.Parameter(torch.tensor(_inverse_softplus(omega_a - EPS)))
        self.raw_omega_b = nn.Parameter(torch.tensor(_inverse_softplus(-omega_b - EPS)))
        self.raw_temperature = nn.Parameter(torch.tensor(_inverse_softplus(temperature - EPS)))
        self.raw_temperature.requires_grad_(kind is FeedbackKind.FULL)

    @property
    def omega_s(self) -> Tensor:
        """Cap on lambda, in (0, 1)."""
        return torch.sigmoid(self.raw_omega_s)

    @property
    def omega_a(self) -> Tensor:
        """Slope of the gate, > 0."""
        return F.softplus(self.raw_omega_a) + EPS

    @property
    def omega_b(self) -> Tensor:
        """Threshold of the gate in nats of negative entropy, < 0."""
        return -F.softplus(self.raw_omega_b) - EPS

    @property
    def temperature(self) -> Tensor:
        """Temperature of full-vocabulary feedback, > 0."""
        return F.softplus(self.raw_temperature) + EPS

    def omegas(self) -> dict[str, float]:
        """The constrained values, in full precision."""
        names = ("omega_s", "omega_a", "omega_b", "temperature")
        return {name: float(getattr(self, name).detach()) for name in names}

    def lam(self, neg_entropy: Tensor, omega_s_factor: Tensor | float = 1.0) -> Tensor:
        """lambda in [0, 1), any shape (paper, section 3.1), with omega_s scaled by a schedule's factor."""
        return omega_s_factor * self.omega_s * torch.sigmoid(self.omega_a * (neg_entropy - self.omega_b))

    def lam_of(self, guesses: Guesses, omega_s_factor: Tensor | float = 1.0) -> Tensor:
        """lambda `[M]` of `guesses`; full feedback gates on the entropy at its temperature (official code)."""
        if isinstance(guesses, TopKGuesses):
            return self.lam(guesses.neg_entropy, omega_s_factor)
        chunks = guesses.hidden.split(guesses.chunk)
        tempered = (self._tempered(guesses.log_probs_of(chunk)) for chunk in chunks)
        return self.lam(torch.cat([negative_entropy(rows) for rows in tempered]), omega_s_factor)

    def weights(self, guesses: TopKGuesses, omega_s_factor: Tensor | float = 1.0) -> Tensor:
        """`[M, 1 + k]`: with which weights the mask's embedding and those of the guesses make the linear mixture."""
        lam = self.lam(guesses.neg_entropy, omega_s_factor).unsqueeze(-1)
        return torch.cat([1 - lam, lam * F.softmax(guesses.log_probs, dim=-1)], dim=-1)

    def forward(
        self, guesses: Guesses, embedding: Tensor, mask_embedding: Tensor, omega_s_factor: Tensor | float = 1.0
    ) -> Tensor:
        """The soft-masked input embeddings of M masked rows.

        Args:
            guesses: of the previous pass.
            embedding: `[V, E]`, all token embeddings.
            mask_embedding: `[E]`.
            omega_s_factor: a schedule's factor, scalar or `[M]`.

        Returns:
            `[M, E]`.
        """
        if isinstance(guesses, FullGuesses):
            return self._mix_full(guesses, embedding, mask_embedding, omega_s_factor)
        lam = self.lam(guesses.neg_entropy, omega_s_factor).unsqueeze(-1)
        pi = F.softmax(guesses.log_probs, dim=-1).to(embedding.dtype)
        # an embedding bag is the fused gather-and-sum of k rows
        mixture = F.embedding_bag(guesses.indices, embedding, per_sample_weights=pi, mode="sum")
        return self._blend(mask_embedding, mixture, lam)

    def _blend(self, mask_embedding: Tensor, mixture: Tensor, lam: Tensor) -> Tensor:
        if self.interpolation is Interpolation.SPHERICAL:
            return slerp(mask_embedding, mixture, lam)
        return (1 - lam) * mask_embedding + lam * mixture

    def _mix_full(
        self, guesses: FullGuesses, embedding: Tensor, mask_embedding: Tensor, omega_s_factor: Tensor | float
    ) -> Tensor:
        def mix(hidden: Tensor, factor: Tensor) -> Tensor:
            with torch.no_grad():
                log_probs = guesses.log_probs_of(hidden)
            tempered = self._tempered(log_probs)
            lam = self.lam(negative_entropy(tempered), factor).unsqueeze(-1)
            return self._blend(mask_embedding, tempered.exp().to(embedding.dtype) @ embedding, lam)

        factors = torch.as_tensor(omega_s_factor, device=guesses.hidden.device).expand(len(guesses.hidden))
        chunks = zip(guesses.hidden.split(guesses.chunk), factors.split(guesses.chunk), strict=True)
        # recomputed in the backward pass: kept, the chunks would add up to [M, V]
        mixed = [checkpoint(mix, hidden, factor, use_reentrant=False) for hidden, factor in chunks]
        return torch.cat(mixed) if mixed else guesses.hidden.new_zeros(0, embedding.shape[-1])

    def _tempered(self, log_probs: Tensor) -> Tensor:
        return F.log_softmax(log_probs.clamp(min=NO_PROBABILITY) / self.temperature, dim=-1)


def _inverse_softplus(value: float) -> float:
    # log(e^v - 1), written so that it does not overflow
    return value + math.log(-math.expm1(-value))
