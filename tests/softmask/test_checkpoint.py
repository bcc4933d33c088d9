"""Published checkpoints, written here in both of their layouts: what goes where, and what is refused, unharmed."""

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from torch import Tensor

from softmask.backbones.checkpoint import ROTARY, SIZES, import_checkpoint, reference_keys
from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.errors import InputError
from tests.softmask.published import (
    GOLDEN,
    Change,
    Trap,
    hub_config,
    published_model,
    traps,
    write_hub,
    write_lightning,
)
from tests.softmask.tiny import tiny_mdlm

PUBLISHED = "backbone.blocks.1.mlp.0.bias"
Layout = Literal["lightning", "hub"]


def logits(model: Mdlm) -> Tensor:
    with torch.no_grad():
        return model.forward(torch.tensor([[8, 1, 8, 3, 8, 5], [0, 8, 2, 8, 4, 8]]))


RAW, AVERAGED = tiny_mdlm(seed=1), tiny_mdlm(seed=2)


def test_the_reference_keys_are_the_published_ones_in_their_order() -> None:
    published = json.loads((GOLDEN / "mdlm_small_state_dict.json").read_text(encoding="utf-8"))["state_dict"]
    assert reference_keys(12) == list(published)


@pytest.mark.parametrize(("weights", "expected"), [("ema", AVERAGED), ("raw", RAW)])
def test_a_lightning_checkpoint_gives_the_logits_of_the_weights_asked_for(
    weights: str, expected: Mdlm, tmp_path: Path
) -> None:
    model = tiny_mdlm(seed=0)
    report = import_checkpoint(model, write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED), "lightning", weights)
    assert torch.equal(logits(model), logits(expected))
    assert not torch.equal(logits(RAW), logits(AVERAGED))
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_hub_folder_gives_the_logits_of_its_model(name: str, tmp_path: Path) -> None:
    model = tiny_mdlm(seed=0)
    report = import_checkpoint(model, write_hub(tmp_path, AVERAGED, name=name), "hub", "ema")
    assert torch.equal(logits(model), logits(AVERAGED))
    assert report["file"]["name"] == name and report["skipped"] == {}


def test_the_reference_weights_give_the_reference_logits(tmp_path: Path) -> None:
    with safe_open(GOLDEN / "dit.safetensors", "pt") as file:
        sizes: dict[str, Any] = {key: int(value) for key, value in file.metadata().items() if key != "head"}
        state = {
            key.removeprefix("state."): file.get_tensor(key) for key in sorted(file.keys()) if key.startswith("state.")
        }
        input_ids, expected = file.get_tensor("input_ids"), file.get_tensor("logits")
    model = Mdlm(MdlmConfig(**sizes))
    model.train(False)
    ordered = OrderedDict((key, state[key]) for key in reference_keys(sizes["n_blocks"]))
    torch.save({"state_dict": ordered}, tmp_path / "mdlm.ckpt")
    import_checkpoint(model, tmp_path / "mdlm.ckpt", "lightning", "raw")
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids), expected, atol=1e-4, rtol=0)


def test_the_ema_list_is_in_the_references_order_whatever_ours_is(tmp_path: Path) -> None:
    model = tiny_mdlm(seed=0)
    for module in (model.backbone, *model.backbone.blocks):
        module._modules = dict(reversed(module._modules.items()))
    assert next(name for name, _ in model.named_parameters()) != reference_keys(2)[0]
    import_checkpoint(model, write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED), "lightning", "ema")
    assert torch.equal(logits(model), logits(AVERAGED))


def test_the_report_says_which_key_went_where(tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED)
    report = import_checkpoint(tiny_mdlm(), path, "lightning", "ema")
    number = [key for key in reference_keys(2) if key != ROTARY].index(PUBLISHED)
    by_parameter = {entry["parameter"]: entry for entry in report["keys"]}
    assert by_parameter[PUBLISHED] == {
        "key": f"ema.shadow_params[{number}]",
        "parameter": PUBLISHED,
        "shape": [64],
        "dtype": "float32",
    }
    assert by_parameter[ROTARY]["key"] == f"state_dict.{ROTARY}"
    assert sorted(by_parameter) == sorted(reference_keys(2)) and report["key_count"] == len(by_parameter)
    assert report["parameter_count"] == sum(p.numel() for p in RAW.parameters())
    assert report["ema"] == {"decay": 0.9999, "num_updates": 7}
    assert report["skipped"]["optimizer_states"] == report["skipped"]["hyper_parameters"] == "not weights"
    assert str(tmp_path) not in json.dumps(report)


