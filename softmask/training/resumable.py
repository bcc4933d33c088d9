"""transformers' Trainer with exact resume: a run killed at any moment goes on to the same bytes.

Adds what the Trainer lacks for that: sealed atomic checkpoints, the order of data as a function of the position,
the running loss across a resume, extra state (EMA), and a stop on SIGINT/SIGTERM that saves first.
"""

import contextlib
import json
import logging
import math
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softmask.errors import InputError
from softmask.training import checkpoints
from softmask.training.stream import InOrder

logger = logging.getLogger(__name__)

HISTORY_KEYS_LEFT_OUT = ("epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
KEPT_CHECKPOINTS = 2
WINDOW_FILE = "loss_window.json"


class ExtraState(Protocol):
    """Tensors that a checkpoint keeps beside the model and the optimizer."""

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any: ...


class StopOnSignal(TrainerCallback):
    """On SIGINT or SIGTERM: finish the step, save a checkpoint, stop. The second signal stops at once."""

    def __init__(self) -> None:
        self.signalled = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Install the handlers for the time of the training; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._any_process_signalled(args):
            control.should_save = control.should_training_stop = True
        return control

    def _any_process_signalled(self, args: TrainingArguments) -> bool:
        """All processes must stop at the same step, and a signal reaches each at its own time."""
        if args.world_size > 1:
            flag = torch.tensor(float(self.signalled), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.signalled = bool(flag.item())
        return self.signalled


class ResumableTrainer(Trainer):
    """Trains a module on a `TrainingStream`, resuming exactly.

    Args:
        model: returns the loss, a scalar averaged over the micro-batch, from the collated batch as keywords.
        args: `output_dir` is the checkpoint folder, `max_steps` the length of the run.
        train_dataset: exactly max_steps x sequences a step items, in the order of training.
        data_collator: items -> batch.
        identity: hash of everything that the run is made from; checkpoints of others are left out.
        extras: name -> further state to keep in checkpoints.
        callbacks: as in Trainer.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        train_dataset: Dataset[Any],
        data_collator: Callable[[list[Any]], dict[str, Any]],
        identity: str,
        extras: Mapping[str, ExtraState] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self._stop = StopOnSignal()
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            data_collator=data_collator,
            callbacks=[*(callbacks or []), self._stop],
        )
        self.model_accepts_loss_kwargs = False
        self._identity, self._extras = identity, dict(extras or {})
        self._root = Path(str(args.output_dir))
        self._draft = False
        self._window = torch.zeros((), dtype=torch.float64)
        self._window_steps_from = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """The deterministic part of the log: one record a logging step, without times and rates."""
        records = ({k: v for k, v in r.items() if k not in HISTORY_KEYS_LEFT_OUT} for r in self.state.log_history)
        return [record for record in records if set(record) - {"step", "train_loss"}]

    def train_resumably(self) -> None:
        """Train to `max_steps`, from the newest sound checkpoint of this run if there is one.

        Raises:
            InputError: the training has diverged.
            Unavailable: the disk is full.
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint was saved.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._root / checkpoints.DRAFT, ignore_errors=True)
        start, complaints = checkpoints.newest_sound(self._root, self._identity)
        for complaint in complaints:
            logger.warning("%s", complaint)
        if start:
            logger.warning("resuming from %s", start)
            self._load_extras(start)
        with self._stop.listening(), checkpoints.refusals_are_told(self._root):
            self.train(resume_from_checkpoint=str(start) if start else None)
        if self._stop.signalled and self.state.global_step < self.args.max_steps:
            raise KeyboardInterrupt

    # ---- what the Trainer calls ----

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        return InOrder(len(dataset))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """The module's own loss on the batch."""
        loss = model(**inputs)
        assert isinstance(loss, Tensor)
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the Trainer's; the loss also enters this run's own window, which a checkpoint keeps."""
        loss = super().training_step(*args, **kwargs)
        self._window = self._window.to(loss.device) + loss.detach().double()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean loss since the last log, also where a resume lies between."""
        if "loss" in logs:
            total = self.accelerator.gather(self._window.reshape(1)).mean()
            logs["loss"] = float(total) / (self.state.global_step - self._window_steps_from)
            self._window, self._window_steps_from = torch.zeros_like(self._window), self.state.global_step
        for name, value in logs.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")
        super().log(logs, start_time)

    def _diverged(self, what: str) -> InputError:
        assert self.optimizer is not None
        rates = ", ".join(f"{rate:g}" for rate in sorted({group["lr"] for group in self.optimizer.param_groups}))
        advice = "Try a lower learning_rate, more warmup_steps or a lower max_grad_norm"
        return InputError(
            f"the training has diverged: {what} at step {self.state.global_step}, learning rate {rates}",
            where=str(self._root),
            todo=f"{advice}. {checkpoints.kept(self._root)}",
        )

    def _is_finite(self) -> bool:
        """Whether a checkpoint would hold finite numbers only, on every process."""
        assert self.model is not None and self.optimizer is not None
        weights = [parameter.detach() for parameter in self.model.parameters() if parameter.requires_grad]
        extras = [extra.state_dict() for extra in self._extras.values()]
        kept = _tensors([self._window, weights, self.optimizer.state_dict(), extras])
        finite = torch.stack([tensor.isfinite().all().to(self.args.device) for tensor in kept]).all()
        return bool(self.accelerator.gather(finite.reshape(1)).all())

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._root / checkpoints.DRAFT) if self._draft else str(self._root)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"{checkpoints.PREFIX}{self.state.global_step}"
        draft = self._root / checkpoints.DRAFT / name
        if not self._is_finite():
            raise self._diverged("a loss, a weight or a moment of the optimizer is no finite number")
        self._draft = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._draft = False
        sums = self.accelerator.gather(self._window.reshape(1)).tolist()
        if self.is_world_process_zero():
            self._save_extras(draft, sums)
            checkpoints.seal(draft, self._root / name, self._identity)
            checkpoints.prune(self._root, KEPT_CHECKPOINTS)
        self.accelerator.wait_for_everyone()

    def _save_extras(self, folder: Path, sums: list[float]) -> None:
        window = {"sums": sums, "from": self._window_steps_from}
        (folder / WINDOW_FILE).write_text(json.dumps(window), encoding="utf-8")
        for name, extra in self._extras.items():
            tensors = {key: value.contiguous().clone() for key, value in extra.state_dict().items()}
            save_file(tensors, folder / f"{name}.safetensors")

    def _load_extras(self, folder: Path) -> None:
        window = json.loads((folder / WINDOW_FILE).read_text(encoding="utf-8"))
        self._window = torch.tensor(window["sums"][self.args.process_index], dtype=torch.float64)
        self._window_steps_from = int(window["from"])
        for name, extra in self._extras.items():
            extra.load_state_dict(load_file(folder / f"{name}.safetensors"))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
