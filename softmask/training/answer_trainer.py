"""The Trainer of Dream models: the omegas' own learning rate, evaluation, and the best weights by evaluation loss."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softmask.training.answer_objective import AnswerObjective
from softmask.training.answers import AnswerBatch
from softmask.training.lam_measures import entropy_of, lam_measures
from softmask.training.muon import MuonAdamW, split_parameters
from softmask.training.resumable import ResumableTrainer

LOSS = "eval_loss"
"""What the best weights are chosen by: the two-pass loss of a soft-masked model, the only one of a binary model."""


class Best:
    """The trained tensors with the lowest evaluation loss so far; part of every checkpoint."""

    def __init__(self, objective: AnswerObjective) -> None:
        self._objective = objective
        self._tensors: dict[str, Tensor] = {}
        self._loss, self._step = float("inf"), -1

    @property
    def found(self) -> dict[str, float | int]:
        """The best loss and its step."""
        return {"loss": self._loss, "step": self._step}

    def offer(self, loss: float, step: int) -> None:
        """Keep the present weights if they are better."""
        if loss < self._loss:
            self._loss, self._step = loss, step
            self._tensors = {name: tensor.detach().clone() for name, tensor in self._objective.state_dict().items()}

    def restore(self) -> None:
        """Give the model its best weights back."""
        self._objective.load_state_dict(self._tensors, strict=False)

    def state_dict(self) -> Mapping[str, Tensor]:
        """For a checkpoint; nothing before the first evaluation."""
        if not self._tensors:
            return {}
        found = {"loss": torch.tensor(self._loss, dtype=torch.float64), "step": torch.tensor(self._step)}
        return {**{f"weights.{name}": tensor for name, tensor in self._tensors.items()}, **found}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """From a checkpoint."""
        if not state:
            return
        self._loss, self._step = float(state["loss"]), int(state["step"])
        tensors = {name.removeprefix("weights."): t for name, t in state.items() if name.startswith("weights.")}
        device = next(self._objective.parameters()).device
        self._tensors = {name: tensor.to(device) for name, tensor in tensors.items()}


class AnswerTrainer(ResumableTrainer):
    """Trains an `AnswerObjective`.

    Args:
        objective: holds model and soft mask, and gives the loss.
        args, train_dataset, data_collator, identity, callbacks: as in `ResumableTrainer`.
        omega_learning_rate: None for a binary model.
        muon_learning_rate: of the layers' matrices; None: AdamW trains them as everything else.
        evaluation: fixed batches.
        evaluate_every: steps; the last step is always evaluated.
    """

    def __init__(
        self,
        *,
        objective: AnswerObjective,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        data_collator: Callable[[list[Any]], Any],
        identity: str,
        omega_learning_rate: float | None,
        muon_learning_rate: float | None,
        evaluation: Sequence[AnswerBatch],
        evaluate_every: int,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._objective, self._omega_lr, self._muon_lr = objective, omega_learning_rate, muon_learning_rate
        self._evaluation = evaluation
        self.best = Best(objective)
        super().__init__(
            model=objective,
            args=args,
            train_dataset=train_dataset,
            data_collator=data_collator,
            identity=identity,
            extras={"best": self.best},
            callbacks=[_Evaluate(self, evaluate_every), *callbacks],
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the omegas in a group of their own; or Muon for the layers' matrices and AdamW for the rest."""
        if self.optimizer is None:
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = self._with_muon(settings) if self._muon_lr is not None else cls(self._groups(), **settings)
        assert self.optimizer is not None
        return self.optimizer

    def _groups(self) -> list[dict[str, Any]]:
        weights = [p for p in self._objective.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": self.args.weight_decay}]
        if self._objective.soft_mask is not None:
            omegas = [p for p in self._objective.soft_mask.parameters() if p.requires_grad]
            assert self._omega_lr is not None, "a soft mask needs its own learning rate"
            groups.append({"params": omegas, "weight_decay": 0.0, "lr": self._omega_lr})
        return groups

    def _with_muon(self, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        assert self._muon_lr is not None and self._objective.soft_mask is None, (
            "Muon trains a base, which has no omegas"
        )
        matrices, others = split_parameters(self._objective.model.model.layers, self._objective.model)
        return MuonAdamW(
            matrices, others, matrix_learning_rate=self._muon_lr, weight_decay=self.args.weight_decay, adamw=settings
        )

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Evaluation losses, and for a soft-masked model the omegas and lambda at the masked positions.

        The batches are dealt to the processes, each of which gets all results, in the order of the batches.
        """
        objective = self._objective
        was_training = objective.training
        objective.train(False)
        dealt = dealt_round(len(self._evaluation), self.args.world_size)
        mine = [self._measured(self._evaluation[batch]) for batch in dealt[self.args.process_index]]
        by_batch = dict(zip(itertools.chain(*dealt), gather_object(mine), strict=True))
        objective.train(was_training)
        parts = [by_batch[batch] for batch in range(len(self._evaluation))]
        count = sum(part.count for part in parts)
        binary = sum(part.binary for part in parts) / count
        if objective.soft_mask is None:
            return {LOSS: binary}
        lams, entropies = (torch.cat(tensors) for tensors in zip(*(part.gate for part in parts), strict=True))
        gate = {**objective.soft_mask.omegas(), **lam_measures(lams, entropies)}
        return {LOSS: sum(part.two_pass for part in parts) / count, "eval_loss_binary": binary, **gate}

    def _measured(self, batch: AnswerBatch) -> "_Measured":
        objective, count = self._objective, len(batch["t"])
        moved: Any = {name: v.to(self.args.device) if isinstance(v, Tensor) else v for name, v in batch.items()}
        del moved["two_pass"]
        with self.accelerator.autocast():
            binary = float(objective.loss(**moved, guesses=None)) * count
            if (soft_mask := objective.soft_mask) is None:
                return _Measured(count, binary, 0.0, ())
            masked = objective.masked(moved["x_t"], moved["answer"])
            guesses = objective.first_pass(moved["x_t"], moved["visible"], masked, soft_mask)
            two_pass = float(objective.loss(**moved, guesses=guesses)) * count
            return _Measured(
                count, binary, two_pass, (soft_mask.lam_of(guesses).double().cpu(), entropy_of(guesses).cpu())
            )


@dataclass(frozen=True)
class _Measured:
    """Of an evaluation batch: its rows, the sums of their losses, and lambda and entropies `[M]` of a soft mask."""

    count: int
    binary: float
    two_pass: float
    gate: tuple[Tensor, ...]


def dealt_round(batches: int, processes: int) -> list[list[int]]:
    """Which batches each process takes, in turns; equally many, as sharded models need it, so the last may repeat."""
    turns = math.ceil(batches / processes)
    return [[min(turn * processes + process, batches - 1) for turn in range(turns)] for process in range(processes)]


class _Evaluate(TrainerCallback):
    """Evaluates before the Trainer saves, so that a checkpoint of that step has it."""

    def __init__(self, trainer: AnswerTrainer, every: int) -> None:
        self._trainer, self._every = trainer, every

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The gate before the first step."""
        if state.global_step == 0:
            self._trainer.log(self._trainer.measure())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate at every so many steps and at the last one."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            measures = self._trainer.measure()
            self._trainer.best.offer(measures[LOSS], state.global_step)
            loss_is_due = control.should_log  # logging takes it back, and the step's own loss would be lost
            self._trainer.log(measures)
            control.should_log = loss_is_due
