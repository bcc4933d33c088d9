"""Exponential moving average of all trained parameters, omegas included, with the reference's warm-up."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def average(decay: float, shadow: list[Tensor], params: list[Tensor], updates: int) -> None:
    """One update in place: shadow += (1 - d)(params - shadow), d = min(decay, (1 + n) / (10 + n)), n counted from 1."""
    d = min(decay, (1 + updates) / (10 + updates))
    torch._foreach_lerp_(shadow, params, 1 - d)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An averaged copy of `model` that starts at its present weights."""

    @torch.no_grad()
    def update(shadow: Any, params: Any, count: Any) -> None:
        average(decay, list(shadow), list(params), int(count))

    ema = AveragedModel(model, multi_avg_fn=update)
    ema.update_parameters(model)  # the first call copies and sets the count to 1
    return ema


class EmaCallback(TrainerCallback):
    """Updates the average after every optimizer step."""

    def __init__(self, ema: AveragedModel, model: nn.Module) -> None:
        self._ema, self._model = ema, model

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self._ema.update_parameters(self._model)
        return control
