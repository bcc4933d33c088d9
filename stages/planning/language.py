"""What the stages of the language study take: corpus, tokens, judge, base, arms, samples, measurements.

Costs come from the stages' own functions; what is worked out here is only what depends on data and chance.
"""

from collections.abc import Mapping

from transformers import PreTrainedModel

from softmask.backbones.causal_lm import forward_flops
from softmask.backbones.dit import MdlmConfig
from softmask.backbones.flops import head_flops, trunk_flops
from softmask.backbones.passes import BACKWARD
from softmask.diffusion import LogLinear
from softmask.evaluation.judge import plan
from softmask.tokens import PackedMeta
from softmask.training.masking import MaskingCollator
from stages import evaluate, judge, mdlm_training, references
from stages.generate import settings_of
from stages.params.arms import ArmParams
from stages.params.base import BaseSource
from stages.params.judge import JudgeSource
from stages.params.model import SoftMaskParams
from stages.params.training import TrainingParams
from stages.planning.facts import Facts, characters_a_token
from stages.planning.memory import FLOAT32, PARQUET, Trunk, checkpoints, trained
from stages.planning.sampling import sampled
from stages.planning.shapes import judge_model, mdlm_config, mdlm_parameters
from stages.planning.work import Basis, Work, together
from stages.training_args import sequences_per_process

Axes = Mapping[str, str]
TOSSED = 500_000
"""Up to so many micro-batches their coins are tossed as the run will toss them (10 microseconds each)."""
JSON_NUMBER = 5
"""Bytes of a token id in JSON, with its comma."""


class Expectation(MaskingCollator):
    """A collator that counts on the mean of its coins."""

    def forwards(self, micro_batches: int) -> int:
        """Expected forward passes of the first `micro_batches` micro-batches."""
        return round(micro_batches * (1 + self._p_sm))


def corpus(facts: Facts, axes: Axes) -> Work:
    """The documents of both splits."""
    return Work(basis=_of_text(facts), disk=round(facts.text.characters * PARQUET))


def tokens(facts: Facts, axes: Axes) -> Work:
    """Rows of ids."""
    params = facts.params
    text, length = facts.text, params.tokens.length
    rows = sum(text.rows.values())
    meta = PackedMeta(rows, length, text.documents, text.vocabulary.dtype.str, text.vocabulary)
    return Work(tokens=rows * length, basis=_of_text(facts), disk=sum(meta.sizes().values()))


def judge_training(facts: Facts, axes: Axes) -> Work:
    """Training the judge, in one process; or fetching it."""
    params = facts.params
    model, known = _judge(facts)
    parameters = int(model.num_parameters())
    if params.judge.source is JudgeSource.HUB:
        return Work(memory=FLOAT32 * parameters, disk=FLOAT32 * parameters, basis=_sure(known))
    training, length = params.judge.train.training, params.tokens.length
    spent = judge.costs(model, training, length)
    positions = training.batch_size // training.accumulation * length
    trunk = _judge_trunk(model, 2 if params.compute.precision == "bf16" else FLOAT32)
    chunk = min(params.compute.head_chunk, positions)
    return Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=_sure(known and facts.text.vocabulary_known),
        memory=trained(parameters, averaged=True, processes=1) + trunk.activations(positions) + trunk.head(chunk),
        disk=FLOAT32 * parameters,
        unfinished=checkpoints(parameters, copies=1),
    )


def base(facts: Facts, axes: Axes) -> Work:
    """Training the base; or importing or initialising it."""
    params = facts.params
    config = _config(facts, None)
    if params.base.source is BaseSource.TRAIN:
        return _training(facts, config, params.base.training, params.base.training.steps, params.base.seed)
    parameters = mdlm_parameters(config)
    copies = 2 if params.base.source is BaseSource.CHECKPOINT else 1  # the checkpoint's tensors beside the model's
    return Work(memory=copies * FLOAT32 * parameters, disk=FLOAT32 * parameters)


def arm(facts: Facts, axes: Axes) -> Work:
    """Continuing the base as one arm."""
    params = facts.params
    settings = params.arms.settings[axes["arm"]]
    config = _config(facts, settings.soft_mask)
    steps = settings.steps(params.arms.training.steps, BACKWARD)
    return _training(facts, config, params.arms.training, steps, int(axes["seed"]), settings.soft_mask)


