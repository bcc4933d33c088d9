"""The Trainer of masked diffusion models: EMA, the omegas' own learning rate, and the gate's log from step 0."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softmask.backbones.dit import Mdlm
from softmask.training.elbo import BinaryObjective
from softmask.training.ema import EmaCallback, averaged
from softmask.training.resumable import ResumableTrainer

Probe = Callable[[Mdlm], Mapping[str, float]]
"""What to measure on the model at each logging step, without randomness."""


class MdlmTrainer(ResumableTrainer):
    """Trains an objective around an `Mdlm`.

    Args:
        objective: holds the model and gives the loss.
        args, train_dataset, data_collator, identity, callbacks: as in `ResumableTrainer`.
        ema_decay: of the average over weights and omegas.
        omega_learning_rate: of the soft mask's parameters; None for a binary model.
        probe: measured at step 0 and at each logging step; None for a binary model.
    """

    def __init__(
        self,
        *,
        objective: BinaryObjective,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        data_collator: Callable[[list[Any]], Any],
        identity: str,
        ema_decay: float,
        omega_learning_rate: float | None,
        probe: Probe | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._mdlm, self._omega_lr, self._probe = objective.model, omega_learning_rate, probe
        self.ema = averaged(objective.model, ema_decay)
        super().__init__(
            model=objective,
            args=args,
            train_dataset=train_dataset,
            data_collator=data_collator,
            identity=identity,
            extras={"ema": self.ema},
            callbacks=[EmaCallback(self.ema, objective.model), _LogStepZero(self), *callbacks],
        )
        self.ema.to(args.device)

    @property
    def averaged_model(self) -> Mdlm:
        """The model with averaged weights and omegas."""
        model = self.ema.module
        assert isinstance(model, Mdlm)
        return model

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the omegas in a group of their own."""
        if self.optimizer is None:
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args)
            omegas = _trained(self._mdlm.soft_mask)
            weights = _trained(self._mdlm.backbone)
            groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": self.args.weight_decay}]
            if omegas:
                assert self._omega_lr is not None, "a soft mask needs its own learning rate"
                groups.append({"params": omegas, "weight_decay": 0.0, "lr": self._omega_lr})
            self.optimizer = cls(groups, **settings)
        assert self.optimizer is not None
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the omegas and the probe's measures beside the loss."""
        if "loss" in logs or self.state.global_step == 0:
            logs.update(self.gate_measures())
        super().log(logs, start_time)

    def gate_measures(self) -> dict[str, float]:
        """The omegas and the probe's measures of the model as it is now."""
        if self._mdlm.soft_mask is None or self._probe is None:
            return {}
        was_training = self._mdlm.training
        self._mdlm.train(False)
        with torch.no_grad():
            measures = {**self._mdlm.soft_mask.omegas(), **self._probe(self._mdlm)}
        self._mdlm.train(was_training)
        return measures


class _LogStepZero(TrainerCallback):
    def __init__(self, trainer: MdlmTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        measures = self._trainer.gate_measures()
        if state.global_step == 0 and measures:
            self._trainer.log(measures)
        return control


def _trained(module: torch.nn.Module | None) -> list[Tensor]:
    return [] if module is None else [p for p in module.parameters() if p.requires_grad]
