"""The finetune stage on a tiny family: adapters that decode, honest histories, and a killed run's bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from softmask.backbones.dream_adapter import load_adapter
from softmask.backbones.dream_checkpoint import load_dream, save_dream
from softmask.errors import InputError
from softmask.loss_kinds import Normalisation
from softmask.training import checkpoints
from softmask.training.answer_objective import AnswerObjective
from softmask.training.answers import evaluation_batches
from softmask.training.chat_tokens import ChatTokens, ChatVocabulary
from stages.finetune import STAGE
from stages.params.code.finetuning import AnswerNoiseParams
from stages.shared.dream_training import noise_of
from tests.softmask.tiny_dream import MASK, PAD, VOCABULARY, tiny_dream

ROOT = Path(__file__).parents[2]
HEAD_CHUNK = 7
COMPUTE = {
    **{"device": "cpu", "threads": 1, "precision": "fp32", "deterministic": True, "processes": 1},
    **{"fsdp": False, "head_chunk": HEAD_CHUNK},
}
NOISE = {"t_low": 0.2, "t_high": 0.8, "extra_pads": 3, "multiple_of": 4, "normalisation": "masked"}
TRAINING: dict[str, Any] = {
    **{"steps": 12, "batch_size": 4, "accumulation": 2, "learning_rate": 0.01, "warmup_steps": 2},
    **{"betas": [0.9, 0.999], "epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 7.0},
    **{"log_every": 3, "save_every": 4, "schedule": "cosine", "noise": NOISE, "length_window": 2},
    **{"gradient_checkpointing": False, "evaluate_every": 4},
    "evaluation": {"examples": 6, "batch_size": 4, "t_low": 0.2, "t_high": 0.8, "seed": 5},
}
ADAPTER = {"rank": 2, "alpha": 2, "dropout": 0.0, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"], "dora": True}
SOFT_MASK = {
    **{
        "p_sm": 0.5,
        "kind": "top_k",
        "k": 3,
        "interpolation": "linear",
        "omega_s": 0.5,
        "omega_a": 3.0,
        "omega_b": -1.5,
    },
    **{"temperature": 1.0, "omega_learning_rate": 0.05},
}
ARMS = {
    "binary": {"budget": "same_updates", "soft_mask": None},
    "sm": {"budget": "same_updates", "soft_mask": SOFT_MASK},
    "sm_equal": {"budget": "expected_forwards", "soft_mask": SOFT_MASK},
}
FILES = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/soft_mask.json")
VOCABULARY_OF_CHATS = ChatVocabulary(vocab_size=VOCABULARY, mask_token_id=MASK, pad_token_id=PAD, end_token_ids=(PAD,))


def write(root: Path, **training: Any) -> Path:
    """A folder with a tiny family `tiny`: base, chats that count upwards, params."""
    save_dream(tiny_dream(max_position_embeddings=128), root / "models/dream/tiny/base/model")
    choice = np.random.default_rng(0)
    for split, count in (("train", 40), ("validation", 8)):
        folder = root / f"data/code/tokens/tiny/{split}"
        folder.mkdir(parents=True)
        starts = choice.integers(0, 8, count)
        chats = [([*range(start, start + int(choice.integers(8, 16))), PAD], 4) for start in map(int, starts)]
        ChatTokens.write(folder, chats, VOCABULARY_OF_CHATS)
    (root / "data/check").mkdir()
    (root / "data/check/valid.json").write_text("{}", encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {finetune: {deps: []}}\n", encoding="utf-8")
    code = {"finetuning": {"training": {**TRAINING, **training}, "adapter": ADAPTER}, "arms": {"settings": ARMS}}
    (root / "params.yaml").write_text(yaml.safe_dump({"compute": COMPUTE, "code": code}), encoding="utf-8")
    return root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny family; the current folder."""
    monkeypatch.chdir(write(tmp_path))
    return tmp_path


