"""DVCLive's log of a training: one line a record, also where a process was killed while it wrote."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from runner.progress import LIVE_ROOT, live

HISTORY = [{"loss": 3.5, "epoch": 0.1, "step": 5}, {"loss": 2.5, "epoch": 0.2, "step": 10}]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def arguments() -> TrainingArguments:
    return TrainingArguments(output_dir="out", report_to=[], use_cpu=True)


def log(history: list[dict[str, float]], *further: float) -> None:
    """A training that starts with a history, has some further losses to log, and is killed."""
    args, control = arguments(), TrainerControl()
    state, callback = TrainerState(global_step=int(history[-1]["step"]) if history else 0), live("base")
    state.log_history = history
    callback.on_train_begin(args, state, control)
    for loss in further:
        callback.on_log(args, state, control, logs={"loss": loss})


def losses() -> list[float]:
    header, *lines = (LIVE_ROOT / "base/plots/metrics/loss.tsv").read_text().splitlines()
    assert header.split("\t") == ["step", "loss"]
    assert [int(line.split("\t")[0]) for line in lines] == list(range(len(lines)))
    return [float(line.split("\t")[1]) for line in lines]


def test_a_resumed_training_logs_its_checkpoints_history_once() -> None:
    log([], 3.5, 2.5, 9.0)  # 9.0 is after the checkpoint
    log(HISTORY, 2.0)
    assert losses() == [3.5, 2.5, 2.0]
    assert json.loads((LIVE_ROOT / "base/metrics.json").read_text())["loss"] == 2.0


def test_a_record_that_comes_before_the_training_is_logged_once() -> None:
    args, control, state = arguments(), TrainerControl(), TrainerState()
    callback = live("base")
    callback.on_log(args, state, control, logs={"loss": 3.5})
    state.log_history = [{"loss": 3.5, "step": 0}]
    callback.on_train_begin(args, state, control)
    assert losses() == [3.5]


def test_it_needs_none_of_the_files_that_a_killed_process_has_cut() -> None:
    log([], 3.5, 2.5)
    files = [path for path in LIVE_ROOT.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"metrics.json", "params.yaml", "loss.tsv"}
    for path in files:
        path.write_bytes(b"")
    log(HISTORY, 2.0)
    assert losses() == [3.5, 2.5, 2.0]
