"""The loss on answers: a batch is the mean of its items alone; feedback, freezing and checkpoints as they should be."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from softmask.backbones.dream import shifted
from softmask.backbones.dream_adapter import AdapterSettings, add_adapter
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from softmask.loss_kinds import Normalisation
from softmask.training.answer_objective import AnswerObjective
from softmask.training.answers import AnswerBatch
from tests.softmask.test_answers import collate, items
from tests.softmask.tiny_dream import MASK, tiny_dream

CHUNK = 7
NAMES = ("x0", "x_t", "t", "visible", "answer")


def soft_mask(kind: FeedbackKind = FeedbackKind.TOP_K, omega_s: float = 0.7) -> SoftMask:
    return SoftMask(
        kind=kind, interpolation=Interpolation.LINEAR, k=3, omega_s=omega_s, omega_a=2.0, omega_b=-2.0, temperature=0.8
    )


def objective(fed: SoftMask | None = None, normalisation: Normalisation = Normalisation.MASKED) -> AnswerObjective:
    return AnswerObjective(tiny_dream(), fed, normalisation, CHUNK)


def batch(start: int = 0, n: int = 4, two_pass: bool = False) -> AnswerBatch:
    return {**collate(items(n, start)), "two_pass": two_pass}


def alone(whole: AnswerBatch, place: int) -> dict[str, Any]:
    """One item, without the batch's padding."""
    length = int(whole["visible"][place].sum())
    tensors: Any = whole
    rows = {name: tensors[name][place : place + 1] for name in NAMES}
    cut = {name: tensor if name == "t" else tensor[:, :length] for name, tensor in rows.items()}
    return {**cut, "two_pass": whole["two_pass"]}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(Normalisation), st.booleans(), st.sampled_from(FeedbackKind))