def finetune(arm: str, seed: str = "1") -> Path:
    """Run the stage here; the folder of its outputs."""
    STAGE.execute({"family": "tiny", "arm": arm, "seed": seed})
    return Path(f"models/dream/tiny/{arm}-{seed}")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def evaluation_losses(adapter: Path) -> dict[bool, float]:
    """Two-pass or not -> the evaluation loss of a finished adapter, measured anew."""
    model = load_dream(Path("models/dream/tiny/base/model"))
    objective = AnswerObjective(model, load_adapter(model, adapter), Normalisation.MASKED, HEAD_CHUNK)
    validation = ChatTokens.open(Path("data/code/tokens/tiny/validation"))
    noise = noise_of(AnswerNoiseParams.model_validate({**NOISE, "normalisation": Normalisation.MASKED}), validation, 5)
    batches = evaluation_batches(validation, noise, 6, 6)
    with torch.no_grad():
        return {coin: float(objective(**{**batches[0], "two_pass": coin})) for coin in (False, True)}  # type: ignore[typeddict-item]


def test_a_soft_masked_arm_leaves_an_adapter_that_says_how_to_decode(folder: Path) -> None:
    made = finetune("sm")
    model = load_dream(Path("models/dream/tiny/base/model"))
    soft_mask = load_adapter(model, made / "adapter")
    assert soft_mask is not None and soft_mask.k == 3
    evaluated = [record for record in read(made / "history.json") if "eval_loss" in record]
    best = min(evaluated[1:], key=lambda record: record["eval_loss"])
    assert soft_mask.omegas() == {name: best[name] for name in soft_mask.omegas()}
    assert soft_mask.omegas() != read(made / "costs.json")["initial_omegas"]


@pytest.mark.parametrize("arm", ["binary", "sm"])
def test_the_adapter_is_the_one_with_the_best_evaluation_loss(folder: Path, arm: str) -> None:
    made = finetune(arm)
    history = read(made / "history.json")
    evaluated = [record for record in history if "eval_loss" in record]
    assert [record["step"] for record in evaluated] == [0, 4, 8, 12]
    best = min(evaluated[1:], key=lambda record: record["eval_loss"])
    assert read(made / "costs.json")["best"] == {"loss": best["eval_loss"], "step": best["step"]}
    losses = evaluation_losses(made / "adapter")
    assert losses[True] == pytest.approx(best["eval_loss"], rel=1e-5)
    assert best["eval_loss"] < evaluated[0]["eval_loss"]


def test_a_history_has_the_gate_from_step_zero_and_losses_on_both_paths(folder: Path) -> None:
    history = read(finetune("sm") / "history.json")
    assert [record["step"] for record in history if "loss" in record] == [3, 6, 9, 12]
    first = history[0]
    assert first["step"] == 0 and first["omega_s"] == pytest.approx(0.5)
    for record in history:
        if "eval_loss" in record:
            assert {"lam_mean", "lam_std", "omega_s", "omega_a", "omega_b", "eval_loss_binary"} <= set(record)
            assert 0 < record["lam_mean"] < record["omega_s"]
    assert not any("runtime" in name or "second" in name for record in history for name in record)


def test_a_binary_arm_has_no_soft_mask(folder: Path) -> None:
    made = finetune("binary")
    assert load_adapter(load_dream(Path("models/dream/tiny/base/model")), made / "adapter") is None
    assert all("omega_s" not in record for record in read(made / "history.json"))
    costs = read(made / "costs.json")
    assert costs["initial_omegas"] is None and costs["forwards"] == costs["backwards"] == 24


def test_costs_count_both_passes_and_equal_compute_has_fewer_updates(folder: Path) -> None:
    costs = {arm: read(finetune(arm) / "costs.json") for arm in ("sm", "sm_equal")}
    assert costs["sm"]["updates"] == 12 and costs["sm_equal"]["updates"] == round(12 / 1.5)
    assert costs["sm"]["backwards"] == 24 < costs["sm"]["forwards"] < 48
    assert costs["sm_equal"]["flops"] < costs["sm"]["flops"]


def test_the_base_is_not_touched(folder: Path) -> None:
    file = Path("models/dream/tiny/base/model/model.safetensors")
    before = file.read_bytes()
    finetune("sm")
    assert file.read_bytes() == before


def test_another_seed_gives_another_adapter_and_the_same_seed_the_same_bytes(folder: Path) -> None:
    weights = [(finetune("sm", seed) / FILES[1]).read_bytes() for seed in ("1", "2")]
    assert weights[0] != weights[1]
    assert (finetune("sm") / FILES[1]).read_bytes() == weights[0]


