"""What training a small Dream and finetuning an adapter share: the run itself, its costs, and what it leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from artifacts.files import write_json
from runner.progress import TokensProgress, live
from runner.stage import Context
from softmask.backbones.dream import DreamConfig
from softmask.backbones.dream_flops import head_flops, trunk_flops
from softmask.backbones.passes import BACKWARD, BACKWARD_FROZEN
from softmask.errors import InputError
from softmask.training.answer_objective import AnswerObjective
from softmask.training.answer_trainer import AnswerTrainer
from softmask.training.answers import AnswerCollator, AnswerNoise, AnswerStream, evaluation_batches
from softmask.training.chat_tokens import ChatTokens
from stages.params.code.finetuning import AnswerNoiseParams, AnswerTrainingParams
from stages.params.compute import ComputeParams
from stages.shared.training_args import training_arguments

COSTS = ("updates", "forwards", "backwards", "flops", "tokens")
"""The keys of costs.json, beside the initial omegas and the best step."""


@dataclass(frozen=True)
class AnswerJob:
    """One training run.

    Args:
        label: for the progress bar and DVCLive.
        objective: the loss around the model.
        training: its settings.
        steps: optimizer steps, where an arm has fewer than its settings say.
        seed: of data order, noise and dropout.
        p_sm: probability of the two-pass step; 0 for a binary model.
        omega_learning_rate: None for a binary model.
        muon_learning_rate: of the layers' matrices; None: AdamW trains everything.
        frozen: only an adapter is trained.
    """

    label: str
    objective: AnswerObjective
    training: AnswerTrainingParams
    steps: int
    seed: int
    p_sm: float
    omega_learning_rate: float | None
    muon_learning_rate: float | None
    frozen: bool


def train(context: Context[Any], job: AnswerJob, compute: ComputeParams) -> bool:
    """Train, leave the best weights in the objective's model, and write history and costs.

    Returns:
        Whether this is the process that writes the outputs.
    """
    chats = ChatTokens.open(context.inputs["tokens"])
    require_vocabulary(job.objective.model.config, chats, context.inputs["tokens"])
    training = job.training.model_copy(update={"steps": job.steps})
    micro_batch = training.batch_size // training.accumulation
    collator = AnswerCollator(noise_of(training.noise, chats, job.seed), micro_batch, job.p_sm)
    stream = AnswerStream(chats, training.steps * training.batch_size, micro_batch, training.length_window, job.seed)
    root = context.checkpoints.path / "training"
    soft_mask = job.objective.soft_mask
    initial_omegas = None if soft_mask is None else soft_mask.omegas()
    args = training_arguments(compute, training, job.seed, root, training.schedule)
    tokens_per_step = round(float(stream.mean_length) * training.batch_size)
    callbacks: list[TrainerCallback] = [TokensProgress(job.label, tokens_per_step)]
    if args.process_index == 0:  # the others would clear its folder
        callbacks.append(live(job.label))
    if training.gradient_checkpointing:
        job.objective.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    trainer = AnswerTrainer(
        objective=job.objective,
        args=args,
        train_dataset=stream,
        data_collator=collator,
        identity=context.checkpoints.key,
        omega_learning_rate=job.omega_learning_rate,
        muon_learning_rate=job.muon_learning_rate,
        evaluation=_evaluation(context, training, chats),
        evaluate_every=training.evaluate_every,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train_resumably()
    trainer.best.restore()
    first = bool(trainer.is_world_process_zero())
    if first:
        spent = costs(job.objective.model.config, collator, training, stream, job.frozen)
        write_json(context.outputs["history"], trainer.history)
        write_json(context.outputs["costs"], {**spent, "initial_omegas": initial_omegas, "best": trainer.best.found})
        context.counts.update(spent)
    return first


def require_vocabulary(config: DreamConfig, chats: ChatTokens, where: Path) -> None:
    """Hold the chats to the model's vocabulary and mask.

    Raises:
        InputError: they were made with another tokenizer.
    """
    if chats.vocab_size > config.vocab_size or chats.mask_token_id != config.mask_token_id:
        raise InputError(
            f"{chats.vocab_size} ids with the mask {chats.mask_token_id}",
            where=str(where),
            expected=f"at most the model's {config.vocab_size} ids, and its mask {config.mask_token_id}",
            todo="Make them with the tokenizer that the base was trained with",
        )


def noise_of(params: AnswerNoiseParams, chats: ChatTokens, seed: int) -> AnswerNoise:
    """The noise of a training."""
    values = params.model_dump(exclude={"normalisation"})
    return AnswerNoise(**values, pad_token_id=chats.pad_token_id, mask_token_id=chats.mask_token_id, seed=seed)


def _evaluation(context: Context[Any], training: AnswerTrainingParams, chats: ChatTokens) -> Any:
    params = training.evaluation
    noise = AnswerNoise(
        t_low=params.t_low,
        t_high=params.t_high,
        extra_pads=0,
        multiple_of=training.noise.multiple_of,
        pad_token_id=chats.pad_token_id,
        mask_token_id=chats.mask_token_id,
        seed=params.seed,
    )
    validation = ChatTokens.open(context.inputs["validation"])
    return evaluation_batches(validation, noise, params.examples, params.batch_size)


def backward_cost(training: AnswerTrainingParams, frozen: bool) -> int:
    """What a backward pass costs, in forwards; with gradient checkpointing it makes one anew."""
    return (BACKWARD_FROZEN if frozen else BACKWARD) + training.gradient_checkpointing


def costs(
    config: DreamConfig, collator: AnswerCollator, training: AnswerTrainingParams, stream: AnswerStream, frozen: bool
) -> Mapping[str, int]:
    """What a run took: updates, passes over a micro-batch, tokens without padding, and FLOPs by formula.

    FLOPs take chats of mean length, with the head on half of the mean answer; further end tokens are left out.
    """
    micro_batches = training.steps * training.accumulation
    sequences = training.batch_size // training.accumulation
    length, answer = stream.mean_length, stream.mean_answer
    forward = sequences * (trunk_flops(config, round(length), round(length)) + head_flops(config, round(answer / 2)))
    forwards = collator.forwards(micro_batches)
    flops = forward * (forwards + backward_cost(training, frozen) * micro_batches)
    tokens = round(length * sequences * micro_batches)
    return dict(zip(COSTS, (training.steps, forwards, micro_batches, flops, tokens), strict=True))
