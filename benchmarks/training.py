"""A soft-masked finetuning step against a binary one: the small Dream of the local profile, with its DoRA adapter.

Random weights and tokens: times do not depend on their values. Ratios are of medians from one run, in turns.
"""

from functools import partial

import numpy as np
import torch

from benchmarks.table import Cost, Measured, alternate
from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.backbones.dream_adapter import AdapterSettings, add_adapter
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from softmask.loss_kinds import Normalisation
from softmask.training.answer_objective import AnswerObjective
from softmask.training.answers import Answer, AnswerBatch, AnswerCollator, AnswerNoise

CONFIG = DreamConfig(
    vocab_size=512,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    mask_token_id=511,
    pad_token_id=510,
    bos_token_id=510,
    eos_token_id=510,
)
ADAPTER = AdapterSettings(
    rank=16, alpha=16, dropout=0.0, targets=("q_proj", "k_proj", "v_proj", "o_proj"), dora=True, seed=0
)
BATCH, PROMPT, RESPONSE = 16, 48, 48
"""Sequences of a step, and tokens of each but for the fill."""
K, P_SM, HEAD_CHUNK = 1, 0.8, 2048
"""p_sm of the paper; k of its code study."""
WARM_UP, REPEATS = 2, 10


def measure() -> list[Measured]:
    """Seconds of a step, and what soft-masking makes of them; under a minute on one core."""
    soft_mask = SoftMask(
        omega_s=0.5,
        omega_a=3.0,
        omega_b=-1.5,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=K,
    )
    objectives = [_objective(None), _objective(soft_mask)]
    tasks = [
        partial(_step, objective, _optimizer(objective), _batch(two_pass))
        for objective, two_pass in zip(objectives, (False, True), strict=True)
    ]
    binary, soft = alternate(tasks, REPEATS, WARM_UP)
    expected = P_SM * soft + (1 - P_SM) * binary
    size = sum(parameter.numel() for parameter in objectives[0].model.parameters()) / 1e6
    shapes = f"{size:.1f}M parameters, {BATCH} x {PROMPT + RESPONSE} tokens and their fill"
    against = "Dream binary step"
    return [
        Measured("Dream training step SM", Cost(soft), against, Cost(binary), note=f"{shapes}; k = {K}, both passes"),
        Measured(
            f"Dream training step, p_sm {P_SM}", Cost(expected), against, Cost(binary), note="mean of both, by p_sm"
        ),
    ]


def _objective(soft_mask: SoftMask | None) -> AnswerObjective:
    torch.manual_seed(0)
    model = DreamModel(CONFIG)
    add_adapter(model, ADAPTER)
    return AnswerObjective(model, soft_mask, Normalisation.MASKED, HEAD_CHUNK).train()


def _optimizer(objective: AnswerObjective) -> torch.optim.Optimizer:
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0)


def _batch(two_pass: bool) -> AnswerBatch:
    noise = AnswerNoise(
        t_low=0.2,
        t_high=0.8,
        extra_pads=49,
        multiple_of=8,
        pad_token_id=int(CONFIG.pad_token_id or 0),
        mask_token_id=int(CONFIG.mask_token_id),
        seed=0,
    )
    ids = np.random.default_rng(0).integers(0, 510, (BATCH, PROMPT + RESPONSE))
    items: list[Answer] = [
        {"position": position, "ids": row, "prompt_length": PROMPT} for position, row in enumerate(ids)
    ]
    return AnswerCollator(noise, micro_batch=BATCH, p_sm=float(two_pass))(items)


def _step(objective: AnswerObjective, optimizer: torch.optim.Optimizer, batch: AnswerBatch) -> None:
    optimizer.zero_grad()
    objective(**batch).backward()
    optimizer.step()
