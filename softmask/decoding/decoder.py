"""Unconditional generation with MDLM: from all masks to text, with or without feedback.

One forward gives a step's tokens and, for a soft-masked model, the guesses that the next forward is fed with. The
head runs only on positions that unmask now and, with feedback, on those still masked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.sampling import sample_tokens
from softmask.decoding.transitions import RemdmSettings, times, transition
from softmask.diffusion import log_prob_chunks
from softmask.feedback import FullGuesses, Guesses, TopKGuesses, concatenate, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, OmegaSchedule


@dataclass(frozen=True)
class DecodingSettings:
    """How to decode.

    Args:
        sampler: the reverse process.
        nfe: nominal steps.
        nucleus_p, temperature: of the sampling distribution only; feedback sees the unfiltered one at temperature 1.
        refresh: when forwards are made.
        remask_feedback: what feeds re-masked positions.
        omega_schedule: of omega_s over the masked fraction.
        feedback_from, feedback_until: the part of the steps that have feedback, as fractions of all; the others are
            binary (paper, Table 11). The final argmax belongs to the last step.
        remdm: ReMDM's parameters.
        final_t: the time of the last step.
        final_argmax: fill what is still masked after it with the likeliest tokens (noise removal).
        head_chunk: rows a chunk of the head.
    """

    sampler: Sampler
    nfe: int
    nucleus_p: float
    temperature: float
    refresh: Refresh
    remask_feedback: RemaskFeedback
    omega_schedule: OmegaSchedule
    feedback_from: float
    feedback_until: float
    remdm: RemdmSettings
    final_t: float
    final_argmax: bool
    head_chunk: int

    def feeds_back(self, step: int) -> bool:
        """Whether step 0 to nfe - 1 has feedback."""
        return self.feedback_from <= step / self.nfe < self.feedback_until

    def keeps_guesses(self, step: int) -> bool:
        """Whether a later step, or the final argmax, has feedback that step 0 to nfe - 1 may leave the guesses for."""
        return min(step + 1, self.nfe - 1) / self.nfe < self.feedback_until


@dataclass(frozen=True)
class StepView:
    """What an observer sees after a step.

    Args:
        t: time before the step; the final argmax has the last time.
        tokens: `[B, L]` after the step.
        unmasked: `[B, L]` bool, what this step unmasked.
        guesses: for the masks in `tokens`, row-major, or None where nothing is fed back.
        lam: `[M]` lambda of those masks, or None.
    """

    t: float
    tokens: Tensor
    unmasked: Tensor
    guesses: Guesses | None
    lam: Tensor | None


Observer = Callable[[StepView], None]


@dataclass(frozen=True)
class Generated:
    """Tokens `[B, L]` int64, real forward passes `[B]` int64, and head rows computed (for the cost)."""

    tokens: Tensor
    forwards: Tensor
    head_rows: int


@torch.no_grad()
def generate(
    model: Mdlm,
    settings: DecodingSettings,
    batch: int,
    length: int,
    generator: torch.Generator,
    observer: Observer | None = None,
) -> Generated:
    """Generate `batch` sequences of `length` tokens.

    Args:
        model: in eval mode; its soft mask, if any, is used.
        generator: a CPU generator; the same state gives the same tokens.
        observer: called after every step.
    """
    run = Run(model, settings, batch, length, generator)
    for step, (t, dt) in enumerate(times(settings.nfe, settings.final_t)):
        run.step(step, t, dt)
        if observer is not None:
            observer(run.view(t))
    if settings.final_argmax:
        run.remove_noise()
        if observer is not None:
            observer(run.view(settings.final_t))
    return Generated(run.x, run.forwards, run.head_rows)


class Run:
    """The state of one batch: tokens, the last forward's hidden states, and the guesses to feed back."""

    def __init__(
        self, model: Mdlm, settings: DecodingSettings, batch: int, length: int, generator: torch.Generator
    ) -> None:
        self.model, self.settings, self.generator = model, settings, generator
        self.mask_id, self._chunk = int(model.config.mask_token_id), settings.head_chunk
        device = model.device
        self.x = torch.full((batch, length), self.mask_id, device=device)
        self._feeds_back = self._keeps_guesses = False
        self.forwards = torch.zeros(batch, dtype=torch.long, device=device)
        self.head_rows = 0
        self.unmasked = torch.zeros_like(self.x, dtype=torch.bool)
        self._stale = torch.ones(batch, dtype=torch.bool, device=device)
        self._hidden = torch.zeros(batch, length, model.config.hidden_size, device=device, dtype=model.dtype)
        soft_mask = model.soft_mask
        self._two_pass = soft_mask is not None and settings.sampler is Sampler.MDLM_TWO_PASS
        self._carries = soft_mask is not None and not self._two_pass
        self._top_k = soft_mask is not None and soft_mask.kind is FeedbackKind.TOP_K
        k = min(soft_mask.k, int(model.config.vocab_size)) if soft_mask is not None and self._top_k else 1
        self._known = torch.zeros_like(self.unmasked)  # where there is a guess to feed back
        self._indices = torch.zeros(batch, length, k, dtype=torch.long, device=device)
        self._log_probs = torch.zeros(batch, length, k, device=device)
        self._neg_entropy = torch.zeros(batch, length, device=device)

    def step(self, step: int, t: float, dt: float) -> None:
        """One step of the reverse process from t to t - dt."""
        self._feeds_back = self.settings.feeds_back(step)
        self._keeps_guesses = self._carries and self.settings.keeps_guesses(step)
        change = transition(self.settings.sampler, t, dt, self.settings.remdm)
        uniform = torch.rand(self.x.shape, generator=self.generator, dtype=torch.float64).to(self.x.device)
        masked = self.x == self.mask_id
        unmask, remask = masked & (uniform < change.unmask), ~masked & (uniform < change.remask)
        self._advance(self._rows_to_compute(unmask), unmask, self._sample)
        self._remask(remask)
        self._stale |= remask.any(1)

    def _sample(self, log_probs: Tensor) -> Tensor:
        return sample_tokens(log_probs, self.settings.nucleus_p, self.settings.temperature, self.generator)

    def remove_noise(self) -> None:
        """Fill what is still masked with the likeliest tokens; one more forward for the sequences that need it."""
        masked = self.x == self.mask_id
        self._advance(masked.any(1) & self._stale, masked, lambda log_probs: log_probs.argmax(-1))

    def view(self, t: float) -> StepView:
        """What the observer sees now."""
        masked = self.x == self.mask_id
        guesses = self._guesses(masked) if self._carries and bool(masked.any()) else None
        lam = None
        if guesses is not None and self.model.soft_mask is not None:
            lam = self.model.soft_mask.lam_of(guesses, self._factor(masked))
        return StepView(t, self.x.clone(), self.unmasked.clone(), guesses, lam)

    def _rows_to_compute(self, unmask: Tensor) -> Tensor:
        if self.settings.refresh is Refresh.ALWAYS:
            return torch.ones_like(self._stale)
        if self.settings.sampler.remasks:
            return self._stale.clone()  # _forward clears it
        # ancestral: between two changes the sequence, and so the distribution, stays the same; the forward can
        # wait until it is needed, without changing the law (the official code also makes one after the last change)
        return self._stale & unmask.any(1)

    def _advance(self, rows: Tensor, unmask: Tensor, choose: Callable[[Tensor], Tensor]) -> None:
        """Forward the sequences `rows` `[B]`, choose tokens for `unmask` `[B, L]`, keep the other masks' guesses."""
        if bool(rows.any()):
            self._forward(rows)
        stay = (self.x == self.mask_id) & rows[:, None] & ~unmask & self._keeps_guesses
        hidden, chosen, kept = self._hidden[unmask], [], []
        takes_token = len(hidden)
        if self._keeps_guesses and self._top_k:  # full feedback is computed anew from the hidden states
            hidden = torch.cat([hidden, self._hidden[stay]])
        for part, log_probs in log_prob_chunks(hidden, self.model.backbone.head, self.mask_id, self._chunk):
            takes = max(0, takes_token - part.start)
            chosen.append(choose(log_probs[:takes]))
            if takes < len(log_probs):
                kept.append(top_k_guesses(log_probs[takes:], self._indices.shape[-1]))
        self.head_rows += len(hidden)
        if kept:
            guesses = concatenate(kept)
            self._indices[stay], self._log_probs[stay] = guesses.indices, guesses.log_probs
            self._neg_entropy[stay] = guesses.neg_entropy
        self._known |= stay
        if chosen:
            self.x[unmask] = torch.cat(chosen)
        self.unmasked = unmask
        self._stale |= unmask.any(1)

    def _forward(self, rows: Tensor) -> None:
        """The hidden states of the sequences `rows` `[B]`, fed with what is known."""
        where = (self.x == self.mask_id) & rows[:, None]
        guesses: Guesses | None = None
        factor: Tensor | float = 1.0
        if self._feeds_back and self._carries and bool(self._known.any()):
            guesses, factor = self._guesses(where), self._factor(where)
        elif self._feeds_back and self._two_pass:
            first = self.model.hidden(self.x[rows])
            guesses = self.model.guesses(first, self._chunk)
            factor = self.settings.omega_schedule.factor(self._masked_fraction()).expand_as(self._neg_entropy)[where]
            self.head_rows += len(first) if self._top_k else 0
            self.forwards[rows] += 1
        if isinstance(guesses, FullGuesses):
            self.head_rows += len(guesses.hidden)  # the mixture computes their distributions anew
        self._hidden[where] = self.model.hidden(self.x[rows], guesses, factor)
        self.forwards[rows] += 1
        self._stale[rows] = False

    def _guesses(self, where: Tensor) -> Guesses:
        if self._top_k:
            return TopKGuesses(self._neg_entropy[where], self._log_probs[where], self._indices[where])
        return FullGuesses(self._hidden[where], self.model.log_probs, self._chunk)

    def _factor(self, where: Tensor) -> Tensor:
        """omega_s's factor for each position of `where`: the schedule's, and 0 where nothing is known yet."""
        return (self.settings.omega_schedule.factor(self._masked_fraction()) * self._known)[where]

    def _masked_fraction(self) -> Tensor:
        return (self.x == self.mask_id).float().mean(1, keepdim=True)

    def _remask(self, remask: Tensor) -> None:
        if not bool(remask.any()):
            return
        tokens = self.x[remask]
        self.x[remask] = self.mask_id
        certain = self.settings.remask_feedback is RemaskFeedback.PREVIOUS_TOKEN and self._top_k
        self._known[remask] = certain
        if certain:
            self._indices[remask] = tokens[:, None].expand(-1, self._indices.shape[-1])
            self._log_probs[remask] = 0.0  # k times the same token: whatever the weights, that token
            self._neg_entropy[remask] = 0.0
