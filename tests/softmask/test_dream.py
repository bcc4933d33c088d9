"""The Dream model: its configuration, its tied head, checkpointed gradients, and padding that changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmask.backbones.dream import DreamConfig, DreamModel, position_ids_of, shifted
from softmask.backbones.dream_checkpoint import load_dream, save_dream
from tests.softmask.tiny_dream import MASK, PAD, VOCABULARY, published_config, tiny_dream


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    config = tiny_dream(rope_theta=5e5, rms_norm_eps=1e-5, tie_word_embeddings=True).config
    config.save_pretrained(tmp_path)
    again = DreamConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "Dream"


def test_the_default_shape_is_dream_7b_with_7_6_billion_parameters() -> None:
    with torch.device("meta"):
        model = DreamModel(DreamConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 15_231_233_024 // 2  # the index's total_size


def test_a_tied_head_is_the_embedding_also_after_loading(tmp_path: Path) -> None:
    model = tiny_dream(tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    save_dream(model, tmp_path)
    loaded = load_dream(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def gradients(model: DreamModel, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model.train()
    model.log_probs(shifted(model.hidden(model.embed(ids))).flatten(0, 1))[:, 3].sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model, ids = tiny_dream(), torch.randint(0, MASK, (2, 9), generator=torch.Generator().manual_seed(0))
    plain = gradients(model, ids)
    calls = []
    handle = model.model.layers[1].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    model.activation_checkpointing_enable({"use_reentrant": False})
    checkpointed = gradients(model, ids)
    handle.remove()
    assert len(calls) == 2, "the layer is computed again in the backward pass"
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4), seed=st.integers(0, 9), filler=st.integers(0, MASK))
def test_left_padding_changes_no_row_whatever_the_padding_holds(lengths: list[int], seed: int, filler: int) -> None:
    model, longest = tiny_dream(seed), max(lengths)
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in lengths]
    ids = torch.full((len(rows), longest), filler)
    visible = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, longest - len(row) :], visible[number, longest - len(row) :] = row, True
    with torch.no_grad():
        hidden = model.hidden(model.embed(ids), visible, position_ids_of(visible))
        for number, row in enumerate(rows):
            alone = model.hidden(model.embed(row[None]))[0]
            torch.testing.assert_close(hidden[number, longest - len(row) :], alone, atol=1e-5, rtol=1e-5)


def test_attention_sees_both_directions() -> None:
    model, ids = tiny_dream(), torch.arange(6)[None]
    changed = ids.clone()
    changed[0, 5] = 20
    with torch.no_grad():
        difference = (model(ids).logits - model(changed).logits).abs().amax(-1)
    assert bool((difference > 1e-6).all()), "the last token reaches every position"


def test_the_shift_keeps_the_first_position_and_moves_the_others() -> None:
    hidden = torch.arange(4.0).view(1, 4, 1)
    assert shifted(hidden).flatten().tolist() == [0, 0, 1, 2]


def test_published_shapes_and_names_are_the_models() -> None:
    model = tiny_dream()
    config = published_config(model)
    layer = "model.layers.1.self_attn."
    state = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    width = config["hidden_size"] // config["num_attention_heads"]
    assert state[layer + "k_proj.weight"] == [config["num_key_value_heads"] * width, config["hidden_size"]]
    assert state[layer + "k_proj.bias"] == [config["num_key_value_heads"] * width]
    assert layer + "o_proj.bias" not in state and "model.norm.weight" in state
    assert model.config.pad_token_id == PAD


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_are_float32_and_normalised(dtype: torch.dtype) -> None:
    model = tiny_dream().to(dtype)
    with torch.no_grad():
        log_probs = model.log_probs(model.hidden(model.embed(torch.arange(5)[None]))[0])
    assert log_probs.dtype is torch.float32 and log_probs.shape == (5, VOCABULARY)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(5))
