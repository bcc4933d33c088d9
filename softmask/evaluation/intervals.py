"""Confidence intervals: a bootstrap over documents that is joint for all models, and Student's t over seeds.

Pure functions on arrays. Nothing here knows what the columns mean, which models there are, or where numbers come from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from tqdm import tqdm

Array = NDArray[np.float64]

BLOCK_BYTES = 1 << 26
"""Memory of one block of resampling counts; blocks change no number, since the generator runs on across them."""


class Interval(NamedTuple):
    """An estimate between the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the closed interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class JointBootstrap:
    """Column sums of a table of units, as observed and resampled: one resampling of the units serves every column.

    Any statistic that is a function of column sums (NLL per token, its differences, perplexity, bits per byte) is
    therefore compared on the same resampled documents, which is what makes differences between models paired.
    """

    columns: Mapping[str, int]
    """Column name -> position in the last axis of the sums."""
    observed: Array
    """float64 [C]."""
    resampled: Array
    """float64 [R, C]."""
    level: float
    """Confidence level of the intervals, such as 0.95."""

    def ratio(
        self,
        weights: Mapping[str, float],
        per: str,
        transform: Callable[[Array], Array] | None = None,
    ) -> Interval:
        """Percentile interval of `transform(sum_c weights[c] * column c / column per)`.

        Args:
            weights: a linear combination of columns; a difference of two models has +1 and -1.
            per: the column to divide by, such as the token counts.
            transform: elementwise and increasing, such as `np.exp` for perplexity.

        Returns:
            The observed value and the percentile interval at `level` (Efron and Tibshirani 1993, section 13.3).
        """
        sums = np.vstack([self.observed, self.resampled])
        values = sum((weight * sums[:, self.columns[name]] for name, weight in weights.items()), np.zeros(len(sums)))
        values = values / sums[:, self.columns[per]]
        if transform is not None:
            values = transform(values)
        tail = (1 - self.level) / 2
        low, high = np.quantile(values[1:], [tail, 1 - tail])
        return Interval(float(values[0]), float(low), float(high))


def joint_bootstrap(table: Mapping[str, Array], resamples: int, level: float, seed: int) -> JointBootstrap:
    """Resample units with replacement, the same units for every column.

    Args:
        table: column name -> float64 [U], one value a unit (a document or a passage).
        resamples: R.
        level: confidence level of the intervals that will be asked for.
        seed: of the generator of the resampled units.

    Raises:
        ValueError: the table has no unit, or its columns differ in length.
    """
    lengths = {len(column) for column in table.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"columns of lengths {sorted(lengths)}; expected one length of at least 1")
    values = np.column_stack([np.asarray(column, dtype=np.float64) for column in table.values()])
    units = len(values)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * units))
    resampled = np.empty((resamples, values.shape[1]))
    with tqdm(total=resamples, desc="bootstrap", unit="resample", unit_scale=True) as bar:
        for start in range(0, resamples, block):
            size = min(block, resamples - start)
            # How often each unit is drawn says as much as the draws themselves, and turns the sums into one product.
            counts = generator.multinomial(units, np.full(units, 1 / units), size=size)
            resampled[start : start + size] = counts @ values
            bar.update(size)
    names = {name: position for position, name in enumerate(table)}
    return JointBootstrap(names, values.sum(axis=0), resampled, level)


def monte_carlo_error(nll: Array, tokens: float) -> float | None:
    """Standard error, from Monte Carlo draws of t and masks, of the NLL a token averaged over the draws.

    Args:
        nll: float64 [D, U], summed nats of each draw and unit. A difference of two models' arrays, whose draws are
            shared, gives the error of their difference.
        tokens: how many tokens the units have together.

    Returns:
        None for a single draw, which tells nothing about its error.
    """
    draws = nll.sum(axis=1) / tokens
    if len(draws) < 2:
        return None
    return float(draws.std(ddof=1) / math.sqrt(len(draws)))


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation (divisor n - 1) over seeds; None for a single seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def seeds_interval(values: Sequence[float], level: float) -> Interval | None:
    """Student's t interval of the mean over seeds; None for a single seed, which has no spread to judge by."""
    deviation = spread(values)
    if deviation is None:
        return None
    mean = float(np.mean(values))
    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    reach = quantile * deviation / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def same_sign(values: Sequence[float]) -> bool:
    """Whether all values are above zero, or all below."""
    return all(value > 0 for value in values) or all(value < 0 for value in values)


def log_interpolate(x: Sequence[float], y: Sequence[float], at: float) -> float | None:
    """`y` at `at`, linear in log x between the neighbouring points; None outside of the points' range.

    Args:
        x: positive and increasing, such as real forward passes.
        y: as many values.
        at: positive.
    """
    if not x or not x[0] <= at <= x[-1]:
        return None
    return float(np.interp(math.log(at), np.log(x), y))
