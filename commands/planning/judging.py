"""What measuring models and real text takes: likelihoods by the models, scores and features by the judge.

Texts are taken to be as many tokens to the judge as to the model, which holds where both have one tokenizer, and to
have one end-of-text at most: where the judge leaves out further ones, it is a few rows of its head less.
"""

from collections.abc import Mapping
from dataclasses import replace

from commands.planning.facts import Facts, characters_a_token
from commands.planning.language import config_of, soft_mask_of
from commands.planning.memory import FLOAT32
from commands.planning.shapes import judge_model, judge_trunk, mdlm_parameters, mdlm_trunk
from commands.planning.work import Work, sure, together
from softmask.backbones.causal_lm import forward_flops
from softmask.evaluation.judge import plan
from stages import evaluate
from stages.params.judge import JudgeSource
from stages.references import role_sizes, rows_for_judge

Axes = Mapping[str, str]
NUMBER = 8
"""Bytes of a number in nll.safetensors."""


def judge_references(facts: Facts, axes: Axes) -> Work:
    """Judging real text: features of the references, the row of held-out text, the judge's own perplexity."""
    wanted, total = facts.params.evaluation.references, facts.text.rows["validation"]
    count, held_out = role_sizes(total, wanted)
    own = _scores(facts, len(rows_for_judge(total, wanted)))
    judged = together([_features(facts, count), _group(facts, held_out, count), own])
    model, _ = judge_model(facts.params.judge, facts.text.vocabulary, facts.params.tokens.length)
    text = round(facts.params.tokens.length * characters_a_token(facts.params.tokenizer))
    return replace(judged, disk=count * (FLOAT32 * int(model.config.hidden_size) + text))


def evaluate_model(facts: Facts, axes: Axes) -> Work:
    """Measuring one model: NLL on its paths, and its samples by the judge."""
    evaluation, total = facts.params.evaluation, facts.text.rows["validation"]
    soft_mask = soft_mask_of(facts, axes["model"])
    count, _ = role_sizes(total, evaluation.references)
    decodings = len(list(facts.params.sampling.decodings(soft_mask is not None)))
    judged = together([_group(facts, facts.params.sampling.samples, count)] * decodings)

    config, length = config_of(facts, soft_mask), facts.params.tokens.length
    rows = total if evaluation.max_rows is None else min(evaluation.max_rows, total)
    spent = evaluate.nll_cost(config, rows, evaluation.draws)
    own = mdlm_trunk(config).inference(min(evaluation.batch_size, rows) * length, facts.params.compute.head_chunk)
    nll = Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=sure(facts.text.vocabulary_known and (facts.text.known or rows < total)),
        memory=own,
    )
    units, paths = min(facts.text.documents, rows * length), 1 if soft_mask is None else 2
    measured = together([nll, judged])
    # both models are there at once
    memory = measured.memory + FLOAT32 * mdlm_parameters(config)
    return replace(measured, memory=memory, disk=NUMBER * units * (2 + evaluation.draws * paths))


def _group(facts: Facts, count: int, references: int) -> Work:
    """Judging one group of texts: scores, and features where there are enough for MAUVE."""
    scores, least = _scores(facts, count), facts.params.evaluation.mauve.min_samples
    return together([scores, _features(facts, count)]) if min(count, references) >= least else scores


def _scores(facts: Facts, count: int) -> Work:
    rules = facts.params.evaluation.judge.rules(facts.params.compute.head_chunk)
    no_end = -1
    windows = list(plan(0, [0] * facts.params.tokens.length, no_end, rules))
    read, rows = sum(len(window.inputs) for window in windows), sum(sum(window.scored) for window in windows)
    return _judged(facts, count * len(windows), count * read, count * rows)


def _features(facts: Facts, count: int) -> Work:
    read = count * min(facts.params.tokens.length, facts.params.evaluation.mauve.max_text_length)
    return _judged(facts, count, read, 0)


def _judged(facts: Facts, forwards: int, read: int, head_rows: int) -> Work:
    params = facts.params
    model, known = judge_model(params.judge, facts.text.vocabulary, params.tokens.length)
    at_once = params.evaluation.judge.batch_size * params.evaluation.judge.max_length
    same_tokenizer = params.judge.source is JudgeSource.TRAIN
    return Work(
        forwards=forwards,
        flops=forward_flops(model, read, head_rows),
        tokens=read,
        basis=sure(known and facts.text.known and same_tokenizer),
        memory=FLOAT32 * int(model.num_parameters()) + judge_trunk(model).inference(at_once, params.compute.head_chunk),
    )
