"""Muon beside AdamW: which parameter goes where, the same steps as the two alone, and an exact resume."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from softmask.training.muon import MuonAdamW, split_parameters

ADAMW: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-8}


def tiny() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 7))


def optimizer_of(model: nn.Sequential) -> MuonAdamW:
    matrices, others = split_parameters(model[1:3], model)
    return MuonAdamW(matrices, others, matrix_learning_rate=0.02, weight_decay=0.1, adamw=ADAMW)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = torch.randint(0, 7, (5,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids), ids).backward()
        optimizer.step()


def test_only_the_layers_matrices_are_muons() -> None:
    model = tiny()
    matrices, others = split_parameters(model[1:3], model)
    assert matrices == [model[1].weight]
    assert {id(p) for p in others} == {id(p) for p in model.parameters()} - {id(model[1].weight)}


def test_what_is_not_trained_is_nobodys() -> None:
    model = tiny()
    model[1].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    matrices, others = split_parameters(model[1:3], model)
    assert matrices == []
    assert id(model[3].bias) not in {id(p) for p in others}


def test_a_step_is_muons_and_adamws_own() -> None:
    ours, theirs = tiny(), tiny()
    train(ours, optimizer_of(ours), range(4))
    others = [p for p in theirs.parameters() if p is not theirs[1].weight]
    muon = torch.optim.Muon([theirs[1].weight], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, weight_decay=0.1, **ADAMW)
    for step in range(4):
        train(theirs, adamw, range(step, step + 1))
        muon.step()  # with the gradients of the same pass
        muon.zero_grad()
    for ours_p, theirs_p in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours_p, theirs_p)


def test_an_update_is_as_large_as_adamws() -> None:
    model = tiny()
    before = model[1].weight.detach().clone()
    train(model, optimizer_of(model), range(1))
    size = (model[1].weight - before).square().mean().sqrt()
    assert 0.1 * 0.02 < size < 0.4 * 0.02  # as AdamW's in practice; decay is far smaller


def test_resumed_from_its_state_it_goes_on_to_the_same_bytes() -> None:
    whole, first, second = tiny(), tiny(), tiny()
    train(whole, optimizer_of(whole), range(6))
    optimizer = optimizer_of(first)
    train(first, optimizer, range(3))
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(second, resumed, range(3, 6))
    for expected, found in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_a_schedule_sets_both_learning_rates_also_after_a_resume() -> None:
    model = tiny()
    optimizer = optimizer_of(model)
    optimizer.load_state_dict(optimizer.state_dict())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(model, optimizer, range(1))
    schedule.step()
    assert [group["lr"] for part in optimizer.state_dict()["parts"] for group in part["param_groups"]] == [0.01, 0.005]


def test_a_vector_is_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="2D"):
        MuonAdamW([model[1].bias], [model[3].bias], matrix_learning_rate=0.1, weight_decay=0.0, adamw=ADAMW)