def test_other_float_types_become_float32_and_the_report_says_so(tmp_path: Path) -> None:
    def halve(state: dict[str, Any]) -> None:
        state.update({key: tensor.bfloat16() for key, tensor in state.items() if key != ROTARY})

    model = tiny_mdlm()
    report = import_checkpoint(model, write_hub(tmp_path, AVERAGED, halve), "hub", "ema")
    assert report["converted_to_float32"] == {"bfloat16": len(reference_keys(2)) - 1}
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())
    embedding = "backbone.vocab_embed.embedding"
    assert torch.equal(model.state_dict()[embedding], AVERAGED.state_dict()[embedding].bfloat16().float())


def test_a_hub_folder_may_lack_the_rotary_buffer(tmp_path: Path) -> None:
    model = tiny_mdlm()
    report = import_checkpoint(model, write_hub(tmp_path, AVERAGED, lambda state: state.pop(ROTARY)), "hub", "ema")
    assert ROTARY in report["skipped"] and report["key_count"] == len(reference_keys(2)) - 1
    assert torch.equal(logits(model), logits(AVERAGED))


def break_keys(state: dict[str, Any]) -> None:
    """One of each: missing twice, unexpected, misshapen, no floats, NaN, infinite."""
    del state["backbone.blocks.0.norm1.weight"], state["backbone.output_layer.linear.bias"]
    state["noise.sigma"] = torch.zeros(1)
    state["backbone.blocks.0.attn_out.weight"] = torch.zeros(3, 16)
    state["backbone.blocks.0.mlp.2.bias"] = torch.zeros(16, dtype=torch.int64)
    state["backbone.blocks.1.norm2.weight"][3] = torch.nan
    state["backbone.blocks.1.norm1.weight"][4] = -torch.inf
    state["backbone.blocks.1.mlp.2.bias"] = torch.full((16,), 1e300, dtype=torch.float64)


PROBLEMS = (
    "missing: backbone.blocks.0.norm1.weight [16]",
    "missing: backbone.output_layer.linear.bias [9]",
    "unexpected: noise.sigma",
    "backbone.blocks.0.attn_out.weight is misshapen: [3, 16], expected [16, 16]",
    "backbone.blocks.0.mlp.2.bias is a torch.int64 tensor",
    "backbone.blocks.1.norm1.weight holds values that are not finite",
    "backbone.blocks.1.norm2.weight holds values that are not finite",
    "backbone.blocks.1.mlp.2.bias holds values beyond float32",
)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "often", True])
def test_the_report_of_any_checkpoint_is_json(value: Any, tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED, lambda whole: whole["ema"].update(decay=value))
    report = import_checkpoint(tiny_mdlm(seed=0), path, "lightning", "ema")
    assert report["ema"]["num_updates"] == 7
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "not valid JSON (nested too deeply)"),
        ('{"vocab_size": ' + "1" * 5000 + "}", "not valid JSON (a number has more than 4300 digits)"),
        ('{"vocab_size": 9, "vocab_size": 9}', "not valid JSON (the key 'vocab_size' is there twice)"),
        ("[]", "holds list; expected the checkpoint's config"),
    ],
)
def test_a_config_that_is_none_is_named(content: str, message: str, tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "hub", RAW)
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        import_checkpoint(tiny_mdlm(seed=0), folder, "hub", "ema")
    assert str(caught.value).startswith(f"{folder / 'config.json'}: {message}")


