"""Published Dream folders: what loads, in which type, at what cost in memory; and how a bad folder is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.backbones.dream_checkpoint import load_dream, open_dream, read_config, require_finite, save_dream
from softmask.errors import InputError
from tests.softmask.tiny_dream import MASK, PAD, tiny_dream, write_published

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00003.safetensors"


def same(ours: DreamModel, theirs: DreamModel, dtype: torch.dtype) -> bool:
    state = theirs.state_dict()
    return all(torch.equal(tensor, state[name].to(dtype)) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_a_sharded_folder_loads_in_the_weights_own_type_and_runs_none_of_its_code(
    tmp_path: Path, stored: torch.dtype
) -> None:
    model = tiny_dream()
    loaded = load_dream(write_published(tmp_path, model, dtype=stored))
    assert type(loaded) is DreamModel and not loaded.training
    assert loaded.dtype is stored and same(loaded, model, stored)
    assert (loaded.config.mask_token_id, loaded.config.pad_token_id) == (MASK, PAD)


def test_another_type_is_converted(tmp_path: Path) -> None:
    model = tiny_dream()
    loaded = load_dream(write_published(tmp_path, model), torch.float32)
    assert loaded.dtype is torch.float32 and same(loaded, model.to(torch.bfloat16), torch.float32)


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_loads_as_it_was_and_the_same_bytes_are_written(tmp_path: Path, tied: bool) -> None:
    model = tiny_dream(tie_word_embeddings=tied, rope_theta=5e5)
    for name in ("a", "b"):
        save_dream(model, tmp_path / name)
    assert same(load_dream(tmp_path / "a"), model, torch.float32)
    files = [sorted((path.name, path.read_bytes()) for path in (tmp_path / name).iterdir()) for name in ("a", "b")]
    assert files[0] == files[1]
    assert read_config(tmp_path / "a").rope_theta == 5e5


def test_a_config_that_transformers_5_wrote_gives_its_rope_theta(tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 2e4}
    write_published(tmp_path, tiny_dream(), rope_parameters=rope)
    assert read_config(tmp_path).rope_theta == 2e4


def test_changing_a_loaded_weight_changes_no_file(tmp_path: Path) -> None:
    folder = write_published(tmp_path, tiny_dream())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with torch.no_grad():
        for parameter in load_dream(folder).parameters():
            parameter.fill_(1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_report_counts_what_is_stored(tmp_path: Path) -> None:
    model = tiny_dream()
    found = open_dream(write_published(tmp_path, model))
    report = found.report()
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert report["keys"] == len(model.state_dict()) and report["dtype"] == "bfloat16"
    assert report["files"] == [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    require_finite(found)


REFUSED_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "qwen2"}, 'config.json: model_type: "qwen2" is not what this architecture has; expected "Dream"'),
    ({"use_sliding_window": True}, "use_sliding_window: true is not what"),
    ({"use_mrope": True}, "use_mrope: true is not what"),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling: {"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: {"),
    ({"attention_dropout": 0.1}, "attention_dropout: 0.1 is not what"),
    ({"quantization_config": {"bits": 4}}, "quantization_config: {"),
    ({"hidden_size": None}, "hidden_size: missing; expected a whole number from 1 to 16777216"),
    ({"num_hidden_layers": 0}, "num_hidden_layers: 0 is not what"),
    ({"num_hidden_layers": True}, "num_hidden_layers: true is not what"),
    ({"mask_token_id": 30}, "mask_token_id: 30 is not what this architecture has; expected less than vocab_size (30)"),
    ({"hidden_size": 18}, "hidden_size: 18 is not what this architecture has; expected a multiple of"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: 3 is not what"),
    ({"rope_theta": -1}, "rope_theta: -1 is not what"),
    ({"rms_norm_eps": None}, "rms_norm_eps: missing; expected a number above 0"),
    ({"hidden_act": "softsilu"}, 'hidden_act: "softsilu" is not what'),
    ({"hidden_act": []}, "hidden_act: [] is not what"),
    ({"hidden_size": 128 * 10**9}, "hidden_size: 128000000000 is not what this architecture has; expected a whole"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000 is not what this architecture has; expected a whole"),
    ({"rope_theta": float("inf")}, "rope_theta: Infinity is not what this architecture has; expected a number above"),
    ({"model_type": "Dream" * 1000}, "model_type: "),
    ({"tie_word_embeddings": "no"}, 'tie_word_embeddings: "no" is not what'),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_CONFIGS, ids=[next(iter(c)) for c, _ in REFUSED_CONFIGS])
def test_a_config_of_what_this_is_not_is_refused_by_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_published(tmp_path, tiny_dream(), **changes)
    with pytest.raises(InputError) as caught:
        load_dream(tmp_path)
    assert message in str(caught.value)


def edit_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def edit_shard(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / SHARD)
    change(tensors)
    save_file(tensors, folder / SHARD)


KEY = "model.layers.0.mlp.down_proj.weight"


def cut(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-7])


def drop(folder: Path) -> None:
    edit_shard(folder, lambda tensors: tensors.__delitem__(KEY))
    edit_index(folder, lambda places: places.__delitem__(KEY))


def add(folder: Path) -> None:
    edit_shard(folder, lambda tensors: tensors.update(extra=torch.ones(1)))
    edit_index(folder, lambda places: places.update(extra=SHARD))


def only_pickles(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo ran'\ntR.")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a truncated shard": (cut, f"{SHARD}: truncated or damaged (Error while deserializing header"),
    "an empty shard": (lambda folder: (folder / SHARD).write_bytes(b""), f"{SHARD}: truncated or damaged"),
    "an absent shard": (lambda folder: (folder / SHARD).unlink(), f"1 of 3 shards are missing: {SHARD}"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: the file is missing"),
    "a broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
    "a config without end": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000),
        "config.json: not valid JSON (nested too deeply)",
    ),
    "a number without end": (
        lambda folder: (folder / "config.json").write_text('{"a": ' + "1" * 5000 + "}"),
        "config.json: not valid JSON (a number has more than 4300 digits)",
    ),
    "an index without end": (
        lambda folder: (folder / INDEX).write_text("[" * 100_000),
        f"{INDEX}: not valid JSON (nested too deeply)",
    ),
    "a broken index": (lambda folder: (folder / INDEX).write_text("[]"), f"{INDEX}: holds list"),
    "an index without keys": (lambda folder: (folder / INDEX).write_text("{}"), "it has no weight_map"),
    "an index that leads elsewhere": (
        lambda folder: edit_index(folder, lambda places: places.update({KEY: "../../secret.safetensors"})),
        f"{INDEX}: {KEY}: '../../secret.safetensors' is no shard",
    ),
    "an index of another version": (
        lambda folder: edit_index(folder, lambda places: places.update({KEY: "model-00003-of-00003.safetensors"})),
        f"{INDEX}: 1 keys are not where it says: {KEY}",
    ),
    "a missing key": (drop, f"1 of the keys don't fit config.json:\n  missing: {KEY} [16, 24]"),
    "an unexpected key": (add, "unexpected: extra"),
    "a misshapen key": (
        lambda folder: edit_shard(folder, lambda tensors: tensors.update({KEY: torch.ones(16, 23).bfloat16()})),
        f"misshapen: {KEY} [16, 23], expected [16, 24]",
    ),
    "a quantised key": (
        lambda folder: edit_shard(folder, lambda tensors: tensors.update({KEY: torch.ones(16, 24).to(torch.int8)})),
        f"{KEY} is of type I8, expected BF16, F16, F32",
    ),
    "two types": (
        lambda folder: edit_shard(folder, lambda tensors: tensors.update({KEY: torch.ones(16, 24)})),
        "the weights are of several types: BF16, F32",
    ),
    "pickles only": (only_pickles, "the weights are pickles (pytorch_model.bin), which are not read"),
    "no weights": (
        lambda folder: [path.unlink() for path in folder.iterdir() if path.name != "config.json"],
        "no weights are there; expected model.safetensors, or model.safetensors.index.json and its shards",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_and_the_place_is_named(tmp_path: Path, damage: str) -> None:
    folder = write_published(tmp_path, tiny_dream())
    DAMAGES[damage][0](folder)
    with pytest.raises(InputError) as caught:
        load_dream(folder)
    assert DAMAGES[damage][1] in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_found(tmp_path: Path, value: float) -> None:
    model = tiny_dream()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    found = open_dream(write_published(tmp_path, model))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        require_finite(found)


MEASURE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from softmask.backbones.dream_checkpoint import load_dream, require_finite, open_dream

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

before, folder = resident("VmRSS"), Path(sys.argv[1])
model = load_dream(folder)
loaded = resident("VmHWM") - before
with torch.no_grad():
    model.log_probs(model.hidden(model.embed(torch.arange(4096)[None, ::64]))[:, -1])
    total = sum(float(parameter.sum()) for parameter in model.parameters())
size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
print(json.dumps({"loaded": loaded, "used": resident("VmHWM") - before, "size": size}))
"""


def test_loading_and_using_a_model_takes_its_size_in_memory_and_no_second_copy(tmp_path: Path) -> None:
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16, "vocab_size": 16384}
    with torch.device("meta"):
        model = DreamModel(DreamConfig(**{**tiny_dream().config.to_diff_dict(), **shape})).to(torch.bfloat16)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    write_published(tmp_path, model, shards=4)
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(out)
    assert found["size"] > 100 * 2**20
    assert found["loaded"] < 0.3 * found["size"], "nothing is copied while loading"
    assert 0.9 * found["size"] < found["used"] < 1.3 * found["size"], "all of it was used, and once"
