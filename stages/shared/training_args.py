"""Turns `compute` and a training section into transformers' TrainingArguments; nothing else is decided here."""

from pathlib import Path

from transformers import TrainingArguments

from softmask.errors import InputError
from stages.params.compute import ComputeParams
from stages.params.training import RunParams


def sequences_per_process(compute: ComputeParams, training: RunParams) -> int:
    """Sequences of one micro-batch on one process.

    Raises:
        InputError: the batch can't be dealt out evenly.
    """
    micro_batch = training.batch_size // training.accumulation
    if micro_batch % compute.processes:
        raise InputError(
            f"a micro-batch of {micro_batch} sequences can't be dealt to {compute.processes} processes",
            where="params.yaml: compute.processes",
            expected="a divisor of batch_size / accumulation",
        )
    return micro_batch // compute.processes


def training_arguments(
    compute: ComputeParams,
    training: RunParams,
    seed: int,
    checkpoint_dir: Path,
    schedule: str = "constant_with_warmup",
) -> TrainingArguments:
    """The Trainer's arguments; reporting goes through callbacks only.

    Args:
        schedule: transformers' name of the learning rate's course after the warm-up.
    """
    return TrainingArguments(
        output_dir=str(checkpoint_dir),
        max_steps=training.steps,
        per_device_train_batch_size=sequences_per_process(compute, training),
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=training.warmup_steps,
        optim="adamw_torch_fused",
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        adam_epsilon=training.epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        logging_strategy="steps",
        logging_steps=training.log_every,
        logging_nan_inf_filter=False,  # a wait for the device at every step; ResumableTrainer stops at such a loss
        save_strategy="steps",
        save_steps=training.save_every,
        seed=seed,
        data_seed=seed,
        use_cpu=compute.device == "cpu",
        bf16=compute.precision == "bf16",
        fsdp="full_shard auto_wrap" if compute.fsdp else "",
        ddp_find_unused_parameters=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=compute.device == "cuda",
        dataloader_drop_last=True,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,  # runner.progress shows tokens instead
        full_determinism=False,
    )
