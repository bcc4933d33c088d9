"""MAUVE of samples against references from their features, through the mauve-text package, with its spread over seeds.

Knows no text and no judge. mauve-text takes five seconds to import and is imported when it is needed.
"""

import statistics
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from softmask.evaluation.rules import MauveRules

Features = NDArray[np.float32]
"""`[n, d]`, one row a text."""


class Mauve(TypedDict):
    """MAUVE over its k-means seeds."""

    mean: float
    std: float
    """Standard deviation over seeds (n - 1)."""
    seeds: dict[str, float]
    references: int


def shortfall(samples: int, references: int, rules: MauveRules) -> str | None:
    """Why MAUVE is not printed for these counts, or None if it is."""
    if samples < rules.min_samples:
        return f"{samples} samples; MAUVE is printed from {rules.min_samples} on"
    if references < rules.min_samples:
        return f"{references} references; MAUVE is printed from {rules.min_samples} on"
    return None


def mauve_score(
    references: Features,
    samples: Features,
    rules: MauveRules,
    memo: Callable[[str, Callable[[], Any]], Any],
    name: str,
) -> Mauve:
    """MAUVE for each seed of `rules`, their mean and spread.

    Args:
        references: `[n, d]` features of real text (P of the MAUVE paper).
        samples: `[m, d]` features of generated text (Q).
        rules: at least two seeds; `shortfall` is not asked here.
        memo: keeps the value of a unit of work; `name` begins the units' names.
    """

    def one(seed: int) -> Callable[[], float]:
        return lambda: _mauve(references, samples, rules, seed)

    values = {str(seed): float(memo(f"{name}-mauve-{seed}", one(seed))) for seed in rules.seeds}
    return {
        "mean": statistics.fmean(values.values()),
        "std": statistics.stdev(values.values()),
        "seeds": values,
        "references": len(references),
    }


def _mauve(references: Features, samples: Features, rules: MauveRules, seed: int) -> float:
    # 5 s: scikit-learn, faiss and (for featurising, which the judge does here) transformers
    import faiss
    import mauve

    faiss.omp_set_num_threads(rules.threads)
    with threadpool_limits(rules.threads):
        result = mauve.compute_mauve(
            p_features=references,
            q_features=samples,
            num_buckets=rules.num_buckets,
            pca_max_data=rules.pca_max_data,
            kmeans_explained_var=rules.explained_variance,
            kmeans_num_redo=rules.kmeans_redo,
            kmeans_max_iter=rules.kmeans_iterations,
            divergence_curve_discretization_size=rules.curve_points,
            mauve_scaling_factor=rules.scaling_factor,
            seed=seed,
        )
    return float(result.mauve)
