"""Training: the stream, the noise, the objective, EMA and learning rates, and resuming to the same bytes."""

import errno
import logging
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from softmask.diffusion import LogLinear
from softmask.errors import InputError, Unavailable
from softmask.feedback_kinds import FeedbackKind
from softmask.seeds import mix_seed
from softmask.training import checkpoints
from softmask.training.elbo import BinaryObjective
from softmask.training.ema import averaged
from softmask.training.gate_probe import GateProbe
from softmask.training.masking import MaskingCollator
from softmask.training.soft_mask_objective import SoftMaskObjective, first_pass
from softmask.training.stream import InOrder, TrainingStream
from softmask.training.trainer import MdlmTrainer
from tests.softmask.tiny import MASK, masked_rows, soft_mask_settings, tiny_mdlm
from tests.threads import threads

NOISE = LogLinear(1e-3)
STEPS, BATCH, ACCUMULATION, LENGTH = 13, 2, 2, 6


class ArrayRows:
    """Rows of token ids in memory."""

    def __init__(self, n: int) -> None:
        self.length = LENGTH
        self._array = np.random.default_rng(0).integers(0, MASK, (n, LENGTH))

    def __len__(self) -> int:
        return len(self._array)

    def rows(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = self._array[indices]
        return result


def collator(micro_batch: int = BATCH, p_sm: float = 0.5, seed: int = 1) -> MaskingCollator:
    return MaskingCollator(
        mask_token_id=MASK, noise=NOISE, sampling_eps=1e-3, micro_batch=micro_batch, p_sm=p_sm, seed=seed
    )


# The stream


@given(st.integers(1, 7), st.permutations(range(20)), st.integers(0, 5))
def test_an_item_of_the_stream_depends_on_its_position_alone(n: int, order: list[int], seed: int) -> None:
    in_order, any_order = TrainingStream(ArrayRows(n), 20, seed), TrainingStream(ArrayRows(n), 20, seed)
    expected = [in_order[position]["input_ids"] for position in range(20)]
    for position in order:
        item = any_order[position]
        assert item["position"] == position and torch.equal(item["input_ids"], expected[position])


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    rows = ArrayRows(12)
    stream = TrainingStream(rows, 36, seed=0)
    epochs = [[stream[12 * epoch + i]["input_ids"].tolist() for i in range(12)] for epoch in range(3)]
    everything = sorted(rows.rows(np.arange(12)).tolist())
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[1] != epochs[2]
    other = TrainingStream(rows, 36, seed=1)
    assert [other[i]["input_ids"].tolist() for i in range(12)] != epochs[0]
    assert len(stream) == 36 and list(InOrder(4)) == [0, 1, 2, 3]


def test_mixed_seeds_are_all_different() -> None:
    seeds = {mix_seed(a, b, c) for a in range(6) for b in range(6) for c in range(6)}
    assert len(seeds) == 216 and all(0 <= seed < 2**63 for seed in seeds)


# The noise


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 50), st.integers(0, 9))
def test_two_ranks_draw_the_noise_that_one_process_draws(half: int, micro: int, seed: int) -> None:
    stream, collate = TrainingStream(ArrayRows(30), 10_000, 0), collator(2 * half, seed=seed)
    items = [stream[micro * 2 * half + i] for i in range(2 * half)]
    whole, ranks = collate(items), [collate(items[:half]), collate(items[half:])]
    assert torch.equal(torch.cat([rank["x0"] for rank in ranks]), whole["x0"])
    assert torch.equal(torch.cat([rank["x_t"] for rank in ranks]), whole["x_t"])
    assert torch.equal(torch.cat([rank["t"] for rank in ranks]), whole["t"])
    assert [rank["two_pass"] for rank in ranks] == [whole["two_pass"]] * 2  # one coin a micro-batch


def test_times_are_spread_evenly_over_a_micro_batch() -> None:
    stream, collate = TrainingStream(ArrayRows(30), 1000, 0), collator(10)
    for micro in range(5):
        t = collate([stream[10 * micro + i] for i in range(10)])["t"].double()
        assert sorted(((t - 1e-3) / (1 - 1e-3) * 10).floor().tolist()) == list(range(10))