def _training(
    facts: Facts,
    config: MdlmConfig,
    training: TrainingParams,
    steps: int,
    seed: int,
    soft_mask: SoftMaskParams | None = None,
) -> Work:
    params = facts.params
    compute, length = params.compute, params.tokens.length
    training = training.model_copy(update={"steps": steps})
    p_sm = 0.0 if soft_mask is None else soft_mask.p_sm
    micro_batches = steps * training.accumulation
    tossed = 0 < p_sm < 1 and micro_batches <= TOSSED
    micro_batch = training.batch_size // training.accumulation
    spent = _costs(facts, config, training, micro_batch, p_sm, seed, tossed)
    parameters = mdlm_parameters(config)
    positions = sequences_per_process(compute, training) * length
    number = 2 if compute.precision == "bf16" else FLOAT32
    trunk = Trunk(config.hidden_size, config.n_blocks, config.vocab_size, number)
    held = trained(parameters, averaged=True, processes=compute.processes)
    basis = Basis.EXACT if tossed or p_sm in (0.0, 1.0) else Basis.EXPECTED
    return Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=basis if facts.text.vocabulary_known else Basis.ABOUT,
        processes=compute.processes,
        memory=held + trunk.activations(positions) + trunk.head(min(compute.head_chunk, positions)),
        disk=FLOAT32 * parameters,
        unfinished=checkpoints(parameters, copies=1),
    )


def _costs(
    facts: Facts,
    config: MdlmConfig,
    training: TrainingParams,
    micro_batch: int,
    p_sm: float,
    seed: int,
    tossed: bool,
) -> Mapping[str, int]:
    params = facts.params
    collator = (MaskingCollator if tossed else Expectation)(
        mask_token_id=int(config.mask_token_id),
        noise=LogLinear(params.diffusion.noise_eps),
        sampling_eps=params.diffusion.sampling_eps,
        micro_batch=micro_batch,
        p_sm=p_sm,
        seed=seed,
    )
    return mdlm_training.costs(config, collator, training, params.tokens.length)


def generate(facts: Facts, axes: Axes) -> Work:
    """Samples of one model, by every cell; the trace, which no manifest counts, is left out."""
    params = facts.params
    soft_mask = _soft_mask(facts, axes["model"])
    config, sampling, compute = _config(facts, soft_mask), params.sampling, params.compute
    length = params.tokens.length
    feedback = None if soft_mask is None else soft_mask.kind
    decodings = list(sampling.decodings(soft_mask is not None))
    once = [sampled(settings_of(one, sampling, compute.head_chunk), feedback, length) for one in decodings]
    forwards, rows = (round(sampling.samples * sum(getattr(one, name) for one in once)) for name in EXPECTED)
    most, most_rows = (sampling.samples * sum(getattr(one, f"most_{name}") for one in once) for name in EXPECTED)
    made = len(decodings) * sampling.samples * length
    at_once = min(sampling.batch_size, sampling.samples) * length
    trunk = _trunk(config)
    return Work(
        forwards=forwards,
        most_forwards=most,
        flops=forwards * trunk_flops(config, length) + head_flops(config, rows),
        most_flops=most * trunk_flops(config, length) + head_flops(config, most_rows),
        tokens=made,
        basis=Basis.EXPECTED if facts.text.vocabulary_known else Basis.ABOUT,
        memory=FLOAT32 * mdlm_parameters(config)
        + trunk.forward(at_once)
        + trunk.head(min(compute.head_chunk, at_once)),
        disk=round(made * (JSON_NUMBER + characters_a_token(params.tokenizer))),
    )


EXPECTED = ("forwards", "head_rows")


def judge_references(facts: Facts, axes: Axes) -> Work:
    """Judging real text: features of the references, the row of held-out text, the judge's own perplexity."""
    params = facts.params
    wanted = params.evaluation.references
    total = facts.text.rows["validation"]
    count, held_out = references.role_sizes(total, wanted)
    works = [_features(facts, count), _group(facts, held_out, count)]
    works.append(_scores(facts, len(references.rows_for_judge(total, wanted))))
    judged = together(works)
    model, _ = _judge(facts)
    text = params.tokens.length * characters_a_token(params.tokenizer)
    disk = count * (FLOAT32 * int(model.config.hidden_size) + round(text))
    return Work(
        forwards=judged.forwards,
        flops=judged.flops,
        tokens=judged.tokens,
        basis=judged.basis,
        memory=_judging_memory(facts, model),
        disk=disk,
    )


