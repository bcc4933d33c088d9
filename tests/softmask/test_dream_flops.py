"""The formula of a Dream model's FLOPs against PyTorch's own count of its matrix products."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from softmask.backbones.dream_flops import head_flops, trunk_flops
from tests.softmask.tiny_dream import tiny_dream


@pytest.mark.parametrize(("batch", "length", "groups"), [(1, 9, 1), (3, 17, 2), (2, 5, 4)])
def test_a_forward_costs_what_torch_counts(batch: int, length: int, groups: int) -> None:
    model = tiny_dream(num_key_value_heads=groups, num_hidden_layers=3)
    ids = torch.zeros(batch, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(ids)
    positions = batch * length
    formula = trunk_flops(model.config, positions, length) + head_flops(model.config, positions)
    assert formula == counter.get_total_flops()


def test_a_cached_position_costs_its_own_layers_and_attends_to_all() -> None:
    config = tiny_dream().config
    assert trunk_flops(config, 4, 100) < trunk_flops(config, 100, 100) / 20
    assert trunk_flops(config, 4, 100) > trunk_flops(config, 4, 4)