def test_a_batch_is_the_mean_of_its_items_alone(
    start: int, normalisation: Normalisation, two_pass: bool, kind: FeedbackKind
) -> None:
    loss = objective(soft_mask(kind), normalisation)
    whole = batch(start, two_pass=two_pass)
    each = [loss(**alone(whole, place)) for place in range(4)]
    torch.testing.assert_close(loss(**whole), torch.stack(each).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalisation", Normalisation)
def test_the_loss_is_cross_entropy_over_t_of_logits_shifted_by_one(normalisation: Normalisation) -> None:
    loss, whole = objective(normalisation=normalisation), batch()
    for place in range(4):
        one = alone(whole, place)
        logits = loss.model(one["x_t"]).logits
        masked = one["x_t"][0] == MASK
        nll = F.cross_entropy(logits[0, :-1], one["x0"][0, 1:], reduction="none")[masked[1:]]
        count = len(nll) if normalisation is Normalisation.MASKED else int(one["answer"].sum())
        torch.testing.assert_close(loss(**one), nll.sum() / (float(one["t"]) * count), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_plain_autograd() -> None:
    loss, whole = objective(), batch()
    loss(**whole).backward()
    ours = {name: parameter.grad for name, parameter in loss.named_parameters()}
    plain = objective()
    hidden = shifted(plain.model.hidden(plain.model.embed(whole["x_t"]), whole["visible"]))
    masked = whole["x_t"] == MASK
    nll = F.cross_entropy(plain.model.lm_head(hidden[masked]), whole["x0"][masked], reduction="none")
    weights = 1 / (whole["t"] * masked.sum(1) * len(masked))
    (nll * weights[:, None].expand_as(masked)[masked]).sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_a_closed_gate_is_the_binary_loss() -> None:
    whole = batch(two_pass=True)
    fed, binary = objective(soft_mask(omega_s=0.0))(**whole), objective()(**whole)
    torch.testing.assert_close(fed, binary, rtol=1e-4, atol=1e-5)
    assert float((objective(soft_mask())(**whole) - binary).abs().detach()) > 1e-3


def test_one_pass_of_a_soft_masked_model_is_the_binary_loss_exactly() -> None:
    assert torch.equal(objective(soft_mask())(**batch()), objective()(**batch()))


@pytest.mark.parametrize("kind", FeedbackKind)
def test_omegas_get_gradients_from_two_passes_only(kind: FeedbackKind) -> None:
    fed = soft_mask(kind)
    loss = objective(fed)
    loss(**batch()).backward()
    assert all(parameter.grad is None for parameter in fed.parameters())
    loss(**batch(two_pass=True)).backward()
    trained = [parameter for parameter in fed.parameters() if parameter.requires_grad]
    assert len(trained) == (4 if kind is FeedbackKind.FULL else 3)
    assert all(parameter.grad is not None and float(parameter.grad.abs()) > 0 for parameter in trained)


def test_the_feedback_is_stop_gradient() -> None:
    """The gradient of the weights is that of a pass with the guesses held fixed."""
    fed = soft_mask()
    loss, whole = objective(fed), batch(two_pass=True)
    loss(**whole).backward()
    gradients = [parameter.grad for parameter in loss.model.parameters()]
    fixed = objective(soft_mask())
    assert fixed.soft_mask is not None
    masked = whole["x_t"] == MASK
    guesses = fixed.first_pass(whole["x_t"], whole["visible"], masked, fixed.soft_mask)
    assert not any(getattr(guesses, name).requires_grad for name in ("neg_entropy", "log_probs"))
    weights = 1 / (whole["t"] * masked.sum(1) * len(masked))
    fixed.nll(whole["x0"], whole["x_t"], whole["visible"], masked, weights, guesses)[0].backward()
    for ours, parameter in zip(gradients, fixed.model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


def test_the_head_sees_masked_rows_only_and_in_chunks() -> None:
    """The first pass makes logits of the masked rows, never more than a chunk of them."""
    loss, whole = objective(soft_mask()), batch(two_pass=True)
    sizes: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(inputs[0].shape[0])

    loss.model.lm_head.register_forward_pre_hook(note)
    loss(**whole)
    assert sum(sizes) == int((whole["x_t"] == MASK).sum()) and max(sizes) <= CHUNK


def adapted() -> AnswerObjective:
    loss = objective(soft_mask())
    add_adapter(loss.model, AdapterSettings(rank=2, alpha=2, dropout=0.0, targets=("q_proj",), dora=True, seed=1))
    return loss


def test_an_adapter_alone_is_trained_and_kept_in_checkpoints() -> None:
    loss = adapted()
    loss(**batch(two_pass=True)).backward()
    touched = {name for name, parameter in loss.named_parameters() if parameter.grad is not None}
    assert touched == set(loss.state_dict())
    assert all("lora_" in name or name.startswith("soft_mask.raw_") for name in touched)
    assert sum("lora_" in name for name in touched) == 2 * 3


def test_a_fresh_adapter_changes_nothing() -> None:
    whole = batch(two_pass=True)
    torch.testing.assert_close(adapted()(**whole), objective(soft_mask())(**whole), rtol=1e-6, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        loss = adapted()
        if checkpointed:
            loss.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        loss.train()
        loss(**batch(two_pass=True)).backward()
        gradients.append({name: p.grad for name, p in loss.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_a_whole_model_has_all_its_weights_in_checkpoints() -> None:
    loss = objective()
    assert set(loss.state_dict()) == {name for name, _ in loss.named_parameters()}


def test_a_state_comes_back_without_the_frozen_part_and_never_in_part() -> None:
    trained, fresh = adapted(), adapted()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(parameter.requires_grad * 0.1)
    state = trained.state_dict()
    assert fresh.load_state_dict(state) == ([], [])
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in state.items())
    state.pop("soft_mask.raw_omega_s")
    with pytest.raises(RuntimeError, match="raw_omega_s"):
        fresh.load_state_dict(state)
