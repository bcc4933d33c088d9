"""What the stages of the language study take up to their samples: corpus, tokens, judge, base, arms.

Costs come from the stages' own functions; what is worked out here is only what depends on data and chance.
"""

from collections.abc import Mapping
from dataclasses import replace

from commands.planning import coins
from commands.planning.facts import Facts, characters_a_token
from commands.planning.memory import FLOAT32, JSON_NUMBER, PARQUET, bytes_a_number, checkpoints, trained
from commands.planning.sampling import sampled
from commands.planning.shapes import judge_model, judge_trunk, mdlm_config, mdlm_parameters, mdlm_trunk
from commands.planning.work import Basis, Work, sure
from softmask.backbones.dit import MdlmConfig
from softmask.backbones.flops import head_flops, trunk_flops
from softmask.backbones.passes import BACKWARD
from softmask.diffusion import LogLinear
from softmask.tokens import PackedMeta
from softmask.training.masking import MaskingCollator
from stages import judge
from stages.generate import settings_of
from stages.params.base import BaseSource
from stages.params.judge import JudgeSource
from stages.params.model import SoftMaskParams
from stages.params.training import TrainingParams
from stages.shared import mdlm_training
from stages.shared.training_args import sequences_per_process

Axes = Mapping[str, str]


def corpus(facts: Facts, axes: Axes) -> Work:
    """The documents of both splits."""
    return Work(basis=sure(facts.text.known), disk=round(facts.text.characters * PARQUET))


def tokens(facts: Facts, axes: Axes) -> Work:
    """Rows of ids."""
    text, length = facts.text, facts.params.tokens.length
    rows = sum(text.rows.values())
    meta = PackedMeta(rows, length, text.documents, text.vocabulary.dtype.str, text.vocabulary)
    return Work(tokens=rows * length, basis=sure(text.known), disk=sum(meta.sizes().values()))


def train_judge(facts: Facts, axes: Axes) -> Work:
    """Training the judge, in one process; or fetching it."""
    params, length = facts.params, facts.params.tokens.length
    model, known = judge_model(params.judge, facts.text.vocabulary, length)
    parameters = int(model.num_parameters())
    if params.judge.source is JudgeSource.HUB:
        return Work(memory=FLOAT32 * parameters, disk=FLOAT32 * parameters, basis=sure(known))
    training = params.judge.train.training
    spent = judge.costs(model, training, length)
    positions = training.batch_size // training.accumulation * length
    trunk = judge_trunk(model, bytes_a_number(params.compute))
    held = trained(parameters, further=1, processes=1)
    return Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=sure(facts.text.vocabulary_known),
        memory=held + trunk.training(positions, params.compute.head_chunk),
        disk=FLOAT32 * parameters,
        unfinished=checkpoints(parameters, further=1),
    )


def base(facts: Facts, axes: Axes) -> Work:
    """Training the base; or importing or initialising it."""
    params, config = facts.params.base, config_of(facts, None)
    if params.source is BaseSource.TRAIN:
        return _training(facts, config, params.training, params.training.steps, params.seed)
    made = _untrained(config)
    # the checkpoint's tensors are there beside the model's
    return replace(made, memory=2 * made.memory) if params.source is BaseSource.CHECKPOINT else made


def arm(facts: Facts, axes: Axes) -> Work:
    """Continuing the base as one arm."""
    settings, training = facts.params.arms.settings[axes["arm"]], facts.params.arms.training
    config = config_of(facts, settings.soft_mask)
    steps = settings.steps(training.steps, BACKWARD)
    if steps == 0:
        return _untrained(config)
    return _training(facts, config, training, steps, int(axes["seed"]), settings.soft_mask)


def _untrained(config: MdlmConfig) -> Work:
    size = FLOAT32 * mdlm_parameters(config)
    return Work(memory=size, disk=size)


def _training(
    facts: Facts,
    config: MdlmConfig,
    training: TrainingParams,
    steps: int,
    seed: int,
    soft_mask: SoftMaskParams | None = None,
) -> Work:
    compute, length, diffusion = facts.params.compute, facts.params.tokens.length, facts.params.diffusion
    p_sm, micro_batches = coins.probability(soft_mask), steps * training.accumulation
    collator = (MaskingCollator if coins.tossed(p_sm, micro_batches) else coins.MeanMasking)(
        mask_token_id=int(config.mask_token_id),
        noise=LogLinear(diffusion.noise_eps),
        sampling_eps=diffusion.sampling_eps,
        micro_batch=training.batch_size // training.accumulation,
        p_sm=p_sm,
        seed=seed,
    )
    spent = mdlm_training.costs(config, collator, training.model_copy(update={"steps": steps}), length)
    parameters = mdlm_parameters(config)
    trunk, positions = mdlm_trunk(config, bytes_a_number(compute)), sequences_per_process(compute, training) * length
    held = trained(parameters, further=1, processes=compute.processes)
    return Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=coins.basis(p_sm, micro_batches) if facts.text.vocabulary_known else Basis.ABOUT,
        processes=compute.processes,
        memory=held + trunk.training(positions, compute.head_chunk),
        disk=FLOAT32 * parameters,
        unfinished=checkpoints(parameters, further=1),
    )


def generate(facts: Facts, axes: Axes) -> Work:
    """Samples of one model, by every cell; the trace, which no manifest counts, is left out."""
    soft_mask = soft_mask_of(facts, axes["model"])
    config, sampling, compute = config_of(facts, soft_mask), facts.params.sampling, facts.params.compute
    length, feedback = facts.params.tokens.length, None if soft_mask is None else soft_mask.kind
    decodings = list(sampling.decodings(soft_mask is not None))
    once = [sampled(settings_of(one, sampling, compute.head_chunk), feedback, length) for one in decodings]
    forwards = round(sampling.samples * sum(one.forwards for one in once))
    rows = round(sampling.samples * sum(one.head_rows for one in once))
    most = sampling.samples * sum(one.most_forwards for one in once)
    most_rows = sampling.samples * sum(one.most_head_rows for one in once)
    made = len(decodings) * sampling.samples * length
    at_once = min(sampling.batch_size, sampling.samples) * length
    return Work(
        forwards=forwards,
        most_forwards=most,
        flops=forwards * trunk_flops(config, length) + head_flops(config, rows),
        most_flops=most * trunk_flops(config, length) + head_flops(config, most_rows),
        tokens=made,
        basis=Basis.EXPECTED if facts.text.vocabulary_known else Basis.ABOUT,
        memory=FLOAT32 * mdlm_parameters(config) + mdlm_trunk(config).inference(at_once, compute.head_chunk),
        disk=round(made * (JSON_NUMBER + characters_a_token(facts.params.tokenizer))),
    )


def config_of(facts: Facts, soft_mask: SoftMaskParams | None) -> MdlmConfig:
    """The shape of the base, or with a soft mask of an arm."""
    return mdlm_config(facts.params.model, facts.text.vocabulary, facts.params.tokens.length, soft_mask)


def soft_mask_of(facts: Facts, model: str) -> SoftMaskParams | None:
    """Of a model such as `base` or `sm-1`."""
    settings = facts.params.arms.settings.get(model.rpartition("-")[0])
    return None if settings is None else settings.soft_mask
