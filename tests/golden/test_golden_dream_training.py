"""Parity of Dream's finetuning loss and its gradients with the reference's; files as in test_golden.py."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from softmask.backbones.dream import DreamModel
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from softmask.loss_kinds import Normalisation
from softmask.training.answer_objective import AnswerObjective
from tests.golden.test_golden import OMEGAS, Golden, read
from tests.golden.test_golden_dream import dream_of

pytestmark = pytest.mark.golden

CHUNK = 7
WEIGHTS = "dream.safetensors"


def training_files(folder: Path) -> list[Path]:
    """Files that hold a finetuning loss, whose weights are beside them."""
    found = []
    for path in sorted(folder.glob("dream*.safetensors")):
        with safe_open(path, "pt") as file:
            if "loss_binary" in set(file.keys()) and (folder / WEIGHTS).exists():
                found.append(path)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "training_file" in metafunc.fixturenames:
        folder = metafunc.config.invocation_params.dir / metafunc.config.getoption("--golden-dir")
        paths = training_files(folder)
        metafunc.parametrize("training_file", paths, ids=[path.stem for path in paths])


def test_the_projects_own_folder_has_a_training(golden_dir: Path) -> None:
    assert golden_dir != Path(__file__).parent or training_files(golden_dir)


def model_of(path: Path) -> DreamModel:
    return dream_of(read(path.with_name(WEIGHTS)))


def soft_mask_of(golden: Golden, k: int) -> SoftMask:
    found = SoftMask(
        omega_s=0.5,
        omega_a=1.0,
        omega_b=-1.0,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=k,
    )
    with torch.no_grad():
        for ours, theirs in OMEGAS.items():
            getattr(found, ours).copy_(golden[f"head.{theirs}"])
    return found


def losses(path: Path, k: int | None) -> tuple[AnswerObjective, Tensor]:
    """The objective, and its loss where all masked positions of the batch weigh alike, as the reference has it."""
    golden = read(path)
    soft_mask = None if k is None else soft_mask_of(golden, k)
    objective = AnswerObjective(model_of(path), soft_mask, Normalisation.MASKED, CHUNK)
    x_t, labels = golden["input_ids"], golden["labels"]
    masked = labels >= 0
    assert torch.equal(masked, (x_t == golden.settings["mask_token_id"]) & masked)
    x0 = torch.where(masked, labels, x_t)
    visible = torch.ones_like(masked)
    guesses = None if soft_mask is None else objective.first_pass(x_t, visible, masked, soft_mask)
    weights = (golden["inv_t"] / masked.sum()).expand(len(x_t))
    return objective, objective.nll(x0, x_t, visible, masked, weights, guesses)[0]


@pytest.mark.parametrize("k", [None, 1, 3])
def test_loss_and_gradients(training_file: Path, k: int | None) -> None:
    golden, name = read(training_file), "binary" if k is None else f"soft_masked_k{k}"
    objective, loss = losses(training_file, k)
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden[f"loss_{name}"], rtol=1e-5, atol=0)
    gradients = {key.removeprefix(f"grad_{name}."): t for key, t in golden.tensors.items() if f"grad_{name}." in key}
    assert len(gradients) >= 3
    ours = {theirs: mine for mine, theirs in OMEGAS.items()}
    # the omegas are one gradient: alone, the reference's centre is a sum that cancels to 4e-4 with an error of 2e-7
    omegas = max((float(t.abs()) for key, t in gradients.items() if key.startswith("head.")), default=0.0)
    for key, expected in gradients.items():
        owner = objective.soft_mask if key.startswith("head.") else objective.model
        assert owner is not None
        gradient = owner.get_parameter(ours.get(key.removeprefix("head."), key)).grad
        assert gradient is not None
        scale = omegas if key.startswith("head.") else float(expected.abs().max())
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * scale, msg=key)


def test_the_loss_reads_one_position_to_the_left(training_file: Path) -> None:
    golden = read(training_file)
    with torch.no_grad():
        logits = model_of(training_file)(golden["input_ids"]).logits
    labels = golden["labels"]
    by_hand = golden["inv_t"] * F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(by_hand, golden["loss_binary_by_definition"], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses(training_file, None)[1].detach(), by_hand, rtol=1e-5, atol=0)


def test_a_batch_of_equal_items_is_their_mean(training_file: Path) -> None:
    golden = read(training_file)
    objective = AnswerObjective(model_of(training_file), None, Normalisation.MASKED, CHUNK)
    masked = golden["labels"] >= 0
    x0 = torch.where(masked, golden["labels"], golden["input_ids"])
    visible = torch.ones_like(masked)
    t = torch.full((len(x0),), 1 / float(golden["inv_t"]))
    alone = [
        objective(x0[i : i + 1], golden["input_ids"][i : i + 1], t[:1], visible[:1], masked[i : i + 1], False)
        for i in range(len(x0))
    ]
    together = objective(x0, golden["input_ids"], t, visible, masked, False)
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-5, atol=0)