def test_tokens_are_masked_as_often_as_their_time_says() -> None:
    stream, collate = TrainingStream(ArrayRows(30), 100_000, 0), collator(500)
    batches = [collate([stream[500 * micro + i] for i in range(500)]) for micro in range(4)]
    t, masked = torch.cat([b["t"] for b in batches]), torch.cat([b["x_t"] == MASK for b in batches])
    chance = 1 - NOISE.alpha(t)
    deviation = (masked.double().mean(1) - chance).sum() / (chance * (1 - chance) / LENGTH).sum().sqrt()
    assert abs(deviation) < 4
    assert all(torch.equal(b["x_t"][b["x_t"] != MASK], b["x0"][b["x_t"] != MASK]) for b in batches)


@pytest.mark.parametrize("p_sm", [0.0, 0.8, 1.0])
def test_the_coin_falls_with_probability_p_sm_and_forwards_are_counted(p_sm: float) -> None:
    collate, n = collator(p_sm=p_sm), 1000
    heads = sum(collate.two_pass(micro) for micro in range(n))
    assert abs(heads - n * p_sm) <= 4 * (n * p_sm * (1 - p_sm)) ** 0.5
    assert collate.forwards(n) == n + heads


# The objective


@pytest.mark.parametrize("kind", FeedbackKind)
def test_the_first_pass_keeps_no_graph(kind: FeedbackKind, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings(kind))
    plain, outputs = model.hidden, []

    def hidden(*arguments: Any) -> Tensor:
        outputs.append(plain(*arguments))
        return outputs[-1]

    monkeypatch.setattr(model, "hidden", hidden)
    x0, x_t = masked_rows(3, LENGTH)
    SoftMaskObjective(model, NOISE, 4)(x0, x_t, torch.full((3,), 0.5), True).backward()
    assert [output.requires_grad for output in outputs] == [False, True]


@pytest.mark.parametrize("kind", FeedbackKind)
def test_a_two_pass_steps_gradients_treat_the_guesses_as_constants(kind: FeedbackKind) -> None:
    x0, x_t = masked_rows(3, LENGTH)
    model, frozen = tiny_mdlm(soft_mask_settings(kind)), tiny_mdlm(soft_mask_settings(kind))
    objective = SoftMaskObjective(model, NOISE, 4)
    t = torch.tensor([0.2, 0.5, 0.9])
    objective(x0, x_t, t, True).backward()
    guesses = first_pass(frozen, x_t, 4)  # of another copy: no gradient can reach `model` through them
    other = tiny_mdlm(soft_mask_settings(kind))
    BinaryObjective(other, NOISE, 4).loss(x0, x_t, t, guesses).backward()
    gradients, expected = dict(model.named_parameters()), dict(other.named_parameters())
    for name, parameter in gradients.items():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            torch.testing.assert_close(parameter.grad, expected[name].grad)
            assert "omega" not in name or parameter.grad != 0, name


def test_without_the_coin_a_soft_masked_step_is_binary() -> None:
    x0, x_t = masked_rows(3, LENGTH)
    t = torch.tensor([0.2, 0.5, 0.9])
    soft = SoftMaskObjective(tiny_mdlm(soft_mask_settings()), NOISE, 4)
    binary = BinaryObjective(tiny_mdlm(), NOISE, 4)
    assert torch.equal(soft(x0, x_t, t, False), binary(x0, x_t, t, False))
    assert not torch.equal(soft(x0, x_t, t, True), binary(x0, x_t, t, True))


def test_the_loss_is_the_weighted_cross_entropy_per_token() -> None:
    x0, x_t = masked_rows(3, LENGTH)
    t, model = torch.tensor([0.2, 0.5, 0.9]), tiny_mdlm()
    with torch.no_grad():
        log_p = torch.log_softmax(model(x_t)[..., :MASK], -1).gather(-1, x0[..., None]).squeeze(-1)
    expected = (torch.where(x_t == MASK, -log_p, 0.0) / t[:, None]).mean()
    torch.testing.assert_close(BinaryObjective(model, NOISE, 4)(x0, x_t, t, False).detach(), expected)


def test_the_gate_probe_measures_lambda_on_its_rows() -> None:
    model = tiny_mdlm(soft_mask_settings())
    _, x_t = masked_rows(5, LENGTH)
    with torch.no_grad():
        lams, entropies = GateProbe(x_t, head_chunk=4, batch_size=2).measure(model)
        measures = GateProbe(x_t, head_chunk=4, batch_size=5)(model)
    assert model.soft_mask is not None
    torch.testing.assert_close(lams.float(), model.soft_mask.lam(-entropies.float()).detach())
    assert len(lams) == int((x_t == MASK).sum())
    assert measures["lam_mean"] == pytest.approx(lams.mean().item(), rel=1e-5)
    assert measures["lam_confident"] > measures["lam_mean"] > measures["lam_unsure"]


