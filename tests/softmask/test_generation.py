"""The row of a group of samples, and that a killed evaluation does no finished batch again."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softmask.errors import InputError
from softmask.evaluation.entropy import mean_unigram_entropy
from softmask.evaluation.generation import SampleGroup, generation_row
from softmask.evaluation.judge import Judge, add_costs
from softmask.evaluation.rules import EosRule, FirstToken, MauveRules, ScoringRules
from tests.tiny_judge import gpt2_judge, letters

SCORING = ScoringRules(
    max_length=16, stride=16, eos_rule=EosRule.FIRST_ONLY, first_token=FirstToken.SKIP, batch_size=8, head_chunk=64
)
MAUVE = MauveRules(
    min_samples=20,
    seeds=(1, 2),
    max_text_length=16,
    num_buckets="auto",
    pca_max_data=-1,
    explained_variance=0.9,
    kmeans_redo=1,
    kmeans_iterations=20,
    curve_points=25,
    scaling_factor=5.0,
    threads=2,
)


class Killed(Exception):
    """Stands for the end of the process."""


class Store:
    """A store of units that passes values through JSON, and dies at one of them."""

    def __init__(self, dies_at: str | None = None) -> None:
        self.kept: dict[str, str] = {}
        self.computed: list[str] = []
        self.dies_at = dies_at

    def unit(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self.kept:
            if name == self.dies_at:
                raise Killed
            self.kept[name] = json.dumps(compute())
            self.computed.append(name)
        return json.loads(self.kept[name])


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return gpt2_judge(tmp_path_factory.mktemp("judge"))


def group(judge: Judge, n: int, seed: int = 0) -> SampleGroup:
    texts = [letters(4 + (i % 12), seed * 1000 + i) for i in range(n)]
    ids = [judge.tokenizer.encode(text).ids for text in texts]
    return SampleGroup("mdlm-32", texts, ids, sampler="mdlm", nfe=32, real_nfe=[30 + (i % 2) for i in range(n)])


def test_the_row_is_made_of_totals_over_all_samples(judge: Judge) -> None:
    samples = group(judge, 20)
    references, _ = judge.features(group(judge, 24, seed=1).texts, 16, 8)
    row, cost = generation_row(samples, judge, references, SCORING, MAUVE, Store().unit)
    scores = judge.score(samples.texts, SCORING)
    assert row["gen_ppl"] == pytest.approx(math.exp(sum(scores["nll"]) / sum(scores["tokens"])), rel=1e-6)
    each = [math.exp(nll / tokens) for nll, tokens in zip(scores["nll"], scores["tokens"], strict=True)]
    assert row["gen_ppl"] != pytest.approx(np.mean(each), rel=1e-3), "not the mean of the samples' perplexities"
    assert row["entropy"] == mean_unigram_entropy(samples.ids)
    assert row["samples"] == 20
    assert row["tokens"] == sum(map(len, samples.ids)) == row["scored_tokens"] + 20
    assert (row["sampler"], row["nfe"], row["real_nfe_mean"]) == ("mdlm", 32, 30.5)
    assert row["mauve"] is not None and row["mauve"]["references"] == 24 and row["mauve_note"] is None
    assert cost == add_costs([scores["cost"], judge.features(samples.texts, 16, 8)[1]])


def test_below_the_minimum_of_samples_the_row_says_why_mauve_is_empty(judge: Judge) -> None:
    store = Store()
    references, _ = judge.features(group(judge, 24, seed=1).texts, 16, 8)
    row, _ = generation_row(group(judge, 19), judge, references, SCORING, MAUVE, store.unit)
    assert row["mauve"] is None
    assert row["mauve_note"] == "19 samples; MAUVE is printed from 20 on"
    assert not any("features" in name for name in store.computed)


@pytest.mark.parametrize("dies_at", ["mdlm-32-score-1", "mdlm-32-features-2", "mdlm-32-mauve-2"])
def test_a_killed_evaluation_goes_on_where_it_was_to_the_same_row(judge: Judge, dies_at: str) -> None:
    samples = group(judge, 20)
    references, _ = judge.features(group(judge, 24, seed=1).texts, 16, 8)
    undisturbed = generation_row(samples, judge, references, SCORING, MAUVE, Store().unit)
    store = Store(dies_at)
    with pytest.raises(Killed):
        generation_row(samples, judge, references, SCORING, MAUVE, store.unit)
    before, store.dies_at = list(store.computed), None
    assert generation_row(samples, judge, references, SCORING, MAUVE, store.unit) == undisturbed
    assert before and len(store.computed) == len(set(store.computed))


def test_real_text_has_no_sampler_and_no_forward_passes(judge: Judge) -> None:
    real = replace(group(judge, 3), name="real-text", sampler=None, nfe=None, real_nfe=None)
    row, _ = generation_row(real, judge, np.zeros((3, 16), dtype=np.float32), SCORING, MAUVE, Store().unit)
    assert (row["sampler"], row["nfe"], row["real_nfe_mean"]) == (None, None, None)


def test_texts_without_a_token_to_score_are_a_clear_error(judge: Judge) -> None:
    empty = replace(group(judge, 2), texts=["", "a"])
    with pytest.raises(InputError, match=r"no token to score in the 2 texts of mdlm-32"):
        generation_row(empty, judge, np.zeros((3, 16), dtype=np.float32), SCORING, MAUVE, Store().unit)