def test_gradient_checkpointing_leaves_the_same_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, checkpointing in (("plain", False), ("checkpointed", True)):
        root = tmp_path / name
        root.mkdir()
        monkeypatch.chdir(write(root, gradient_checkpointing=checkpointing))
        made.append((finetune("sm") / FILES[1]).read_bytes())
    assert made[0] == made[1]


def test_a_checkpoint_holds_what_is_trained_and_nothing_of_the_base(folder: Path, monkeypatch: Any) -> None:
    sizes: list[int] = []
    seal = checkpoints.seal

    def measured(draft: Path, final: Path, identity: str) -> None:
        seal(draft, final, identity)
        sizes.append(sum(file.stat().st_size for file in final.glob("*.safetensors")))

    monkeypatch.setattr(checkpoints, "seal", measured)
    made = finetune("sm")
    adapter = (made / FILES[1]).stat().st_size
    base = Path("models/dream/tiny/base/model/model.safetensors").stat().st_size
    assert len(sizes) == 3 and max(sizes) < 2 * adapter + 8192 and adapter < base


@pytest.mark.parametrize("seed", ["one", "-1", "1.5"])
def test_a_seed_that_is_no_number_is_refused(folder: Path, seed: str) -> None:
    with pytest.raises(InputError, match="--seed"):
        finetune("binary", seed)


def test_chats_of_another_tokenizer_are_refused(folder: Path) -> None:
    other = ChatVocabulary(vocab_size=VOCABULARY + 5, mask_token_id=VOCABULARY + 4, pad_token_id=3, end_token_ids=(3,))
    ChatTokens.write(Path("data/code/tokens/tiny/train"), [([1, 2, VOCABULARY + 1, 3], 2)], other)
    with pytest.raises(InputError, match="data/code/tokens/tiny/train"):
        finetune("binary")


def command_of(arm: str) -> list[str]:
    return [sys.executable, "-m", "stages.finetune", "--family", "tiny", "--arm", arm, "--seed", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["binary", "sm"])
def test_a_finetune_killed_at_a_checkpoint_resumes_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, arm: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole, killed = (write(tmp_path_factory.mktemp(name), steps=40) for name in ("whole", "killed"))
    subprocess.run(command_of(arm), cwd=whole, env=environment, check=True, capture_output=True)
    process = subprocess.Popen(command_of(arm), cwd=killed, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (found := list(killed.glob(".checkpoints/*/training/checkpoint-*"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert found and not (killed / f"models/dream/tiny/{arm}-1/adapter").exists()
    again = subprocess.run(command_of(arm), cwd=killed, env=environment, check=True, capture_output=True, text=True)
    assert "resuming from" in again.stderr
    for name in (*FILES, "history.json", "costs.json", "manifest.json"):
        file = Path(f"models/dream/tiny/{arm}-1/{name}")
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), name
    assert not list(killed.glob(".checkpoints/*/training"))


@pytest.mark.slow
def test_two_processes_share_the_batch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same items, noise and coins: but for the order of sums, the adapter and the evaluations of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    folders = []
    for processes in (1, 2):
        root = write(tmp_path_factory.mktemp(f"processes{processes}"), length_window=1)
        raw = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        raw["compute"]["processes"] = processes
        (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        subprocess.run(command_of("sm"), cwd=root, env=environment, check=True, capture_output=True)
        folders.append(root / "models/dream/tiny/sm-1")
    alone, shared = (load_file(folder / FILES[1]) for folder in folders)
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-2, atol=1e-3, msg=name)
    assert read(folders[0] / "costs.json")["forwards"] == read(folders[1] / "costs.json")["forwards"]
    for one, two in zip(*(read(folder / "history.json") for folder in folders), strict=True):
        assert two == pytest.approx(one, rel=1e-2, abs=1e-3)

    raw["code"]["finetuning"]["training"]["learning_rate"] = 4e19
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    diverged = subprocess.run(command_of("sm"), cwd=root, env=environment, check=False, capture_output=True, text=True)
    assert diverged.returncode == 2 and "Traceback" not in diverged.stderr, diverged.stderr
    errors = [line for line in diverged.stderr.splitlines() if line.startswith("error: ")]
    assert "the training has diverged" in errors[0] and "exit code 2" in errors[-1], errors
