"""Loads a folder of Dream weights in the published layout (config.json, sharded safetensors) into our `DreamModel`.

No code and no pickle of the folder is run. Knows neither where a folder comes from nor what the model is for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers.activations import ACT2FN

from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.backbones.loading import load_pretrained
from softmask.errors import InputError
from softmask.plain_json import read_object

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings"),
)
"""Fields of config.json that must be there, and be whole numbers above 0."""
LARGEST_SIZE = 1 << 24
MOST = {"num_hidden_layers": 1024, "max_position_embeddings": 1 << 31}
"""Beyond these no weights can be meant; the model's shapes are worked out before weights are looked at."""
TOKENS = ("mask_token_id", "pad_token_id")
"""Fields that must be there, and be ids of the vocabulary."""
NUMBERS = ("rope_theta", "rms_norm_eps")
"""Fields that must be there, and be above 0: with another value the same weights are another model."""
OPTIONAL = ("hidden_act", "tie_word_embeddings", "initializer_range")
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("Dream",),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "rope_scaling": (None,),
    "attention_dropout": (0, None),
    "quantization_config": (None,),
}
"""Fields of config.json -> the values that this architecture has; any other asks for something that it doesn't do."""
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""Safetensors' name -> torch's, of the types that weights may have."""
TIED = "lm_head.weight"
SHOWN = 5
"""Keys that an error names."""


@dataclass(frozen=True)
class DreamFolder:
    """A folder whose every header fits the model that its config.json describes."""

    folder: Path
    config: DreamConfig
    dtype: torch.dtype
    """Of all weights."""
    files: tuple[Path, ...]
    """The safetensors files, by name."""
    index: Path | None
    """The index of the shards; None where one file holds all."""
    keys: int
    parameters: int
    """Stored values."""

    def report(self) -> dict[str, Any]:
        """Counts for a manifest."""
        return {
            "files": [file.name for file in self.files],
            "bytes": sum(file.stat().st_size for file in self.files),
            "keys": self.keys,
            "parameters": self.parameters,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True)
class _Stored:
    """What a header says of one tensor."""

    file: Path
    dtype: str
    shape: list[int]


def open_dream(folder: Path) -> DreamFolder:
    """Check a folder by its config.json and the headers of its weights; no weight is read.

    Raises:
        InputError: it is no Dream, asks for what this architecture doesn't do, a shard is absent, truncated or
            damaged, or a key is missing, unexpected, misshapen or of a type that is no weight's.
    """
    config = read_config(folder)
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        stored, places = _headers([folder / SINGLE]), None
    elif index.is_file():
        places = _weight_map(index)
        stored = _headers([folder / name for name in sorted(set(places.values()))])
        _require_places(index, places, stored)
    else:
        raise _no_weights(folder)
    dtype = _require_fit(folder, config, stored)
    return DreamFolder(
        folder=folder,
        config=config,
        dtype=dtype,
        files=tuple(sorted({tensor.file for tensor in stored.values()})),
        index=None if places is None else index,
        keys=len(stored),
        parameters=sum(torch.Size(tensor.shape).numel() for tensor in stored.values()),
    )


def load_dream(folder: Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> DreamModel:
    """The model in a folder, in eval mode.

    On the CPU and in the weights' own type, its parameters are the files' pages, mapped copy-on-write: nothing is
    copied, pages are read when they are used, and the files must not be changed in place meanwhile. Otherwise tensors
    are converted or moved one by one. Measured at 357 MiB of bfloat16 in four shards: 11 MiB more memory than before.

    Args:
        folder: in the published layout; see `open_dream`.
        dtype: of the model; None takes the weights' own.
        device: where the model goes.

    Raises:
        InputError: as `open_dream`.
    """
    found = open_dream(folder)
    model: DreamModel = load_pretrained(
        DreamModel,
        folder,
        config=found.config,
        dtype=found.dtype if dtype is None else dtype,
        device_map={"": device},
    )
    model.train(False)
    return model


def save_dream(model: DreamModel, folder: Path) -> None:
    """Write a model in the layout that `load_dream` reads: config.json, and safetensors in the model's own type.

    The folder must not be the one that the model was loaded from: its parameters may be that file's pages.
    """
    model.save_pretrained(folder)


def require_finite(found: DreamFolder) -> None:
    """Read every weight once, tensor by tensor.

    Raises:
        InputError: one of them is NaN or infinite.
    """
    with tqdm(total=found.parameters, desc="checking weights", unit="weight", unit_scale=True) as bar:
        for file in found.files:
            with safe_open(file, "pt") as tensors:
                for key in sorted(tensors.keys()):
                    tensor = tensors.get_tensor(key)
                    if not bool(torch.stack(tensor.aminmax()).isfinite().all()):
                        raise InputError(f"{key} holds values that are not finite", where=str(file))
                    bar.update(tensor.numel())


def read_config(folder: Path) -> DreamConfig:
    """The shape in a folder's config.json; `auto_map` and other keys that name code are not looked at.

    Raises:
        InputError: it is missing or no JSON, is of another architecture, lacks a size, or its values can't be together.
    """
    path = folder / CONFIG
    raw = read_object(path, expected="the config.json of a Dream checkpoint")
    raw = {**raw, **_theta(path, raw)}
    for name, allowed in PLAIN.items():
        if raw.get(name) not in allowed:
            raise _wrong(path, name, raw.get(name), json.dumps(allowed[0]))
    for name in (*SIZES, *TOKENS):
        lowest, most = int(name in SIZES), MOST.get(name, LARGEST_SIZE)
        if type(raw.get(name)) is not int or not lowest <= raw[name] <= most:
            raise _wrong(path, name, raw.get(name), f"a whole number from {lowest} to {most}")
    for name in (*NUMBERS, *({"initializer_range"} & raw.keys())):
        if type(raw.get(name)) not in (int, float) or not 0 < raw[name] < float("inf"):
            raise _wrong(path, name, raw.get(name), "a number above 0")
    if not isinstance(raw.get("hidden_act", "silu"), str) or raw.get("hidden_act", "silu") not in ACT2FN:
        raise _wrong(path, "hidden_act", raw["hidden_act"], "an activation that transformers knows, such as 'silu'")
    if type(raw.get("tie_word_embeddings", False)) is not bool:
        raise _wrong(path, "tie_word_embeddings", raw["tie_word_embeddings"], "true or false")
    _require_possible(path, raw)
    given = {name: raw[name] for name in OPTIONAL if raw.get(name) is not None}
    needed = {name: raw[name] for name in (*SIZES, *TOKENS, *NUMBERS)}
    unused = dict.fromkeys(("bos_token_id", "eos_token_id"), raw["pad_token_id"])  # what ends a text is the tokenizer's
    return DreamConfig(**needed, **given, **unused)


def _theta(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta` where transformers 5 has written it."""
    rope = raw.get("rope_parameters")
    if rope is None:
        return {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise _wrong(path, "rope_parameters", rope, "null, or rope_type 'default'")
    return {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}


def _require_possible(path: Path, raw: Mapping[str, Any]) -> None:
    width, heads, groups = raw["hidden_size"], raw["num_attention_heads"], raw["num_key_value_heads"]
    if width % (2 * heads):
        raise _wrong(path, "hidden_size", width, f"a multiple of 2 x num_attention_heads ({heads})")
    if heads % groups:
        raise _wrong(path, "num_key_value_heads", groups, f"a divisor of num_attention_heads ({heads})")
    for name in TOKENS:
        if raw[name] >= raw["vocab_size"]:
            raise _wrong(path, name, raw[name], f"less than vocab_size ({raw['vocab_size']})")


def _wrong(path: Path, name: str, value: Any, expected: str) -> InputError:
    what = "missing" if value is None else f"{json.dumps(value):.80} is not what this architecture has"
    return InputError(what, where=f"{path}: {name}", expected=expected)


def _weight_map(index: Path) -> dict[str, str]:
    """Key -> name of the shard that holds it; a shard lies beside the index, whatever the index says."""
    places = read_object(index, expected="the index of sharded weights").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError("it has no weight_map", where=str(index), expected="the index of sharded weights")
    for key, name in places.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"{name!r} is no shard", where=f"{index}: {key}", expected="the name of a .safetensors file beside it"
            )
    return places


