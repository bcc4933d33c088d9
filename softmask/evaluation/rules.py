"""The rules that samples are scored by, as plain values: what the judge counts, and how MAUVE clusters.

Knows no model and imports none, so that parameters can be checked quickly.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class EosRule(StrEnum):
    """What is scored of a text that holds end-of-text tokens (`<|endoftext|>` in it is read as that one token)."""

    KEEP_ALL = "keep_all"
    """Every token, each end-of-text too: a packed row is scored as the stream that models are trained on."""
    FIRST_ONLY = "first_only"
    """Every token but the end-of-text tokens after the first one. What follows the first is still read and scored.
    MDLM's rule (kuleshov-group/mdlm, diffusion.py, compute_generative_perplexity)."""
    TRUNCATE_AT_FIRST = "truncate_at_first"
    """Up to and with the first end-of-text token; the judge never sees what follows. One that opens the text ends
    nothing."""


class FirstToken(StrEnum):
    """What becomes of a text's first token, which has nothing before it."""

    SKIP = "skip"
    """It is read and not scored, as MDLM does."""
    AFTER_EOS = "after_eos"
    """The judge reads an end-of-text token before each text, and the first token is scored."""


@dataclass(frozen=True)
class ScoringRules:
    """How the judge scores texts."""

    max_length: int
    """Tokens that the judge reads at a time; longer texts are scored in windows."""
    stride: int
    """Tokens from one window's start to the next one's; a token has at least max_length - stride tokens before it."""
    eos_rule: EosRule
    """Which tokens count."""
    first_token: FirstToken
    """Whether a text's first token counts."""
    batch_size: int
    """Windows a batch."""
    head_chunk: int
    """Positions a chunk of the output head."""


@dataclass(frozen=True)
class MauveRules:
    """How MAUVE is computed, in mauve-text's terms."""

    min_samples: int
    """Fewest samples, and fewest references, that a value is printed for."""
    seeds: tuple[int, ...]
    """One value for each of these seeds of k-means."""
    max_text_length: int
    """Tokens of a text that its features are made from."""
    num_buckets: int | Literal["auto"]
    """Clusters; auto: a tenth of the smaller of both counts."""
    pca_max_data: int
    """Rows that PCA is fitted on; -1: all."""
    explained_variance: float
    """Variance that PCA keeps."""
    kmeans_redo: int
    """Runs of k-means, of which the best is kept."""
    kmeans_iterations: int
    """Most iterations of k-means."""
    curve_points: int
    """Points on the divergence curve."""
    scaling_factor: float
    """The constant c of the MAUVE paper."""
    threads: int
    """Threads of PCA and k-means."""
