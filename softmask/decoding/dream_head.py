"""From hidden states of masked positions to tokens, confidences and guesses: the head, run once on each row in chunks.

Rows in, rows out; knows nothing of sequences, blocks or caches.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softmask.backbones.dream import DreamModel
from softmask.decoding.dream_kinds import EosRule
from softmask.decoding.dream_sampling import Choice, choose
from softmask.decoding.dream_settings import DreamDecoding
from softmask.feedback import FullGuesses, Guesses, SoftMask, TopKGuesses, concatenate, top_k_guesses
from softmask.feedback_kinds import FeedbackKind


class Reading(NamedTuple):
    """The `choice` for the candidate rows, the `guesses` that all rows leave (None without feedback), and how many
    `head_rows` it took."""

    choice: Choice
    guesses: Guesses | None
    head_rows: int


def read(
    model: DreamModel,
    soft_mask: SoftMask | None,
    hidden: Tensor,
    takes: Tensor,
    first: Tensor,
    uniform: Tensor | None,
    settings: DreamDecoding,
) -> Reading:
    """Choose tokens, and keep what is fed back: the untruncated distribution at temperature 1.

    Args:
        model: whose head it is.
        soft_mask: says which guesses are kept.
        hidden: `[M, H]` shifted hidden states of masked positions.
        takes: `[M]` bool, the N rows that need a token.
        first: `[N]` bool, rows of these that are the first of a response.
        uniform: `[N]` float64 for these rows; None with temperature 0.
        settings: how.
    """
    keeps = soft_mask is not None and soft_mask.kind is FeedbackKind.TOP_K
    rows = hidden if keeps else hidden[takes]  # full-vocabulary guesses are computed when they are fed back
    takes = takes if keeps else takes[takes]
    choices: list[Choice] = []
    kept: list[TopKGuesses] = []
    start = done = 0
    for log_probs in model.log_prob_pieces(rows, settings.head_chunk):
        if keeps and soft_mask is not None:
            kept.append(top_k_guesses(log_probs, soft_mask.k))
        chosen = log_probs[takes[start : start + len(log_probs)]]
        start, part = start + len(log_probs), slice(done, done + len(chosen))
        choices.append(_choose(chosen, first[part], None if uniform is None else uniform[part], settings))
        done = part.stop
    choice = Choice(*(torch.cat(parts) for parts in zip(*choices, strict=True)))
    if keeps:
        return Reading(choice, concatenate(kept), len(rows))
    guesses = None if soft_mask is None else FullGuesses(hidden, model.log_probs, settings.head_chunk)
    return Reading(choice, guesses, len(rows))


def _choose(log_probs: Tensor, first: Tensor, uniform: Tensor | None, settings: DreamDecoding) -> Choice:
    if settings.eos_rule is EosRule.NOT_FIRST and settings.end_ids and bool(first.any()):
        ends = torch.zeros(log_probs.shape[-1], dtype=torch.bool, device=log_probs.device)
        ends[list(settings.end_ids)] = True
        log_probs = F.log_softmax(log_probs.masked_fill(first[:, None] & ends, float("-inf")), dim=-1)
    top_p, top_k = settings.top_p, settings.top_k
    choice = choose(log_probs, settings.algorithm, settings.temperature, top_p, top_k, uniform)
    if settings.threshold is None:
        return choice
    return Choice(choice.tokens, log_probs.gather(-1, choice.tokens[:, None]).squeeze(-1).exp())
