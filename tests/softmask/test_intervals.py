"""Intervals: joint resampling against SciPy's bootstrap, coverage, and the small helpers at their borders."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from softmask.evaluation import intervals
from softmask.evaluation.intervals import Interval, joint_bootstrap


def corpus(units: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Documents of unequal lengths with two models whose NLLs go together, the second lower by 0.02 nats a token."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(50, 2000, units).astype(float)
    difficulty = generator.normal(1.7, 0.3, units)
    binary = tokens * difficulty
    soft = tokens * (difficulty - 0.02 + generator.normal(0, 0.01, units))
    return {"tokens": tokens, "binary": binary, "soft": soft}


def test_the_estimate_is_the_ratio_of_sums() -> None:
    table = corpus(60)
    bootstrap = joint_bootstrap(table, 200, 0.95, seed=1)
    perplexity = bootstrap.ratio({"binary": 1.0}, per="tokens", transform=np.exp)
    assert perplexity.estimate == pytest.approx(math.exp(table["binary"].sum() / table["tokens"].sum()), rel=1e-12)
    assert perplexity.low < perplexity.estimate < perplexity.high


def test_the_interval_agrees_with_scipy_paired_bootstrap() -> None:
    table = corpus(80)

    def difference(soft: np.ndarray, binary: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray((soft.sum(axis) - binary.sum(axis)) / tokens.sum(axis))

    theirs = stats.bootstrap(
        (table["soft"], table["binary"], table["tokens"]),
        difference,
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    ours = joint_bootstrap(table, 20_000, 0.95, seed=2).ratio({"soft": 1.0, "binary": -1.0}, per="tokens")
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width


def test_joint_resampling_makes_the_difference_far_narrower_than_either_model() -> None:
    bootstrap = joint_bootstrap(corpus(60), 2000, 0.95, seed=0)
    alone = bootstrap.ratio({"binary": 1.0}, per="tokens")
    paired = bootstrap.ratio({"soft": 1.0, "binary": -1.0}, per="tokens")
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.excludes_zero


def test_the_interval_covers_the_truth_about_as_often_as_its_level_says() -> None:
    hits = 0
    for trial in range(300):
        generator = np.random.default_rng(1000 + trial)
        table = {"tokens": np.full(50, 100.0), "nll": 100 * generator.normal(0.3, 1.0, 50)}
        interval = joint_bootstrap(table, 400, 0.9, seed=trial).ratio({"nll": 1.0}, per="tokens")
        hits += interval.low <= 0.3 <= interval.high
    assert 0.84 <= hits / 300 <= 0.95


def test_blocks_of_counts_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = joint_bootstrap(corpus(40), 50, 0.95, seed=3).resampled
    monkeypatch.setattr(intervals, "BLOCK_BYTES", 8 * 40 * 7)
    np.testing.assert_allclose(joint_bootstrap(corpus(40), 50, 0.95, seed=3).resampled, whole, rtol=1e-14)


def test_columns_of_unequal_length_or_without_units_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        joint_bootstrap({"a": np.ones(3), "b": np.ones(4)}, 10, 0.95, seed=0)
    with pytest.raises(ValueError, match="lengths"):
        joint_bootstrap({"a": np.ones(0)}, 10, 0.95, seed=0)


def test_an_interval_that_touches_zero_does_not_exclude_it() -> None:
    assert not Interval(0.1, 0.0, 0.2).excludes_zero
    assert Interval(-0.1, -0.2, -0.01).excludes_zero


def test_monte_carlo_error_is_the_standard_error_of_the_mean_over_draws() -> None:
    nll = np.array([[10.0, 20.0], [11.0, 21.0], [9.0, 22.0]])
    assert intervals.monte_carlo_error(nll, 10) == pytest.approx(np.std([3.0, 3.2, 3.1], ddof=1) / math.sqrt(3))
    assert intervals.monte_carlo_error(nll[:1], 10) is None


def test_the_interval_over_seeds_is_students_t() -> None:
    values = [-0.024, -0.031, -0.019]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    interval = intervals.seeds_interval(values, 0.95)
    assert interval is not None
    assert interval[1:] == pytest.approx(expected)
    assert intervals.seeds_interval([0.1], 0.95) is None


def test_seeds_agree_only_when_all_differences_have_one_sign() -> None:
    assert intervals.same_sign([0.1, 0.2])
    assert intervals.same_sign([-0.1])
    assert not intervals.same_sign([0.1, -0.2])
    assert not intervals.same_sign([0.0, 0.1])


@given(st.lists(st.floats(1, 2000), min_size=2, max_size=6, unique=True), st.floats(0, 1))
def test_interpolation_in_log_x_stays_between_its_neighbours(points: list[float], share: float) -> None:
    x = sorted(points)
    y = [math.log(value) for value in x]
    at = math.exp(math.log(x[0]) + share * (math.log(x[-1]) - math.log(x[0])))
    value = intervals.log_interpolate(x, y, min(max(at, x[0]), x[-1]))
    assert value == pytest.approx(math.log(at), abs=1e-6)


def test_interpolation_outside_of_the_points_is_none() -> None:
    assert intervals.log_interpolate([8, 16], [1.0, 2.0], 7.9) is None
    assert intervals.log_interpolate([8, 16], [1.0, 2.0], 16.1) is None
    assert intervals.log_interpolate([], [], 3.0) is None