# EMA and learning rates


def test_the_average_covers_weights_and_omegas_with_the_warm_up() -> None:
    model = tiny_mdlm(soft_mask_settings())
    ema, decay = averaged(model, 0.3), 0.3
    shadow = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert {"soft_mask.raw_omega_s", "soft_mask.raw_omega_a", "soft_mask.raw_omega_b"} < shadow.keys()
    for n in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n)))
        ema.update_parameters(model)
        d = min(decay, (1 + n) / (10 + n))
        assert (d < decay) == (n < 3)  # the warm-up counts at first
        for name, parameter in model.named_parameters():
            shadow[name] = d * shadow[name] + (1 - d) * parameter.detach()
    for name, parameter in ema.module.named_parameters():
        torch.testing.assert_close(parameter, shadow[name])


# The Trainer


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self._step, self._act = step, act

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step == self._step:
            self._act()
        return control


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


def kill() -> None:
    raise KilledError


def trainer_of(
    folder: Path,
    kind: FeedbackKind | None = FeedbackKind.TOP_K,
    identity: str = "mine",
    callbacks: tuple[TrainerCallback, ...] = (),
    log_every: int = 3,
    p_sm: float = 0.5,
    **changes: Any,
) -> MdlmTrainer:
    """Dropout is on, checkpoints are made every 5 steps, records every 3."""
    model = tiny_mdlm(None if kind is None else soft_mask_settings(kind), dropout=0.3)
    arguments: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 4,
        "logging_steps": log_every,
        "save_steps": 5,
        "seed": 7,
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": [],
    }
    _, x_t = masked_rows(3, LENGTH, seed=9)
    return MdlmTrainer(
        objective=BinaryObjective(model, NOISE, 4) if kind is None else SoftMaskObjective(model, NOISE, 4),
        args=TrainingArguments(output_dir=str(folder), **{**arguments, **changes}),
        train_dataset=TrainingStream(ArrayRows(11), STEPS * BATCH * ACCUMULATION, seed=3),
        data_collator=collator(p_sm=p_sm),
        identity=identity,
        ema_decay=0.9,
        omega_learning_rate=None if kind is None else 0.05,
        probe=None if kind is None else GateProbe(x_t, 4, 2),
        callbacks=list(callbacks),
    )


def trained(trainer: MdlmTrainer) -> BinaryObjective:
    """The objective, with the trained model in it."""
    assert isinstance(trainer.model, BinaryObjective)
    return trainer.model


Result = tuple[dict[str, bytes], list[dict[str, Any]]]


def result(trainer: MdlmTrainer) -> Result:
    """Every byte of the trained and the averaged model, and the history."""
    models = {"raw": trained(trainer).model, "ema": trainer.averaged_model}
    return {
        f"{which}.{name}": tensor.numpy().tobytes()
        for which, model in models.items()
        for name, tensor in model.state_dict().items()
    }, trainer.history