@pytest.mark.parametrize("layout", ["lightning", "hub"])
def test_every_key_that_does_not_fit_is_listed_and_the_model_is_left_as_it_was(layout: Layout, tmp_path: Path) -> None:
    if layout == "lightning":
        path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED, lambda whole: break_keys(whole["state_dict"]))
    else:
        path = write_hub(tmp_path, AVERAGED, break_keys)
    model = tiny_mdlm()
    with pytest.raises(InputError) as caught:
        import_checkpoint(model, path, layout, "ema")
    assert "8 of the keys" in str(caught.value)
    assert all(problem in str(caught.value) for problem in PROBLEMS)
    assert torch.equal(logits(model), logits(tiny_mdlm()))


def shuffle(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"] = OrderedDict(sorted(checkpoint["state_dict"].items()))


def swap(checkpoint: dict[str, Any]) -> None:
    shadow = checkpoint["ema"]["shadow_params"]
    shadow[0], shadow[-1] = shadow[-1], shadow[0]


def heads(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"][ROTARY] = torch.ones(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("ema"), "ema: it has no EMA weights. Use weights raw"),
        (lambda c: c.update(ema=None), "ema: it has no EMA weights"),
        (lambda c: c["ema"].update(shadow_params={}), "shadow_params: it holds dict; expected 30 tensors"),
        (lambda c: c["ema"]["shadow_params"].pop(), "it holds 29 tensors; expected 30 tensors"),
        (swap, "ema.shadow_params[29] = backbone.output_layer.adaLN_modulation.bias is misshapen: [9, 16]"),
        (shuffle, "the order of ema.shadow_params isn't known"),
        (heads, f"{ROTARY} is misshapen: [8], expected [4]"),
        (lambda c: c.pop("state_dict"), "it has no state_dict"),
        (lambda c: c.update(state_dict=[1]), "it has no state_dict"),
        (lambda c: c["state_dict"].update({PUBLISHED: "x"}), f"{PUBLISHED} is str"),
        (lambda c: c["state_dict"].update({PUBLISHED: c["hyper_parameters"]["config"]}), f"{PUBLISHED} is _Inert"),
        (
            lambda c: c["state_dict"].update({PUBLISHED: torch.ones(64, device="meta")}),
            f"{PUBLISHED} is a torch.float32",
        ),
    ],
)
def test_a_lightning_checkpoint_that_is_not_whole_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED, change)
    model = tiny_mdlm()
    with pytest.raises(InputError) as caught:
        import_checkpoint(model, path, "lightning", "ema")
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert torch.equal(logits(model), logits(tiny_mdlm()))


def test_raw_weights_need_no_ema_and_no_order(tmp_path: Path) -> None:
    def change(checkpoint: dict[str, Any]) -> None:
        del checkpoint["ema"]
        shuffle(checkpoint)

    model = tiny_mdlm()
    path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED, change)
    assert import_checkpoint(model, path, "lightning", "raw")["skipped"]["ema"] == "the checkpoint has none"
    assert torch.equal(logits(model), logits(RAW))


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "_io.open", "pickle.loads"])
@pytest.mark.parametrize("layout", ["lightning", "hub"])
def test_a_malicious_pickle_is_refused_by_name_and_nothing_in_it_runs(
    layout: Layout, name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    trap = traps(mark)[name]
    if layout == "lightning":
        path = write_lightning(tmp_path / "x.ckpt", RAW, AVERAGED, lambda c: c["hyper_parameters"].update(x=trap))
        file = path
    else:
        path = write_hub(tmp_path, AVERAGED, lambda state: state.update(x=trap), "pytorch_model.bin")
        file = path / "pytorch_model.bin"
    with pytest.raises(InputError, match=r"refused; nothing in it was run") as caught:
        import_checkpoint(tiny_mdlm(), path, layout, "ema")
    listed = "io.open" if name == "_io.open" else name
    assert listed in str(caught.value)
    assert not mark.exists()
    torch.load(file, weights_only=False)  # the trap is a real one
    assert mark.exists()


def test_a_bare_malicious_pickle_is_refused_unrun(tmp_path: Path) -> None:
    path, mark = tmp_path / "mdlm.ckpt", tmp_path / "mark"
    path.write_bytes(pickle.dumps({"state_dict": Trap(os.system, f"touch {mark}")}))
    with pytest.raises(InputError, match="can't be read as data"):
        import_checkpoint(tiny_mdlm(), path, "lightning", "ema")
    assert not mark.exists()


def test_a_hub_pickle_may_hold_nothing_but_tensors(tmp_path: Path) -> None:
    config = OmegaConf.create({"a": 1})
    path = write_hub(tmp_path, AVERAGED, lambda state: state.update(config=config), "pytorch_model.bin")
    with pytest.raises(InputError, match=r"omegaconf\.dictconfig\.DictConfig"):
        import_checkpoint(tiny_mdlm(), path, "hub", "ema")


@pytest.mark.parametrize("keep", [0, 100, 0.5, -10])
def test_a_torn_lightning_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = write_lightning(tmp_path / "mdlm.ckpt", RAW, AVERAGED)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if keep == 0.5 else int(keep)])
    with pytest.raises(InputError, match=r"can't be read as data .*Fetch it again"):
        import_checkpoint(tiny_mdlm(), path, "lightning", "ema")


