"""Adapter folders: they load as ordinary peft adapters, say how to decode, and refuse what doesn't fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from softmask.backbones.dream_adapter import (
    ADAPTER_CONFIG,
    OFFICIAL,
    SOFT_MASK,
    WEIGHTS,
    AdapterSettings,
    add_adapter,
    load_adapter,
    save_adapter,
)
from softmask.backbones.dream_checkpoint import load_dream
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from tests.softmask.tiny_dream import tiny_dream, write_published

IDS = torch.arange(12).reshape(2, 6)
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def adapted(targets: Sequence[str] = PROJECTIONS, dora: bool = True) -> PeftModel:
    """A tiny Dream with an adapter whose weights are random everywhere."""
    settings = AdapterSettings(rank=2, alpha=2, dropout=0.0, targets=tuple(targets), dora=dora, seed=1)
    model = add_adapter(tiny_dream(), settings)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.add_(0.3 * torch.rand(parameter.shape, generator=generator))
    model.train(False)
    return model


def soft_mask(**changes: Any) -> SoftMask:
    values = {"omega_s": 0.3, "omega_a": 2.5, "omega_b": -1.5, "temperature": 0.7}
    return SoftMask(kind=FeedbackKind.TOP_K, interpolation=Interpolation.LINEAR, k=3, **{**values, **changes})


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
        return found


def reason(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_adapter(tiny_dream(), folder)
    return str(caught.value)


@pytest.mark.filterwarnings("error")
def test_no_library_warns_of_its_own_ways(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_adapter(tmp_path / "adapter", adapted(), None)
    load_adapter(
        load_dream(write_published(tmp_path / "base", tiny_dream(), dtype=torch.float32)), tmp_path / "adapter"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dora", [True, False])
def test_a_loaded_adapter_gives_the_logits_of_the_saved_one(tmp_path: Path, dora: bool) -> None:
    original, model = adapted(dora=dora), tiny_dream()
    before = logits(model)
    save_adapter(tmp_path / "a", original, None)
    assert load_adapter(model, tmp_path / "a") is None
    assert torch.equal(logits(model), logits(original.get_base_model()))
    assert (logits(model) - before).abs().max() > 0.01


def test_the_folder_is_an_ordinary_peft_adapter(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), soft_mask())
    model = PeftModel.from_pretrained(tiny_dream(), str(tmp_path))
    assert torch.equal(logits(model.get_base_model()), logits(adapted().get_base_model()))
    assert {path.name for path in tmp_path.iterdir()} == {ADAPTER_CONFIG, WEIGHTS, SOFT_MASK}


def test_a_folder_without_an_adapter_is_the_plain_base(tmp_path: Path) -> None:
    model = tiny_dream()
    save_adapter(tmp_path, None, None)
    assert load_adapter(model, tmp_path) is None
    assert torch.equal(logits(model), logits(tiny_dream()))


def test_the_same_adapter_gives_the_same_bytes_and_no_path(tmp_path: Path) -> None:
    shuffled = adapted(PROJECTIONS[::-1])
    for name, model in (("a", adapted()), ("b", shuffled)):
        save_adapter(tmp_path / name, model, soft_mask())
    for name in (ADAPTER_CONFIG, WEIGHTS, SOFT_MASK):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    config = json.loads((tmp_path / "a" / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(PROJECTIONS) and str(tmp_path) not in json.dumps(config)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(1e-3, 1e3), st.floats(-1e3, -1e-3), st.floats(1e-3, 10), st.integers(1, 9))
def test_omegas_come_back_in_full_precision(
    tmp_path_factory: pytest.TempPathFactory, s: float, a: float, b: float, temperature: float, k: int
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    for kind in FeedbackKind:
        saved = SoftMask(
            kind=kind, interpolation=Interpolation.LINEAR, k=k, omega_s=s, omega_a=a, omega_b=b, temperature=temperature
        )
        save_adapter(folder, None, saved)
        found = load_adapter(tiny_dream(), folder)
        assert found is not None and (found.kind, found.k) == (kind, k)
        assert found.omegas() == saved.omegas()
        for name, tensor in saved.state_dict().items():
            assert torch.equal(tensor, found.state_dict()[name])


def test_bfloat16_models_keep_their_type_and_the_adapter_its_own(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), None)
    model = tiny_dream()
    model.bfloat16()
    load_adapter(model, tmp_path)
    assert logits(model).dtype == torch.bfloat16
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert {kind for name, kind in types.items() if "lora_" in name} == {torch.float32}
    assert {kind for name, kind in types.items() if "lora_" not in name} == {torch.bfloat16}


def official(folder: Path, text: str) -> Path:
    """An adapter as the official code leaves it."""
    save_adapter(folder, adapted(), None)
    (folder / SOFT_MASK).unlink()
    (folder / OFFICIAL).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "record",
    [
        {"scale": 0.25, "centre": -1, "steepness": 5, "k": 1},
        {"scale": 0.25, "offset": -1.0, "steepness": 5.0, "mixinputs_k": 1, "sm_alg": "mixinputs_with_topk"},
    ],
)
def test_the_official_file_is_read(tmp_path: Path, record: dict[str, Any]) -> None:
    found = load_adapter(tiny_dream(), official(tmp_path, json.dumps(record)))
    assert found is not None and (found.kind, found.k) == (FeedbackKind.TOP_K, 1)
    expected = {"omega_s": 0.25, "omega_a": 5.0, "omega_b": -1.0}
    assert {name: found.omegas()[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_an_official_file_of_full_feedback_is_read(tmp_path: Path) -> None:
    record = {"scale": 0.9, "offset": -2.0, "steepness": 2.0, "mixinputs_temp": 1.4, "sm_alg": "mixinputs_with_temp"}
    found = load_adapter(tiny_dream(), official(tmp_path, json.dumps(record)))
    assert found is not None and found.kind is FeedbackKind.FULL
    assert found.omegas()["temperature"] == pytest.approx(1.4, rel=1e-5)


def test_our_own_file_goes_before_the_official_one(tmp_path: Path) -> None:
    official(tmp_path, json.dumps({"scale": 0.25, "centre": -1, "steepness": 5, "k": 1}))
    save_adapter(tmp_path, None, soft_mask(omega_s=0.5))
    found = load_adapter(tiny_dream(), tmp_path)
    assert found is not None and found.omegas()["omega_s"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"scale": 0.1, "centre": -1, "k": 1}',
        '{"scale": 1.5, "centre": -1, "steepness": 5, "k": 1}',
        '{"scale": 0.1, "centre": 1, "steepness": 5, "k": 1}',
        '{"scale": 0.1, "centre": -1, "steepness": 5, "k": 0}',
        '{"scale": NaN, "centre": -1, "steepness": 5, "k": 1}',
        '{"scale": "x", "centre": -1, "steepness": 5, "k": 1}',
        '{"scale": 0.1, "centre": -1, "steepness": 1e999, "k": 1}',
        '{"scale": 0.1, "centre": -1, "steepness": 5, "k": 1e999}',
        '{"scale": 0.1, "centre": -1, "steepness": 1' + 400 * "0" + ', "k": 1}',
        '{"scale": 0.1, "centre": -1, "steepness": ' + 5000 * "1" + ', "k": 1}',
        "[" * 100_000,
    ],
)
def test_a_damaged_official_file_is_named(tmp_path: Path, text: str) -> None:
    assert reason(official(tmp_path, text)).startswith(str(tmp_path / OFFICIAL))


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"soft_mask": {"kind": "top_k", "k": 3}}', '{"soft_mask": []}', "[" * 100_000),
        '{"soft_mask": {"kind": "top_k", "k": 3, "interpolation": "linear", "omega_s": 0.1, "omega_a": 1.0, '
        '"omega_b": -1.0, "temperature": 1.0, "raw": {"omega_a": NaN}}}',
    ],
)
def test_a_damaged_soft_mask_is_named(tmp_path: Path, text: str) -> None:
    save_adapter(tmp_path, adapted(), soft_mask())
    (tmp_path / SOFT_MASK).write_text(text, encoding="utf-8")
    assert reason(tmp_path).startswith(str(tmp_path / SOFT_MASK))


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in reason(tmp_path)
    assert str(tmp_path / "nowhere") in reason(tmp_path / "nowhere")


def test_another_kind_of_adapter_is_refused_by_name(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), None)
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({**config, "peft_type": "PREFIX_TUNING"}), encoding="utf-8")
    assert "'PREFIX_TUNING'" in reason(tmp_path) and "peft_type" in reason(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 128 * 10**9}, f"{ADAPTER_CONFIG}: r, rank_pattern: the rank 128000000000; expected a rank that is sto"),
        ({"r": "four"}, f"{ADAPTER_CONFIG}: r, rank_pattern: the rank 'four'; expected a rank that is stored: "),
        ({"rank_pattern": {"q_proj": 10**9}}, f"{ADAPTER_CONFIG}: r, rank_pattern: the rank 1000000000; expected"),
        ({"layer_replication": [[0, 10**9]]}, f"{ADAPTER_CONFIG}: layer_replication: layers are replicated"),
        ({"target_modules": "("}, "the adapter can't be loaded: "),
    ],
)
def test_an_adapter_that_asks_for_more_than_is_stored_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    save_adapter(tmp_path, adapted(), None)
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({**config, **change}), encoding="utf-8")
    assert message in reason(tmp_path)


def test_adapter_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), None)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors[min(tensors)].view(-1)[0] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    assert "holds values that are not finite" in reason(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(), None)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    assert WEIGHTS in reason(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, ADAPTER_CONFIG])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    save_adapter(tmp_path, adapted(), None)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert str(tmp_path) in reason(tmp_path)


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: str) -> None:
    save_adapter(tmp_path, adapted(), None)
    tensors = load_file(tmp_path / WEIGHTS)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        name = name.replace("layers.1", "layers.9")
        tensors[name] = torch.zeros(2, 16)
    else:
        tensors[name] = torch.zeros(2, 17)
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    assert "layers." + name.split(".")[4] in reason(tmp_path)