def evaluate_model(facts: Facts, axes: Axes) -> Work:
    """Measuring one model: NLL on its paths, and its samples by the judge."""
    params = facts.params
    soft_mask = _soft_mask(facts, axes["model"])
    config, evaluation = _config(facts, soft_mask), params.evaluation
    total = facts.text.rows["validation"]
    rows = total if evaluation.max_rows is None else min(evaluation.max_rows, total)
    spent = evaluate.nll_cost(config, rows, evaluation.draws)
    known = facts.text.vocabulary_known and (facts.text.known or rows < total)
    count, _ = references.role_sizes(total, evaluation.references)
    decodings = len(list(params.sampling.decodings(soft_mask is not None)))
    judged = together([_group(facts, params.sampling.samples, count)] * decodings)
    nll = Work(forwards=spent["forwards"], flops=spent["flops"], tokens=spent["tokens"], basis=_sure(known))
    all_of_it = together([nll, judged])
    model, _ = _judge(facts)
    at_once = min(evaluation.batch_size, rows) * params.tokens.length
    trunk = _trunk(config)
    own = trunk.forward(at_once) + trunk.head(min(params.compute.head_chunk, at_once))
    units = min(facts.text.documents, rows * params.tokens.length)
    return Work(
        forwards=all_of_it.forwards,
        flops=all_of_it.flops,
        tokens=all_of_it.tokens,
        basis=all_of_it.basis,
        memory=FLOAT32 * mdlm_parameters(config) + max(own, _judging_memory(facts, model)),
        disk=8 * units * (2 + evaluation.draws * (1 if soft_mask is None else 2)),
    )


def _group(facts: Facts, count: int, references_there: int) -> Work:
    """Judging one group of texts: scores, and features where there are enough for MAUVE."""
    params = facts.params
    least = params.evaluation.mauve.min_samples
    scores = _scores(facts, count)
    enough = count >= least and references_there >= least
    return together([scores, _features(facts, count)]) if enough else scores


def _scores(facts: Facts, count: int) -> Work:
    """Scoring texts of a row's length: as many tokens of the judge's as of the model's, and no second end-of-text.

    With another rule for end-of-text tokens, or where rows hold several short documents, a few rows of the head less.
    """
    params = facts.params
    model, known = _judge(facts)
    rules = params.evaluation.judge.rules(params.compute.head_chunk)
    windows = list(plan(0, [1] * params.tokens.length, 0, rules))
    read = count * sum(len(window.inputs) for window in windows)
    rows = count * sum(sum(window.scored) for window in windows)
    return Work(
        forwards=count * len(windows),
        flops=forward_flops(model, read, rows),
        tokens=read,
        basis=_judged(facts, known),
    )


def _features(facts: Facts, count: int) -> Work:
    params = facts.params
    model, known = _judge(facts)
    read = count * min(params.tokens.length, params.evaluation.mauve.max_text_length)
    return Work(forwards=count, flops=forward_flops(model, read, 0), tokens=read, basis=_judged(facts, known))


def _judged(facts: Facts, known: bool) -> Basis:
    """A judge with another tokenizer reads other numbers of tokens."""
    params = facts.params
    return _sure(known and facts.text.known and params.judge.source is JudgeSource.TRAIN)


def _judging_memory(facts: Facts, model: PreTrainedModel) -> int:
    params = facts.params
    positions = params.evaluation.judge.batch_size * params.evaluation.judge.max_length
    trunk = _judge_trunk(model)
    chunk = trunk.head(min(params.compute.head_chunk, positions))
    return FLOAT32 * int(model.num_parameters()) + trunk.forward(positions) + chunk


def _judge_trunk(model: PreTrainedModel, number: int = FLOAT32) -> Trunk:
    config = model.config
    return Trunk(config.hidden_size, config.num_hidden_layers, config.vocab_size, number)


def _judge(facts: Facts) -> tuple[PreTrainedModel, bool]:
    params = facts.params
    return judge_model(params.judge, facts.text.vocabulary, params.tokens.length)


def _trunk(config: MdlmConfig) -> Trunk:
    return Trunk(config.hidden_size, config.n_blocks, config.vocab_size)


def _config(facts: Facts, soft_mask: SoftMaskParams | None) -> MdlmConfig:
    params = facts.params
    return mdlm_config(params.model, facts.text.vocabulary, params.tokens.length, soft_mask)


def _soft_mask(facts: Facts, model: str) -> SoftMaskParams | None:
    """Of a model such as `base` or `sm-1`."""
    params = facts.params
    settings: ArmParams | None = params.arms.settings.get(model.rpartition("-")[0])
    return None if settings is None else settings.soft_mask


def _of_text(facts: Facts) -> Basis:
    return _sure(facts.text.known)


def _sure(known: bool) -> Basis:
    return Basis.EXACT if known else Basis.ABOUT