def test_a_torn_safetensors_file_is_refused(tmp_path: Path) -> None:
    file = write_hub(tmp_path, AVERAGED) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="not safetensors"):
        import_checkpoint(tiny_mdlm(), tmp_path, "hub", "ema")


@pytest.mark.parametrize(("name", "ours"), SIZES.items())
def test_a_hub_config_of_another_size_is_refused_by_field(name: str, ours: str, tmp_path: Path) -> None:
    write_hub(tmp_path, AVERAGED)
    for config in ({**hub_config(AVERAGED), name: 1234}, {k: v for k, v in hub_config(AVERAGED).items() if k != name}):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(InputError, match=rf"config.json: {name} is {config.get(name)}, expected \d+ .*{ours}"):
            import_checkpoint(tiny_mdlm(), tmp_path, "hub", "ema")


def test_a_time_conditioned_model_and_two_wrong_sizes_are_named_together(tmp_path: Path) -> None:
    config = {**hub_config(AVERAGED), "time_conditioning": True, "n_heads": 4, "cond_dim": 129}
    (write_hub(tmp_path, AVERAGED) / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=r"n_heads is 4, .*cond_dim is 129, .*time_conditioning is on"):
        import_checkpoint(tiny_mdlm(), tmp_path, "hub", "ema")


@pytest.mark.parametrize("text", ["", "[1]", "{", None])
def test_a_hub_folder_without_a_readable_config_is_refused(text: str | None, tmp_path: Path) -> None:
    config = write_hub(tmp_path, AVERAGED) / "config.json"
    config.unlink() if text is None else config.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: "):
        import_checkpoint(tiny_mdlm(), tmp_path, "hub", "ema")


def test_a_hub_folder_has_no_raw_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has the EMA weights only"):
        import_checkpoint(tiny_mdlm(), write_hub(tmp_path, AVERAGED), "hub", "raw")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.ckpt: no such file"):
        import_checkpoint(tiny_mdlm(), tmp_path / "none.ckpt", "lightning", "ema")
    with pytest.raises(InputError, match="none: no such folder"):
        import_checkpoint(tiny_mdlm(), tmp_path / "none", "hub", "ema")
    (write_hub(tmp_path, AVERAGED) / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights are there; expected model\.safetensors or pytorch_model\.bin"):
        import_checkpoint(tiny_mdlm(), tmp_path, "hub", "ema")


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "weights"), [("lightning", "raw"), ("lightning", "ema"), ("hub", "ema")])
def test_the_169m_shape_comes_through_whole(layout: Layout, weights: str, tmp_path: Path) -> None:
    raw, model = published_model(1), published_model(0)
    averaged = published_model(2) if weights == "ema" else raw
    if layout == "lightning":
        path = write_lightning(tmp_path / "mdlm.ckpt", raw, averaged)
    else:
        path = write_hub(tmp_path, averaged)
    report = import_checkpoint(model, path, layout, weights)
    rotary_of = raw if layout == "lightning" else averaged
    expected = {**averaged.state_dict(), ROTARY: rotary_of.state_dict()[ROTARY]}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert (report["parameter_count"], report["key_count"]) == (169_627_218, 131)
