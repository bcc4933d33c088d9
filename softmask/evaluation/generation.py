"""The metrics of a group of samples: generative perplexity, entropy and MAUVE, in units that a killed run keeps.

Knows neither samplers nor files: texts, ids and a judge come in, one row of the table goes out.
"""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from softmask.errors import InputError
from softmask.evaluation.entropy import mean_unigram_entropy
from softmask.evaluation.judge import Judge, JudgeCost, Scores, add_costs
from softmask.evaluation.mauve_score import Features, Mauve, mauve_score, shortfall
from softmask.evaluation.rules import MauveRules, ScoringRules

Memo = Callable[[str, Callable[[], Any]], Any]
"""`memo(name, compute)`: the JSON value of a unit of work, computed once; `Checkpoints.unit` of a stage is one."""


@dataclass(frozen=True)
class SampleGroup:
    """Samples that make one row."""

    name: str
    """Begins the names of its units of work: unique within a run, fit for a file's name."""
    texts: Sequence[str]
    """Decoded samples, special tokens kept."""
    ids: Sequence[Sequence[int]]
    """Their own tokens."""
    sampler: str | None
    """None for real text."""
    nfe: int | None
    """Nominal forward passes; None for real text."""
    real_nfe: Sequence[int] | None
    """Forward passes that each sample took; None for real text."""


class GenerationRow(TypedDict):
    """One row of the generation table."""

    sampler: str | None
    nfe: int | None
    real_nfe_mean: float | None
    samples: int
    tokens: int
    """The samples' own tokens."""
    scored_tokens: int
    """Tokens of the judge's that generative perplexity is the mean over."""
    gen_ppl: float
    """exp(total NLL / total tokens) by the judge."""
    entropy: float
    """Mean unigram entropy of a sample, in nats."""
    mauve: Mauve | None
    mauve_note: str | None
    """Why `mauve` is None."""


def generation_row(
    group: SampleGroup,
    judge: Judge,
    reference_features: Features,
    scoring: ScoringRules,
    mauve: MauveRules,
    memo: Memo,
) -> tuple[GenerationRow, JudgeCost]:
    """The row of a group of samples, and what judging it cost.

    Args:
        group: the samples.
        judge: scores them and makes MAUVE's features.
        reference_features: `[n, d]` of real text, by the same judge.
        scoring, mauve: the rules.
        memo: keeps each batch's scores and features, and each seed's MAUVE.

    Raises:
        InputError: there is no token to score.
    """
    scores = score_in_units(group.name, group.texts, judge, scoring, memo)
    costs = [scores["cost"]]
    score: Mauve | None = None
    note = shortfall(len(group.texts), len(reference_features), mauve)
    if note is None:
        features, cost = features_in_units(group.name, group.texts, judge, mauve, scoring.batch_size, memo)
        costs.append(cost)
        score = mauve_score(reference_features, features, mauve, memo, group.name)
    row: GenerationRow = {
        "sampler": group.sampler,
        "nfe": group.nfe,
        "real_nfe_mean": None if group.real_nfe is None else float(np.mean(group.real_nfe)),
        "samples": len(group.texts),
        "tokens": sum(map(len, group.ids)),
        "scored_tokens": sum(scores["tokens"]),
        "gen_ppl": perplexity(scores, group.name),
        "entropy": mean_unigram_entropy(group.ids),
        "mauve": score,
        "mauve_note": note,
    }
    return row, add_costs(costs)


def perplexity(scores: Scores, name: str) -> float:
    """exp(total NLL / total tokens).

    Raises:
        InputError: no token was scored.
    """
    tokens = sum(scores["tokens"])
    if tokens == 0:
        raise InputError(
            f"the judge finds no token to score in the {len(scores['tokens'])} texts of {name}",
            where="the judge",
            expected="texts of two tokens and more, or first_token: after_eos",
        )
    return math.exp(math.fsum(scores["nll"]) / tokens)


def score_in_units(name: str, texts: Sequence[str], judge: Judge, rules: ScoringRules, memo: Memo) -> Scores:
    """`Judge.score` on batches of texts, each batch a unit of work."""
    parts: list[Scores] = []
    for number, batch in _batches(texts, rules.batch_size, f"judging {name}"):
        parts.append(memo(f"{name}-score-{number}", partial(judge.score, batch, rules)))
    return {
        "nll": [value for part in parts for value in part["nll"]],
        "tokens": [value for part in parts for value in part["tokens"]],
        "cost": add_costs(part["cost"] for part in parts),
    }


def features_in_units(
    name: str, texts: Sequence[str], judge: Judge, rules: MauveRules, batch_size: int, memo: Memo
) -> tuple[Features, JudgeCost]:
    """`Judge.features` on batches of texts, each batch a unit of work; `[n, d]` float32 and the cost."""

    def compute(batch: Sequence[str]) -> dict[str, Any]:
        features, cost = judge.features(batch, rules.max_text_length, batch_size)
        return {"float32": base64.b64encode(features.astype("<f4").tobytes()).decode(), "cost": cost}

    parts = [
        memo(f"{name}-features-{number}", partial(compute, batch))
        for number, batch in _batches(texts, batch_size, f"features of {name}")
    ]
    flat = np.frombuffer(b"".join(base64.b64decode(part["float32"]) for part in parts), dtype="<f4")
    return flat.reshape(len(texts), -1).astype(np.float32), add_costs(part["cost"] for part in parts)


def _batches(texts: Sequence[str], size: int, what: str) -> Iterator[tuple[int, list[str]]]:
    starts = range(0, len(texts), size)
    with tqdm(total=len(texts), desc=what, unit="text", unit_scale=True) as bar:
        for number, start in enumerate(starts):
            batch = list(texts[start : start + size])
            yield number, batch
            bar.update(len(batch))
