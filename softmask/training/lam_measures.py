"""What is told of lambda at masked positions: its mean, its spread, and how it follows confidence. Knows no network."""

import torch
from torch import Tensor

from softmask.feedback import FullGuesses, Guesses, negative_entropy


def entropy_of(guesses: Guesses) -> Tensor:
    """Entropy `[M]` in nats of the distributions at temperature 1, float64."""
    if isinstance(guesses, FullGuesses):
        chunks = guesses.hidden.split(guesses.chunk)
        return -torch.cat([negative_entropy(guesses.log_probs_of(chunk)) for chunk in chunks]).double()
    return -guesses.neg_entropy.double()


def lam_measures(lams: Tensor, entropies: Tensor) -> dict[str, float]:
    """lambda's mean, standard deviation, and its mean on the confident and the unsure half; inputs `[M]`."""
    confident = entropies <= entropies.median()
    unsure = lams[~confident]
    return {
        "lam_mean": float(lams.mean()),
        "lam_std": float(lams.std(correction=0)),
        "lam_confident": float(lams[confident].mean()),
        "lam_unsure": float(unsure.mean()) if len(unsure) else float(lams.mean()),
    }