def _headers(files: Sequence[Path]) -> dict[str, _Stored]:
    """Key -> what the header of its file says; a key in two files is the later one's."""
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(files)} shards are missing: {_some(absent)}",
            where=str(files[0].parent),
            expected="every file that the index names",
            todo="Fetch them again",
        )
    stored: dict[str, _Stored] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (not a dictionary)
                    part = tensors.get_slice(key)
                    stored[key] = _Stored(file, str(part.get_dtype()), list(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"truncated or damaged ({error})", where=str(file), expected="whole safetensors", todo="Fetch it again"
            ) from None
    return stored


def _require_places(index: Path, places: Mapping[str, str], stored: Mapping[str, _Stored]) -> None:
    wrong = [key for key, tensor in stored.items() if places.get(key) != tensor.file.name]
    wrong += [key for key in places if key not in stored]
    if wrong:
        raise InputError(
            f"{len(wrong)} keys are not where it says: {_some(wrong)}",
            where=str(index),
            expected="each key in the shard that the index names, and no other",
            todo="Fetch the folder again: its files are of different versions",
        )


def _require_fit(folder: Path, config: DreamConfig, stored: Mapping[str, _Stored]) -> torch.dtype:
    """Every key of the model is there in its shape, none else, all in one type.

    Returns:
        That type.
    """
    with torch.device("meta"):
        shapes = {key: list(tensor.shape) for key, tensor in DreamModel(config).state_dict().items()}
    problems = list(_misfits(shapes, stored, optional=(TIED,) if config.tie_word_embeddings else ()))
    if problems:
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise InputError(
            "\n  ".join([f"{len(problems)} of the keys don't fit config.json:", *problems[:SHOWN], *rest]),
            where=str(folder),
            todo="\nCheck that the weights are a Dream model's and that config.json is theirs",
        )
    types = sorted({tensor.dtype for tensor in stored.values()})
    if len(types) > 1:
        raise InputError(f"the weights are of several types: {', '.join(types)}", where=str(folder), expected="one")
    return DTYPES[types[0]]


def _misfits(shapes: Mapping[str, list[int]], stored: Mapping[str, _Stored], optional: Sequence[str]) -> Iterator[str]:
    for key, shape in shapes.items():
        if key not in stored and key not in optional:
            yield f"missing: {key} {shape}"
        elif key in stored and stored[key].shape != shape:
            yield f"misshapen: {key} {stored[key].shape}, expected {shape}"
        elif key in stored and stored[key].dtype not in DTYPES:
            yield f"{key} is of type {stored[key].dtype}, expected {', '.join(DTYPES)}"
    yield from (f"unexpected: {key}" for key in stored if key not in shapes)


def _no_weights(folder: Path) -> InputError:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return InputError(
            f"the weights are pickles ({_some(pickles)}), which are not read: a pickle can run code",
            where=str(folder),
            expected=f"{SINGLE}, or {INDEX} and its shards",
            todo="Take the repository's safetensors, or convert them where you trust them",
        )
    return InputError("no weights are there", where=str(folder), expected=f"{SINGLE}, or {INDEX} and its shards")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
