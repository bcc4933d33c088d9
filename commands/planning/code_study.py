"""What the stages of the code study take: chats, bases, adapters, answers, timing.

Costs come from the stages' own functions; what is worked out here is only what depends on data and chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from commands.planning import coins
from commands.planning.answering import Answered, answered
from commands.planning.facts import Facts
from commands.planning.memory import FLOAT32, JSON_NUMBER, Trunk, bytes_a_number, checkpoints, trained
from commands.planning.shapes import dream_config, dream_parameters
from commands.planning.work import Basis, Work, sure, together
from softmask.backbones.dream import DreamConfig
from softmask.backbones.dream_flops import head_flops, trunk_flops
from softmask.decoding.dream_kinds import CacheMode
from softmask.feedback_kinds import FeedbackKind
from softmask.training.answer_trainer import dealt_round
from softmask.training.answers import AnswerNoise, AnswerStream
from stages.chat_tokens import SPLITS
from stages.params.code.finetuning import AnswerTrainingParams
from stages.params.code.generation import Decode
from stages.params.code.published import Source
from stages.params.model import SoftMaskParams
from stages.shared import dream_training
from stages.shared.training_args import sequences_per_process

Axes = Mapping[str, str]
CHARACTERS_A_TOKEN = 4
"""Of chats, about."""
CHAT_ID, CHAT_PLACES = 4, 16
"""Bytes of a token id, and of a chat's two offsets."""


def instructions(facts: Facts, axes: Axes) -> Work:
    """A family's chats as text."""
    _, tokens, known = _sizes(facts, axes["family"])
    return Work(disk=tokens * CHARACTERS_A_TOKEN, basis=sure(known))


def chat_tokens(facts: Facts, axes: Axes) -> Work:
    """A family's chats as ids."""
    count, tokens, known = _sizes(facts, axes["family"])
    return Work(tokens=tokens, disk=tokens * CHAT_ID + count * CHAT_PLACES, basis=sure(known))


def dream_base(facts: Facts, axes: Axes) -> Work:
    """Training a family's base; or taking a published one, whose weights are never in memory."""
    settings = facts.params.code.settings[axes["family"]].base
    model = _model(facts, axes["family"])
    if settings.source is not Source.TRAIN:
        return Work(disk=2 * model.parameters)  # published in 16 bits
    run = _training(facts, axes["family"], settings.training, settings.training.steps, settings.seed)
    return _with_weights(run, model.parameters, frozen=0)


def finetune(facts: Facts, axes: Axes) -> Work:
    """Finetuning an adapter on a family's base as one arm."""
    training = facts.params.code.finetuning.training
    arm = facts.params.code.arms.settings[axes["arm"]]
    model = _model(facts, axes["family"])
    steps = arm.steps(training.steps, dream_training.backward_cost(training, frozen=True))
    run = _training(facts, axes["family"], training, steps, int(axes["seed"]), arm.soft_mask, frozen=True)
    return _with_weights(run, model.adapter_parameters, frozen=model.weights)


def _with_weights(run: Work, parameters: int, frozen: int) -> Work:
    """A run with what its trained parameters and its frozen bytes take; the best weights so far are kept, too."""
    return replace(
        run,
        memory=run.memory + frozen + trained(parameters, further=1, processes=run.processes),
        disk=FLOAT32 * parameters,
        unfinished=checkpoints(parameters, further=1),
    )


def code_generate(facts: Facts, axes: Axes) -> Work:
    """One model's answers to every problem set, at every cell."""
    return _all_answers(facts, axes["family"], _feedback(facts, axes["model"]))


@cache
def _all_answers(facts: Facts, family: str, feedback: FeedbackKind | None) -> Work:
    decodes = facts.params.code.generation.decodes(facts.params.code.problem_sets.sets)
    return together([_answers(facts, family, item, feedback, None) for item in decodes])


def speed(facts: Facts, axes: Axes) -> Work:
    """Decoding a few problems again and again with bases and arms, and once more step by step beside whole forwards."""
    params = facts.params
    timing, code = params.code.speed, params.code
    there = {item.cell.name: item for item in code.generation.decodes([timing.set])}
    works = []
    for family in code.families:
        for model in ("base", *(f"{arm}-{timing.seed}" for arm in timing.arms)):
            for item in (there[name] for name in timing.cells):
                once = _answers(facts, family, item, _feedback(facts, model), timing.count)
                drifts = 2 * (item.cell.cache is not CacheMode.NONE)
                works += [once] * (timing.warm_up + timing.repeats + drifts)
    return replace(together(works), basis=Basis.ABOUT, disk=0)


def _answers(facts: Facts, family: str, item: Decode, feedback: FeedbackKind | None, count: int | None) -> Work:
    """Answers to the first `count` problems of a set, or to all, at one cell."""
    params = facts.params
    generation, compute = params.code.generation, params.compute
    length = item.task.response_length
    prompts, known = facts.prompts(family, item.set_name)
    prompts = prompts[:count]
    once = answered(item.cell, length, generation.algorithm, generation.eps, feedback)
    model = _model(facts, family)
    trunks = _trunks(model.config, prompts, length, once)
    batch, context = min(generation.batch_size, len(prompts)), max(prompts) + length
    return Work(
        forwards=once.forwards * len(prompts),
        flops=trunks + head_flops(model.config, once.head_rows * len(prompts)),
        most_flops=trunks + head_flops(model.config, once.most_head_rows * len(prompts)),
        tokens=length * len(prompts),
        basis=Basis.AT_MOST if known else Basis.ABOUT,
        memory=model.weights
        + model.trunk.inference(batch * context, min(compute.head_chunk, batch * length))
        + (0 if item.cell.cache is CacheMode.NONE else model.kept(batch * context)),
        disk=len(prompts) * length * (JSON_NUMBER + CHARACTERS_A_TOKEN),
    )


