"""What the stages of the code study take: chats, bases, adapters, answers, timing.

Costs come from the stages' own functions; what is worked out here is only what depends on data and chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from softmask.backbones.dream import DreamConfig
from softmask.backbones.dream_flops import head_flops, trunk_flops
from softmask.decoding.dream_kinds import CacheMode
from softmask.feedback_kinds import FeedbackKind
from softmask.training.answers import AnswerCollator, AnswerNoise, AnswerStream
from stages import dream_training
from stages.chat_tokens import SPLITS
from stages.params.code.finetuning import AnswerTrainingParams
from stages.params.code.generation import Decode
from stages.params.code.published import Source
from stages.params.model import SoftMaskParams
from stages.planning.answering import Answered, answered
from stages.planning.facts import Facts
from stages.planning.language import JSON_NUMBER, TOSSED
from stages.planning.memory import FLOAT32, Trunk, checkpoints, trained
from stages.planning.shapes import dream_config, dream_parameters
from stages.planning.work import Basis, Work, together
from stages.training_args import sequences_per_process

Axes = Mapping[str, str]
CHARACTERS_A_TOKEN = 4
"""Of chats, about."""
CHAT_ID, CHAT_PLACES = 4, 16
"""Bytes of a token id, and of a chat's two offsets."""


class Expectation(AnswerCollator):
    """A collator that counts on the mean of its coins."""

    def forwards(self, micro_batches: int) -> int:
        """Expected forward passes of the first `micro_batches` micro-batches."""
        return round(micro_batches * (1 + self._p_sm))


class Tossed(AnswerCollator):
    """A collator that remembers how its coins fell: families and arms share them."""

    def forwards(self, micro_batches: int) -> int:
        """Forward passes of the first `micro_batches` micro-batches."""
        return _tossed(self._noise, self._p_sm, micro_batches)


@cache
def _tossed(noise: AnswerNoise, p_sm: float, micro_batches: int) -> int:
    return AnswerCollator(noise, 1, p_sm).forwards(micro_batches)


def instructions(facts: Facts, axes: Axes) -> Work:
    """A family's chats as text."""
    _, tokens, known = _sizes(facts, axes["family"])
    return Work(disk=tokens * CHARACTERS_A_TOKEN, basis=_sure(known))


def chat_tokens(facts: Facts, axes: Axes) -> Work:
    """A family's chats as ids."""
    count, tokens, known = _sizes(facts, axes["family"])
    return Work(tokens=tokens, disk=tokens * CHAT_ID + count * CHAT_PLACES, basis=_sure(known))


def dream_base(facts: Facts, axes: Axes) -> Work:
    """Training a family's base; or taking a published one, whose weights are never in memory."""
    settings = facts.params.code.settings[axes["family"]].base
    model = _model(facts, axes["family"])
    if settings.source is not Source.TRAIN:
        return Work(disk=2 * model.parameters)  # published in 16 bits
    held = trained(model.parameters, averaged=True, processes=facts.params.compute.processes)
    return Work(
        **_training(facts, axes["family"], settings.training, settings.training.steps, settings.seed),
        memory=held + _activations(facts, axes["family"], settings.training),
        disk=FLOAT32 * model.parameters,
        unfinished=checkpoints(model.parameters, copies=1),
    )


def finetune(facts: Facts, axes: Axes) -> Work:
    """Finetuning an adapter on a family's base as one arm."""
    training = facts.params.code.finetuning.training
    arm = facts.params.code.arms.settings[axes["arm"]]
    model = _model(facts, axes["family"])
    steps, seed = arm.steps(training.steps, dream_training.backward_cost(training, frozen=True)), int(axes["seed"])
    held = trained(model.adapter_parameters, averaged=True, processes=facts.params.compute.processes)
    return Work(
        **_training(facts, axes["family"], training, steps, seed, arm.soft_mask, frozen=True),
        memory=model.weights + held + _activations(facts, axes["family"], training),
        disk=FLOAT32 * model.adapter_parameters,
        unfinished=checkpoints(model.adapter_parameters, copies=1),
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
    all_of_it = together(works)
    return Work(
        forwards=all_of_it.forwards,
        flops=all_of_it.flops,
        tokens=all_of_it.tokens,
        basis=Basis.ABOUT,
        memory=all_of_it.memory,
    )


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
        + model.trunk.forward(batch * context)
        + model.trunk.head(min(compute.head_chunk, batch * length))
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
) -> dict[str, Any]:
    """Counts of a run, as arguments of `Work`."""
    params = facts.params
    training = training.model_copy(update={"steps": steps})
    chats, known = facts.chats(family)
    config = _model(facts, family).config
    micro_batch = training.batch_size // training.accumulation
    p_sm = 0.0 if soft_mask is None else soft_mask.p_sm
    tossed = 0 < p_sm < 1 and steps * training.accumulation <= TOSSED
    noise = AnswerNoise(
        **training.noise.model_dump(exclude={"normalisation"}),
        pad_token_id=int(config.pad_token_id),
        mask_token_id=int(config.mask_token_id),
        seed=seed,
    )
    collator = (Tossed if tossed else Expectation)(noise, micro_batch, p_sm)
    stream = AnswerStream(chats, steps * training.batch_size, micro_batch, training.length_window, seed)
    spent = dream_training.costs(config, collator, training, stream, frozen)
    basis = Basis.EXACT if tossed or p_sm in (0.0, 1.0) else Basis.EXPECTED
    return {
        **{name: spent[name] for name in ("forwards", "flops", "tokens")},
        "basis": basis if known else Basis.ABOUT,
        "processes": params.compute.processes,
    }


def _activations(facts: Facts, family: str, training: AnswerTrainingParams) -> int:
    """Of a micro-batch of chats as long as the longest that is kept."""
    params = facts.params
    longest = params.code.instructions.max_length + training.noise.extra_pads
    chats, known = facts.chats(family)
    if known:
        longest = int(chats.sizes()[0].max()) + training.noise.extra_pads
    positions = sequences_per_process(params.compute, training) * longest
    trunk = _model(facts, family).trunk
    head = trunk.head(min(params.compute.head_chunk, positions))
    return trunk.activations(positions, recomputed=training.gradient_checkpointing) + head


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
    return _Model(config, own, adapter, 2 if facts.params.compute.precision == "bf16" else FLOAT32)


def _feedback(facts: Facts, model: str) -> FeedbackKind | None:
    """Of a model such as `base` or `sm-1`."""
    params = facts.params
    settings = params.code.arms.settings.get(model.rpartition("-")[0])
    return None if settings is None or settings.soft_mask is None else settings.soft_mask.kind


def _sizes(facts: Facts, family: str) -> tuple[int, int, bool]:
    """Chats of both splits, their tokens, and whether both are counted."""
    found = [facts.chats(family, split) for split in SPLITS]
    tokens = sum(round(len(chats) * float(chats.sizes()[0].mean())) for chats, _ in found)
    return sum(len(chats) for chats, _ in found), tokens, all(known for _, known in found)


def _sure(known: bool) -> Basis:
    return Basis.EXACT if known else Basis.ABOUT
