"""The choice of the answers' loss, for parameters and objective alike. Free of torch."""

from enum import StrEnum


class Normalisation(StrEnum):
    """What an item's sum of cross entropy / t is divided by."""

    MASKED = "masked"
    """Its masked positions (official finetuning code): little noise weighs more than in the likelihood's bound."""
    ANSWER = "answer"
    """The positions of its answer: the bound on the likelihood of each of its tokens (MDLM)."""
