"""Progress of trainings at the terminal, in tokens with rate and time left, and DVCLive's log of them."""

from pathlib import Path
from typing import Any

from dvclive.live import Live
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import DVCLiveCallback

LIVE_ROOT = Path("reports/live")
"""Undeclared and not in git: what DVC tracks of a training is its history.json."""


class TokensProgress(TrainerCallback):
    """A progress bar that counts tokens.

    Args:
        label: what is trained.
        tokens_per_step: tokens an optimizer step, over all processes.
    """

    def __init__(self, label: str, tokens_per_step: int) -> None:
        self._label, self._tokens_per_step = label, tokens_per_step
        self._bar: tqdm[Any] | None = None
        self._step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where the training begins or goes on."""
        self._step = state.global_step
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps * self._tokens_per_step,
                initial=state.global_step * self._tokens_per_step,
                unit="tok",
                unit_scale=True,
                desc=self._label,
                mininterval=1,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update((state.global_step - self._step) * self._tokens_per_step)
        self._step = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest loss."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if self._bar is not None and loss is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def live(instance: str) -> DVCLiveCallback:
    """DVCLive's callback, logging into a folder of this stage instance."""
    log = Live(
        str(LIVE_ROOT / instance),
        report=None,
        save_dvc_exp=False,
        dvcyaml=None,
        monitor_system=False,
    )
    return _FromHistory(log)


class _FromHistory(DVCLiveCallback):
    """Writes the log anew where a training is resumed, from the checkpoint's history.

    DVCLive's own resuming reads its files back, which a killed process leaves cut and ahead of the checkpoint.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Begin the log with what the checkpoint has."""
        super().on_train_begin(args, state, control, model, **kwargs)  # type: ignore[no-untyped-call]
        if state.global_step == 0:  # what is in its history was logged just now
            return
        for record in state.log_history:
            logs = {name: value for name, value in record.items() if name != "step"}
            self.on_log(args, state, control, logs=logs)  # type: ignore[no-untyped-call]
