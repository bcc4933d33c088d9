"""The choices of Dream's decoder, without torch, so that parameters can be checked quickly."""

from enum import StrEnum


class Algorithm(StrEnum):
    """What decides which masked positions a step unmasks (Dream's names)."""

    ORIGIN = "origin"
    """Chance: each masked position with the same probability."""
    MASKGIT_PLUS = "maskgit_plus"
    """The highest probability of the token that was chosen."""
    TOPK_MARGIN = "topk_margin"
    """The largest distance between the two likeliest tokens."""
    ENTROPY = "entropy"
    """The lowest entropy."""


class CacheMode(StrEnum):
    """Which keys and values stand still within a block, from the forward at its start (Fast-dLLM)."""

    NONE = "none"
    """None: every step computes the whole sequence."""
    PREFIX = "prefix"
    """Those before the block; a step computes from the position before the block to the end."""
    DUAL = "dual"
    """Those on both sides; a step computes the block and the position before it."""


class EosRule(StrEnum):
    """Where end tokens may come, since answers of nothing but end tokens are a known trouble of these models."""

    FREE = "free"
    """Anywhere, at any step (the official Dream)."""
    NOT_FIRST = "not_first"
    """Not at the first position of the response; their probability there goes to the other tokens."""
    LAST = "last"
    """Positions that would become an end token come after all others of the block, whatever their confidence (the
    rule of LLaDA-1.5's evaluation)."""