def train(folder: Path, **changes: Any) -> Result:
    trainer = trainer_of(folder, **changes)
    trainer.train_resumably()
    return result(trainer)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run from start to end with the settings of `trainer_of`, on one thread as all tests here."""
    with threads(1):
        return train(tmp_path_factory.mktemp("uninterrupted"))


def train_until_killed(folder: Path, step: int, **changes: Any) -> None:
    with pytest.raises(KilledError):
        train(folder, callbacks=(At(step, kill),), **changes)


def test_dropout_and_the_seed_matter(uninterrupted: Result, tmp_path: Path) -> None:
    assert train(tmp_path, seed=8)[0] != uninterrupted[0]  # so that equal bytes mean something below


@pytest.mark.parametrize("steps", [(2,), (6,), (11,), (7, 8, 12)], ids=str)
def test_a_killed_run_goes_on_to_the_same_bytes(steps: tuple[int, ...], uninterrupted: Result, tmp_path: Path) -> None:
    for step in steps:
        train_until_killed(tmp_path, step)
    assert train(tmp_path) == uninterrupted


@pytest.mark.parametrize("kind", [None, FeedbackKind.FULL])
def test_binary_and_full_vocabulary_runs_resume_to_the_same_bytes(kind: FeedbackKind | None, tmp_path: Path) -> None:
    expected = train(tmp_path / "whole", kind=kind)
    train_until_killed(tmp_path / "killed", 7, kind=kind)
    assert train(tmp_path / "killed", kind=kind) == expected


def damage(what: str, folder: Path) -> None:
    if what == "flipped bit":
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif what == "missing file":
        (folder / "optimizer.pt").unlink()
    elif what == "cut file":
        (folder / "ema.safetensors").write_bytes((folder / "ema.safetensors").read_bytes()[:-1])
    elif what == "no seal":
        (folder / checkpoints.SEAL).unlink()
    else:
        (folder / checkpoints.SEAL).write_text('{"identity": "mi', encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("flipped bit", "is torn: model.safetensors is missing or has changed"),
        ("missing file", "is torn: optimizer.pt is missing or has changed"),
        ("cut file", "is torn: ema.safetensors is missing or has changed"),
        ("no seal", "is torn: it has no seal"),
        ("cut seal", "is torn: its seal can't be read"),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_is_used(
    what: str, complaint: str, uninterrupted: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_until_killed(tmp_path, 11)
    damage(what, tmp_path / "checkpoint-10")
    with caplog.at_level(logging.WARNING, "softmask"):
        assert train(tmp_path) == uninterrupted
    assert f"checkpoint {tmp_path / 'checkpoint-10'} {complaint}; it is left out" in caplog.messages
    assert f"resuming from {tmp_path / 'checkpoint-5'}" in caplog.messages


def test_a_foreign_checkpoint_is_named_and_never_used(
    uninterrupted: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_until_killed(tmp_path, 7, identity="another's", learning_rate=0.1)
    with caplog.at_level(logging.WARNING, "softmask"):
        assert train(tmp_path) == uninterrupted
    assert any("checkpoint-5 is foreign: it belongs to a run with other" in message for message in caplog.messages)
    assert not any("resuming" in message for message in caplog.messages)


def test_a_half_written_checkpoint_is_swept_away(uninterrupted: Result, tmp_path: Path) -> None:
    train_until_killed(tmp_path, 7)
    draft = tmp_path / checkpoints.DRAFT / "checkpoint-10"
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"half")
    assert train(tmp_path) == uninterrupted
    assert not draft.exists() or (draft / "model.safetensors").read_bytes() != b"half"


def test_a_signal_saves_a_checkpoint_and_stops(uninterrupted: Result, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, callbacks=(At(4, lambda: os.kill(os.getpid(), signal.SIGTERM)),))
    newest, complaints = checkpoints.newest_sound(tmp_path, "mine")
    assert newest is not None and newest.name in ("checkpoint-4", "checkpoint-5") and complaints == []
    assert train(tmp_path) == uninterrupted


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path, save_steps=2)
    assert [path.name for path in checkpoints.all_checkpoints(tmp_path)] == ["checkpoint-13", "checkpoint-12"]


def test_a_full_disk_is_a_clear_error_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = checkpoints.seal

    def full_at_ten(draft: Path, final: Path, identity: str) -> None:
        if final.name == "checkpoint-10":
            raise OSError(errno.ENOSPC, "No space left on device")
        seal(draft, final, identity)

    monkeypatch.setattr(checkpoints, "seal", full_at_ten)
    with pytest.raises(Unavailable, match=r"the disk is full.*The last good checkpoint is .*checkpoint-5"):
        train(tmp_path)
    assert checkpoints.flaw(tmp_path / "checkpoint-5", "mine") is None
    assert not (tmp_path / checkpoints.DRAFT).exists()


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), checkpoints.refusals_are_told(tmp_path):
        raise RuntimeError("a bug")


def finite(folder: Path) -> bool:
    """Whether all tensors of a checkpoint are numbers."""
    weights = [tensor for file in folder.glob("*.safetensors") for tensor in load_file(file).values()]
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"].values()
    tensors = [*weights, *(tensor for state in moments for tensor in state.values())]
    assert len(tensors) > 50
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize(
    ("kind", "log_every", "save_steps"), [(None, 3, 100), (FeedbackKind.TOP_K, 100, 1), (FeedbackKind.FULL, 3, 2)]
)
def test_a_diverged_training_stops_at_a_record_or_a_checkpoint(
    kind: FeedbackKind | None, log_every: int, save_steps: int, tmp_path: Path
) -> None:
    said = r"the training has diverged: .* at step (\d+), learning rate (0.05, )?1e\+20\. Try a lower learning_rate"
    for _ in range(2):  # also from the checkpoint that is left
        with pytest.raises(InputError, match=said) as error:
            train(tmp_path, kind=kind, log_every=log_every, save_steps=save_steps, learning_rate=1e20, warmup_steps=0)
        found = re.search(said, str(error.value))
        assert found and int(found[1]) <= 3
        assert all(map(finite, checkpoints.all_checkpoints(tmp_path)))
        assert not list(tmp_path.glob(f"{checkpoints.DRAFT}/*"))


def overflow(trainer: MdlmTrainer, what: str) -> None:
    """Leave what an update that overflows leaves: in a weight, or in AdamW's second moment, which no loss shows."""
    weight = next(trained(trainer).parameters())
    state = trainer.optimizer.state
    with torch.no_grad():
        (weight if what == "weight" else state[weight]["exp_avg_sq"]).view(-1)[0] = float("inf")


