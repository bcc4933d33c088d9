"""MAUVE through mauve-text: its value, its spread over seeds, and when it isn't printed."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mauve
import numpy as np
import pytest

from softmask.evaluation.mauve_score import mauve_score, shortfall
from softmask.evaluation.rules import MauveRules

RULES = MauveRules(
    min_samples=100,
    seeds=(1, 2, 3),
    max_text_length=16,
    num_buckets="auto",
    pca_max_data=-1,
    explained_variance=0.9,
    kmeans_redo=2,
    kmeans_iterations=50,
    curve_points=25,
    scaling_factor=5.0,
    threads=2,
)


def no_memo(name: str, compute: Callable[[], Any]) -> Any:
    return compute()


def features(n: int, centre: float, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(seed).normal(size=(n, 8))
    values[:, 0] += centre
    return values.astype(np.float32)


def test_the_same_distribution_scores_high_and_another_one_low() -> None:
    references = features(200, 0, 1)
    near = mauve_score(references, features(200, 0, 2), RULES, no_memo, "near")
    far = mauve_score(references, features(200, 9, 2), RULES, no_memo, "far")
    assert near["mean"] > 0.9
    assert far["mean"] < 0.1


def test_each_seeds_value_is_mauve_texts_own_and_mean_and_spread_are_over_them() -> None:
    references, samples = features(150, 0, 1), features(120, 1, 2)
    score = mauve_score(references, samples, RULES, no_memo, "x")
    for seed in RULES.seeds:
        own = mauve.compute_mauve(references, samples, seed=seed, kmeans_num_redo=2, kmeans_max_iter=50)
        assert score["seeds"][str(seed)] == own.mauve
    assert len(set(score["seeds"].values())) > 1, "the seeds must matter, or there is no spread to report"
    assert score["mean"] == pytest.approx(np.mean(list(score["seeds"].values())))
    assert score["std"] == statistics.stdev(score["seeds"].values())
    assert score["references"] == 150


def test_it_is_the_same_every_time_on_several_threads() -> None:
    references, samples = features(600, 0, 1), features(600, 0.5, 2)
    values = [mauve_score(references, samples, RULES, no_memo, "x") for _ in range(3)]
    assert values[0] == values[1] == values[2]


def test_a_finished_seed_is_not_computed_again() -> None:
    kept: dict[str, Any] = {"x-mauve-1": 0.25, "x-mauve-3": 0.5}

    def memo(name: str, compute: Callable[[], Any]) -> Any:
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    references = features(100, 0, 1)
    score = mauve_score(references, features(100, 0, 2), RULES, memo, "x")
    assert score["seeds"] == {"1": 0.25, "2": kept["x-mauve-2"], "3": 0.5}


def test_too_few_samples_or_references_give_the_reason_instead() -> None:
    assert shortfall(99, 500, RULES) == "99 samples; MAUVE is printed from 100 on"
    assert shortfall(500, 99, RULES) == "99 references; MAUVE is printed from 100 on"
    assert shortfall(100, 100, RULES) is None
    assert shortfall(32, 500, replace(RULES, min_samples=500)) == "32 samples; MAUVE is printed from 500 on"
