"""What training the base and training an arm share: the run itself, its costs, and what it leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from artifacts.files import write_json
from runner.progress import TokensProgress, live
from runner.stage import Context
from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.backbones.flops import head_flops, trunk_flops
from softmask.backbones.passes import BACKWARD
from softmask.diffusion import LogLinear
from softmask.tokens import PackedTokens
from softmask.training.elbo import BinaryObjective
from softmask.training.masking import MaskingCollator
from softmask.training.stream import TrainingStream
from softmask.training.trainer import MdlmTrainer, Probe
from stages.params.base import Weights
from stages.params.compute import ComputeParams
from stages.params.model import DiffusionParams, ModelParams
from stages.params.training import TrainingParams
from stages.shared.compute import require_memory
from stages.shared.training_args import training_arguments

COSTS = ("updates", "forwards", "backwards", "flops", "tokens")
"""The keys of costs.json, beside the initial omegas."""


def new_model(params: ModelParams, tokens: PackedTokens, seed: int, copies: int = 1) -> Mdlm:
    """A freshly initialised binary model; the same seed gives the same weights.

    Args:
        copies: of its weights that main memory will hold, see `require_memory`.

    Raises:
        InputError: it doesn't fit into memory.
    """
    config = MdlmConfig(
        vocab_size=tokens.vocab_size,
        mask_token_id=tokens.mask_token_id,
        length=tokens.length,
        **params.model_dump(),
    )
    require_memory(lambda: Mdlm(config), copies, "params.yaml: model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mdlm(config)


@dataclass(frozen=True)
class Job:
    """One training run.

    Args:
        label: for the progress bar and DVCLive.
        objective: the loss around the model.
        training: its settings.
        steps: optimizer steps, where an arm has fewer than its settings say; 0 trains nothing.
        seed: of data order, noise and dropout.
        p_sm: probability of the two-pass step; 0 for a binary model.
        omega_learning_rate: None for a binary model.
        probe: None for a binary model.
        weights: averaged or raw are kept.
    """

    label: str
    objective: BinaryObjective
    training: TrainingParams
    steps: int
    seed: int
    p_sm: float
    omega_learning_rate: float | None
    probe: Probe | None
    weights: Weights


def train(context: Context[Any], job: Job, compute: ComputeParams, diffusion: DiffusionParams) -> None:
    """Train, then save the model and the history, and count what it cost."""
    tokens = PackedTokens.open(context.inputs["tokens"])
    training = job.training.model_copy(update={"steps": job.steps})
    micro_batch = training.batch_size // training.accumulation
    collator = MaskingCollator(
        mask_token_id=tokens.mask_token_id,
        noise=LogLinear(diffusion.noise_eps),
        sampling_eps=diffusion.sampling_eps,
        micro_batch=micro_batch,
        p_sm=job.p_sm,
        seed=job.seed,
    )
    soft_mask = job.objective.model.soft_mask
    initial_omegas = None if soft_mask is None else soft_mask.omegas()
    args = training_arguments(compute, training, job.seed, context.checkpoints.path / "training")
    model, history = job.objective.model, list[dict[str, float]]()
    if job.steps > 0:
        trainer = _trainer(context, job, training, args, tokens, collator)
        trainer.train_resumably()
        model = trainer.averaged_model if job.weights is Weights.EMA else model
        history = trainer.history
    if args.process_index == 0:
        spent = costs(model.config, collator, training, tokens.length)
        save(model, context.outputs["model"])
        write_json(context.outputs["history"], history)
        write_json(context.outputs["costs"], {**spent, "initial_omegas": initial_omegas})
        context.counts.update(spent)


def _trainer(
    context: Context[Any],
    job: Job,
    training: TrainingParams,
    args: TrainingArguments,
    tokens: PackedTokens,
    collator: MaskingCollator,
) -> MdlmTrainer:
    callbacks: list[TrainerCallback] = [TokensProgress(job.label, training.batch_size * tokens.length)]
    if args.process_index == 0:  # the others would clear its folder
        callbacks.append(live(job.label))
    trainer = MdlmTrainer(
        objective=job.objective,
        args=args,
        train_dataset=TrainingStream(tokens, training.steps * training.batch_size, job.seed),
        data_collator=collator,
        identity=context.checkpoints.key,
        ema_decay=training.ema_decay,
        omega_learning_rate=job.omega_learning_rate,
        probe=job.probe,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def costs(config: MdlmConfig, collator: MaskingCollator, training: TrainingParams, length: int) -> Mapping[str, int]:
    """What a run took: updates, passes over a micro-batch, FLOPs by formula with half of the positions masked."""
    micro_batches = training.steps * training.accumulation
    tokens = training.batch_size // training.accumulation * length
    forwards = collator.forwards(micro_batches)
    forward = trunk_flops(config, tokens) + head_flops(config, tokens // 2)
    flops = forward * (forwards + BACKWARD * micro_batches)
    return dict(zip(COSTS, (training.steps, forwards, micro_batches, flops, tokens * micro_batches), strict=True))


def save(model: Mdlm, folder: Path) -> None:
    """Save a model for `Mdlm.from_pretrained`, as float32 safetensors on the CPU."""
    model.to("cpu").save_pretrained(folder)  # type: ignore[arg-type]