@pytest.mark.parametrize("what", ["weight", "moment"])
def test_no_checkpoint_keeps_an_overflow_and_the_one_before_it_is_good(
    what: str, uninterrupted: Result, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, log_every=100)
    trainer.add_callback(At(10, lambda: overflow(trainer, what)))
    with pytest.raises(InputError, match=r"diverged: a .* at step 10.*The last good checkpoint is .*checkpoint-5"):
        trainer.train_resumably()
    assert finite(tmp_path / "checkpoint-5") and not (tmp_path / "checkpoint-10").exists()
    assert train(tmp_path)[0] == uninterrupted[0]


# What the Trainer does with the model


def test_the_history_has_the_omegas_from_step_zero_and_lambda_at_every_record(uninterrupted: Result) -> None:
    history = uninterrupted[1]
    assert [record["step"] for record in history] == [0, 3, 6, 9, 12]
    for record in history:
        assert {"omega_s", "omega_a", "omega_b", "lam_mean", "lam_std"} <= record.keys()
        assert ("loss" in record) == (record["step"] > 0)
    start = tiny_mdlm(soft_mask_settings()).soft_mask
    assert start is not None
    assert {name: history[0][name] for name in start.omegas()} == start.omegas()
    assert history[-1]["omega_s"] != history[0]["omega_s"]


def test_the_recorded_loss_is_the_mean_over_the_steps_since_the_last(tmp_path: Path, uninterrupted: Result) -> None:
    trainer, losses = trainer_of(tmp_path), []
    trained(trainer).register_forward_hook(lambda module, inputs, output: losses.append(output.item()))
    trainer.train_resumably()
    steps = np.array(losses).reshape(STEPS, ACCUMULATION).mean(1)
    for record in trainer.history[1:]:
        assert record["loss"] == pytest.approx(steps[record["step"] - 3 : record["step"]].mean(), rel=1e-5)
    assert trainer.history == uninterrupted[1]


def test_the_cadence_of_records_does_not_touch_the_training(tmp_path: Path, uninterrupted: Result) -> None:
    assert train(tmp_path, log_every=4)[0] == uninterrupted[0]


def test_a_binary_run_logs_no_omegas(tmp_path: Path) -> None:
    _, history = train(tmp_path, kind=None)
    assert [record["step"] for record in history] == [3, 6, 9, 12]
    assert not any("omega_s" in record or "lam_mean" in record for record in history)


@pytest.mark.parametrize("kind", FeedbackKind)
def test_omegas_have_a_learning_rate_of_their_own(kind: FeedbackKind, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, kind, p_sm=1.0, max_steps=1, warmup_steps=0, gradient_accumulation_steps=1)
    before = {name: parameter.detach().clone() for name, parameter in trained(trainer).named_parameters()}
    trainer.train_resumably()
    # AdamW's first step moves every parameter with a gradient by its learning rate
    moved = {name: (p.detach() - before[name]).abs().max().item() for name, p in trained(trainer).named_parameters()}
    omegas = {name for name in moved if "soft_mask" in name}
    moving = omegas if kind is FeedbackKind.FULL else {name for name in omegas if "temperature" not in name}
    for name, distance in moved.items():
        if name in moving:
            assert distance == pytest.approx(0.05, rel=0.02), name
        elif name in omegas:
            assert distance == 0.0
        else:
            assert distance == pytest.approx(1e-3, rel=0.05), name


def test_the_averaged_omegas_lag_behind_the_trained_ones(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train_resumably()
    start = tiny_mdlm(soft_mask_settings()).soft_mask
    average, last = trainer.averaged_model.soft_mask, trained(trainer).model.soft_mask
    assert start is not None and average is not None and last is not None
    for name in ("raw_omega_s", "raw_omega_a", "raw_omega_b"):
        values = [getattr(module, name).item() for module in (start, average, last)]
        assert len(set(values)) == 3, name
