"""The latest guesses for every response position of a batch, kept from the pass that made them until they are fed back.

With caches a pass sees only some positions, so that guesses of different ages stand side by side.
"""

import torch
from torch import Tensor

from softmask.backbones.dream import DreamModel
from softmask.feedback import FullGuesses, Guesses, SoftMask, TopKGuesses
from softmask.feedback_kinds import FeedbackKind


class KeptGuesses:
    """Guesses of `[B, R]` positions, none at first.

    Args:
        model: computes full-vocabulary guesses anew from their hidden states, and gives the sizes.
        soft_mask: says which kind is kept.
        batch: B.
        length: R.
        chunk: rows a chunk of the head, for full-vocabulary guesses.
    """

    def __init__(self, model: DreamModel, soft_mask: SoftMask, batch: int, length: int, chunk: int) -> None:
        self._model, self._chunk = model, chunk
        self._full = soft_mask.kind is FeedbackKind.FULL
        device = model.device
        self.known = torch.zeros(batch, length, dtype=torch.bool, device=device)
        """`[B, R]` bool, where there are guesses."""
        width = int(model.config.hidden_size) if self._full else 0
        self._hidden = torch.zeros(batch, length, width, dtype=model.dtype, device=device)
        k = 0 if self._full else min(soft_mask.k, int(model.config.vocab_size))
        self._indices = torch.zeros(batch, length, k, dtype=torch.long, device=device)
        self._log_probs = torch.zeros(batch, length, k, device=device)
        self._neg_entropy = torch.zeros(batch, length, device=device)

    def put(self, rows: Tensor, columns: Tensor, guesses: Guesses) -> None:
        """Keep the guesses of the M positions (`rows[i]`, `columns[i]`)."""
        self.known[rows, columns] = True
        if isinstance(guesses, FullGuesses):
            self._hidden[rows, columns] = guesses.hidden
            return
        self._indices[rows, columns], self._log_probs[rows, columns] = guesses.indices, guesses.log_probs
        self._neg_entropy[rows, columns] = guesses.neg_entropy

    def get(self, rows: Tensor, columns: Tensor) -> Guesses:
        """The guesses of M known positions."""
        if self._full:
            return FullGuesses(self._hidden[rows, columns], self._model.log_probs, self._chunk)
        at = (rows, columns)
        return TopKGuesses(self._neg_entropy[at], self._log_probs[at], self._indices[at])
