"""Records one sample's denoising: what unmasks at each step, and what is fed back for the rest."""

from collections.abc import Callable
from typing import Any

from softmask.decoding.decoder import StepView
from softmask.feedback import TopKGuesses, top_k_guesses


class Trace:
    """An observer for `generate` with a batch of one.

    Args:
        mask_token_id: the mask token.
        guesses: guesses recorded a position, at most as many as are fed back.
        token_of: id -> the token as a person reads it.
    """

    def __init__(self, mask_token_id: int, guesses: int, token_of: Callable[[int], str]) -> None:
        self._mask_token_id, self._guesses, self._token_of = mask_token_id, guesses, token_of
        self.steps: list[dict[str, Any]] = []
        """For each step: `t`, `tokens` (None for a mask), `unmasked` positions, `feedback` of those still masked."""

    def __call__(self, view: StepView) -> None:
        ids = view.tokens[0].tolist()
        self.steps.append(
            {
                "t": round(view.t, 6),
                "tokens": [None if i == self._mask_token_id else self._token_of(i) for i in ids],
                "unmasked": view.unmasked[0].nonzero().flatten().tolist(),
                "feedback": self._feedback(view),
            }
        )

    def _feedback(self, view: StepView) -> list[dict[str, Any]]:
        if view.guesses is None or view.lam is None:
            return []
        guesses = view.guesses
        if not isinstance(guesses, TopKGuesses):
            guesses = top_k_guesses(guesses.log_probs_of(guesses.hidden), self._guesses)
        probabilities = guesses.log_probs.exp()[:, : self._guesses].tolist()
        indices = guesses.indices[:, : self._guesses].tolist()
        positions = (view.tokens[0] == self._mask_token_id).nonzero().flatten().tolist()
        return [
            {
                "position": position,
                "lam": round(lam, 4),
                "guesses": [[self._token_of(i), round(p, 4)] for i, p in zip(ids, ps, strict=True)],
            }
            for position, lam, ids, ps in zip(positions, view.lam.tolist(), indices, probabilities, strict=True)
        ]