def _trunks(config: DreamConfig, prompts: Sequence[int], length: int, once: Answered) -> int:
    return sum(trunk_flops(config, once.positions(prompt + length), prompt + length) for prompt in prompts)


def _training(
    facts: Facts,
    family: str,
    training: AnswerTrainingParams,
    steps: int,
    seed: int,
    soft_mask: SoftMaskParams | None = None,
    frozen: bool = False,
) -> Work:
    """Counts of a run, and the memory of its activations."""
    chats, known = facts.chats(family)
    model, compute = _model(facts, family), facts.params.compute
    micro_batch, micro_batches = training.batch_size // training.accumulation, steps * training.accumulation
    p_sm = coins.probability(soft_mask)
    noise = AnswerNoise(
        **training.noise.model_dump(exclude={"normalisation"}),
        pad_token_id=int(model.config.pad_token_id),
        mask_token_id=int(model.config.mask_token_id),
        seed=seed,
    )
    tossed = coins.tossed(p_sm, micro_batches)
    collator = (coins.TossedAnswers if tossed else coins.MeanAnswers)(noise, micro_batch, p_sm)
    stream = AnswerStream(chats, steps * training.batch_size, micro_batch, training.length_window, seed)
    run = training.model_copy(update={"steps": steps})
    spent = dream_training.costs(model.config, collator, run, stream, frozen)
    positions = sequences_per_process(compute, training) * _longest(facts, family, training)
    return Work(
        forwards=spent["forwards"],
        flops=spent["flops"],
        tokens=spent["tokens"],
        basis=coins.basis(p_sm, micro_batches) if known else Basis.ABOUT,
        processes=compute.processes,
        apart=_evaluations(facts, family, run, soft_mask is not None),
        memory=model.trunk.training(positions, compute.head_chunk, recomputed=training.gradient_checkpointing),
    )


def _evaluations(facts: Facts, family: str, training: AnswerTrainingParams, soft: bool) -> int:
    """FLOPs of each process for the evaluation loss before, during and after a run, with soft-masking on both paths."""
    chats, _ = facts.chats(family, "validation")
    lengths, prompts = (float(sizes.mean()) for sizes in chats.sizes())
    config, count = _model(facts, family).config, min(training.evaluation.examples, len(chats))
    length, masked = round(lengths), round((lengths - prompts) / 2)
    forward = trunk_flops(config, length, length) + head_flops(config, masked)
    times = 1 + math.ceil(training.steps / training.evaluate_every)
    batches = math.ceil(count / training.evaluation.batch_size)
    dealt = dealt_round(batches, facts.params.compute.processes)
    share = min(count, len(dealt[0]) * training.evaluation.batch_size)
    return times * share * forward * (3 if soft else 1)


def _longest(facts: Facts, family: str, training: AnswerTrainingParams) -> int:
    """Tokens of the longest chat that a batch may have, end tokens included."""
    chats, known = facts.chats(family)
    longest = int(chats.sizes()[0].max()) if known else facts.params.code.instructions.max_length
    return longest + training.noise.extra_pads


@dataclass(frozen=True)
class _Model:
    """A family's model: its shape, how many parameters it and an adapter have, and bytes of a number in use."""

    config: DreamConfig
    parameters: int
    adapter_parameters: int
    number: int

    @property
    def weights(self) -> int:
        """Bytes of the weights where they are frozen or answer."""
        return self.number * self.parameters

    @property
    def trunk(self) -> Trunk:
        """What activations depend on."""
        config = self.config
        return Trunk(config.hidden_size, config.num_hidden_layers, config.vocab_size, self.number)

    def kept(self, positions: int) -> int:
        """Bytes of cached keys and values."""
        width = self.config.num_key_value_heads * (self.config.hidden_size // self.config.num_attention_heads)
        return 2 * self.number * positions * self.config.num_hidden_layers * int(width)


@cache
def _model(facts: Facts, family: str) -> _Model:
    settings = facts.params.code.settings[family]
    config = dream_config(settings.base, settings.tokenizer.train.vocab_size)
    own, adapter = dream_parameters(config, facts.params.code.finetuning.adapter)
    return _Model(config, own, adapter, bytes_a_number(facts.params.compute))


def _feedback(facts: Facts, model: str) -> FeedbackKind | None:
    """Of a model such as `base` or `sm-1`."""
    settings = facts.params.code.arms.settings.get(model.rpartition("-")[0])
    return None if settings is None or settings.soft_mask is None else settings.soft_mask.kind


def _sizes(facts: Facts, family: str) -> tuple[int, int, bool]:
    """Chats of both splits, their tokens, and whether both are counted."""
    found = [facts.chats(family, split) for split in SPLITS]
    tokens = sum(round(len(chats) * float(chats.sizes()[0].mean())) for chats, _ in found)
    return sum(len(chats) for chats, _ in found), tokens, all(known for _, known in found)
