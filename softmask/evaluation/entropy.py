"""Unigram entropy of samples: how varied a sample's own tokens are. Knows no model and no text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr


def unigram_entropy(ids: ArrayLike) -> float:
    """Entropy in nats of the token frequencies of one sample `[L]`, as MDLM and ReMDM report it.

    0 for a sample that repeats one token, log(L) for one whose tokens all differ.
    """
    _, counts = np.unique(np.asarray(ids, dtype=np.int64), return_counts=True)
    return float(entr(counts / counts.sum()).sum())


def mean_unigram_entropy(samples: Sequence[ArrayLike]) -> float:
    """Mean over samples of the entropy of each, in nats."""
    return float(np.mean([unigram_entropy(ids) for ids in samples]))
