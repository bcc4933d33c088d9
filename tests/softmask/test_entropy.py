"""Unigram entropy of samples, in nats."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from softmask.evaluation.entropy import mean_unigram_entropy, unigram_entropy


def test_a_sample_that_repeats_one_token_has_none() -> None:
    assert unigram_entropy([7] * 20) == 0


def test_a_sample_of_different_tokens_has_the_log_of_its_length() -> None:
    assert unigram_entropy(range(50)) == pytest.approx(math.log(50))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_it_is_the_entropy_of_the_frequencies_and_blind_to_order(ids: list[int]) -> None:
    counts = [ids.count(token) for token in sorted(set(ids))]
    assert unigram_entropy(ids) == pytest.approx(entropy(counts), abs=1e-12)
    assert unigram_entropy(ids[::-1]) == unigram_entropy(ids)


def test_the_mean_is_over_samples_and_not_over_their_joint_frequencies() -> None:
    assert mean_unigram_entropy([[1, 1, 1], [2, 2, 2]]) == 0
    assert mean_unigram_entropy([[1, 2], [3, 3]]) == pytest.approx(math.log(2) / 2)
