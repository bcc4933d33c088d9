"""Fills a binary `Mdlm` from a published MDLM checkpoint: the public Lightning file or a hub repository's folder.

Nothing that a file names is ever imported or run. The module knows neither params.yaml nor where a file comes from.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.errors import InputError
from softmask.plain_json import read_object

PREFIX = "backbone."
ROTARY = "backbone.rotary_emb.inv_freq"
"""The one buffer; it is in no EMA list."""

# The order of the reference's state_dict and, without the buffer, of its parameters() and so of the EMA list
# (kuleshov-group/mdlm, models/dit.py and models/ema.py). It is written out, so that ours may become another.
_INPUT_KEYS = (
    "vocab_embed.embedding",
    *(f"sigma_map.mlp.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
    "rotary_emb.inv_freq",
)
_BLOCK_KEYS = (
    *("norm1.weight", "attn_qkv.weight", "attn_out.weight", "norm2.weight"),
    *(f"{layer}.{kind}" for layer in ("mlp.0", "mlp.2", "adaLN_modulation") for kind in ("weight", "bias")),
)
_OUTPUT_KEYS = (
    "norm_final.weight",
    *(f"{layer}.{kind}" for layer in ("linear", "adaLN_modulation") for kind in ("weight", "bias")),
)

IGNORABLE_PACKAGES = frozenset(
    (
        *("collections", "numpy", "pathlib", "typing"),
        *("lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics"),
        *("omegaconf", "tokenizers", "transformers"),
    )
)
"""Lightning pickles more than weights (`save_hyperparameters`: Hydra config and tokenizer); all of it is of these."""
IGNORABLE_BUILTINS = frozenset(
    f"builtins.{kind.__name__}" for kind in (bool, bytes, dict, float, int, list, object, str, tuple)
)
"""And the types that it names; no other built-in is data."""

DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
FLOAT32_MAX = torch.finfo(torch.float32).max
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Where a hub folder keeps its weights, the first that is there."""
SIZES = {
    "vocab_size": "vocab_size",
    "model_length": "length",
    "hidden_dim": "hidden_size",
    "n_blocks": "n_blocks",
    "n_heads": "n_heads",
    "cond_dim": "cond_dim",
}
"""Fields of the hub's config.json -> fields of `MdlmConfig` that must be the same."""


class _Weights(StrEnum):
    EMA = "ema"
    RAW = "raw"


@dataclass(frozen=True)
class _Found:
    """What a reader took out of a checkpoint: state-dict key -> tensor, and where in the file each one was."""

    file: Path
    tensors: Mapping[str, Tensor]
    origins: Mapping[str, str]
    skipped: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)


def import_checkpoint(model: Mdlm, source: Path, layout: Literal["lightning", "hub"], weights: str) -> dict[str, Any]:
    """Fill the backbone of a binary model, in float32; on an error the model is as it was.

    The file is memory-mapped, so that no second copy of the weights is held.

    Args:
        source: the Lightning file, or the folder with config.json and the weights.
        layout: `lightning` (kuleshov-group/mdlm's mdlm.ckpt) or `hub` (kuleshov-group/mdlm-owt).
        weights: `ema` or `raw`; a hub folder has the EMA weights only.

    Returns:
        A report for JSON: the file with its SHA-256, each key with the parameter that it filled, its shape and dtype,
        the counts, and what was skipped and why.

    Raises:
        InputError: the file can't be read, holds what is not data, or has a missing, unexpected or misshapen key.
    """
    assert model.soft_mask is None, "a checkpoint fills a binary model"
    found = _READERS[layout](model, source, _Weights(weights))
    entries = []
    with torch.no_grad():
        for name, target in model.backbone.state_dict().items():
            tensor = found.tensors.get(PREFIX + name)
            if tensor is None:
                continue
            target.copy_(tensor)
            entry = {"key": found.origins[PREFIX + name], "parameter": PREFIX + name}
            entries.append({**entry, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")})
    converted = Counter(entry["dtype"] for entry in entries if entry["dtype"] != "float32")
    return {
        "layout": layout,
        "weights": weights,
        "file": {"name": found.file.name, "size": found.file.stat().st_size, "sha256": _sha256(found.file)},
        "keys": entries,
        "key_count": len(entries),
        "parameter_count": sum(p.numel() for p in model.backbone.parameters()),
        "converted_to_float32": dict(sorted(converted.items())),
        "skipped": dict(found.skipped),
        **found.notes,
    }


def reference_keys(n_blocks: int) -> list[str]:
    """The keys of the reference's state_dict, in its order."""
    blocks = [f"blocks.{block}.{name}" for block in range(n_blocks) for name in _BLOCK_KEYS]
    return [PREFIX + name for name in (*_INPUT_KEYS, *blocks, *(f"output_layer.{name}" for name in _OUTPUT_KEYS))]


def _read_lightning(model: Mdlm, source: Path, weights: _Weights) -> _Found:
    """`state_dict` (raw weights), `ema` (`decay`, `num_updates`, `shadow_params`), and what else training left."""
    raw = _unpickle(source, _ignorable)
    if not isinstance(raw, dict) or not isinstance(raw.get("state_dict"), dict):
        raise InputError("it has no state_dict", where=str(source), expected="a Lightning checkpoint")
    state, expected = raw["state_dict"], _shapes(model)
    _require_fit(source, state, expected)
    skipped = {str(key): "not weights" for key in raw if key not in ("state_dict", "ema")}
    if weights is _Weights.RAW:
        skipped["ema"] = "raw weights were asked for" if "ema" in raw else "the checkpoint has none"
        return _Found(source, state, {key: f"state_dict.{key}" for key in state}, dict(sorted(skipped.items())))
    order = [key for key in reference_keys(int(model.config.n_blocks)) if key != ROTARY]
    shadow = _shadow(source, raw, len(order))
    _require_order(source, [key for key in state if key != ROTARY], order)
    labels = {key: f"ema.shadow_params[{number}]" for number, key in enumerate(order)}
    averaged = dict(zip(order, shadow, strict=True))
    _require_fit(source, averaged, {key: expected[key] for key in order}, labels)
    skipped["state_dict"] = f"raw weights; EMA weights were asked for ({ROTARY} is a buffer and was taken from here)"
    return _Found(
        source,
        {**averaged, ROTARY: state[ROTARY]},
        {**labels, ROTARY: f"state_dict.{ROTARY}"},
        dict(sorted(skipped.items())),
        {"ema": {name: raw["ema"][name] for name in ("decay", "num_updates") if _is_number(raw["ema"].get(name))}},
    )


def _read_hub(model: Mdlm, source: Path, weights: _Weights) -> _Found:
    """`config.json`, and one set of weights under the names of the Lightning file's state_dict."""
    if weights is not _Weights.EMA:
        raise InputError(
            f"weights {weights.value!r} were asked for, and a hub repository has the EMA weights only",
            where=str(source),
            todo="Use weights ema, or the Lightning checkpoint",
        )
    if not source.is_dir():
        raise InputError("no such folder", where=str(source), expected="a folder with config.json and the weights")
    _require_same_sizes(source / "config.json", model.config)
    file = next((source / name for name in HUB_FILES if (source / name).is_file()), None)
    if file is None:
        raise InputError("no weights are there", where=str(source), expected=" or ".join(HUB_FILES))
    tensors = _load_safetensors(file) if file.suffix == ".safetensors" else _unpickle(file, lambda name: False)
    if not isinstance(tensors, dict):
        raise InputError(f"it holds {type(tensors).__name__}", where=str(file), expected="a dictionary of tensors")
    _require_fit(file, tensors, _shapes(model), optional=(ROTARY,))
    skipped = {} if ROTARY in tensors else {ROTARY: "not in the checkpoint; computed from the model's shape"}
    return _Found(file, tensors, {key: key for key in tensors}, skipped)


_READERS: Mapping[str, Callable[[Mdlm, Path, _Weights], _Found]] = {"lightning": _read_lightning, "hub": _read_hub}


class _Inert:
    """Stands for an object that isn't weights: takes any construction and state, keeps nothing, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _ignorable(name: str) -> bool:
    return name in IGNORABLE_BUILTINS or name.partition(".")[0] in IGNORABLE_PACKAGES


def _unpickle(path: Path, ignorable: Callable[[str], bool]) -> Any:
    """The data in a file of `torch.save`, read with `weights_only` and memory-mapped.

    The pickle's globals are listed first, without running it. Ignorable ones are read as `_Inert`: `weights_only`
    never imports what a name stands for. Any other ends in an error.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path), expected="a checkpoint")
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
        refused = [name for name in names if not ignorable(name)]
        if not refused:
            with torch.serialization.safe_globals([(_Inert, name) for name in names]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged or foreign pickle may end in any of them
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(
            f"it can't be read as data ({type(error).__name__}: {reason})",
            where=str(path),
            expected="a whole file of torch.save, in its zip format",
            todo="Nothing in it was run. Fetch it again",
        ) from None
    raise InputError(
        f"it refers to {', '.join(refused)}, which is not data, and was refused; nothing in it was run",
        where=str(path),
        expected="tensors, and what Lightning keeps beside them",
        todo="If you trust its origin, load it where it was made and save its state_dict and ema alone with torch.save",
    )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"not safetensors ({error})", where=str(path), todo="Fetch it again") from None


def _shapes(model: Mdlm) -> dict[str, torch.Size]:
    """The expected shape of each key, in the reference's order."""
    ours = {PREFIX + name: tensor.shape for name, tensor in model.backbone.state_dict().items()}
    keys = reference_keys(int(model.config.n_blocks))
    assert ours.keys() == set(keys), "the backbone has the reference's names"
    return {key: ours[key] for key in keys}


def _require_fit(
    path: Path,
    tensors: Mapping[Any, Any],
    expected: Mapping[str, torch.Size],
    labels: Mapping[str, str] | None = None,
    optional: Sequence[str] = (),
) -> None:
    """Every key is there, none else, and each holds finite floating-point values in the model's shape.

    Raises:
        InputError: lists all keys that don't fit.
    """
    problems = [f"missing: {key} {list(shape)}" for key, shape in expected.items() if key not in (*tensors, *optional)]
    problems += [f"unexpected: {key}" for key in tensors if key not in expected]
    for key, shape in expected.items():
        wrong = _misfit(tensors[key], shape) if key in tensors else None
        if wrong:
            problems.append(f"{f'{labels[key]} = ' if labels else ''}{key} {wrong}")
    if problems:
        raise InputError(
            "\n  ".join([f"{len(problems)} of the keys don't fit the model:", *problems]),
            where=str(path),
            todo="\nCheck that the model section and the vocabulary are the checkpoint's",
        )


def _misfit(tensor: Any, shape: torch.Size) -> str | None:
    plain = isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.dtype not in DTYPES:
        kind = f"a {tensor.dtype} tensor" if isinstance(tensor, Tensor) else type(tensor).__name__
        return f"is {kind}, expected a dense tensor of float16, 32 or 64 or bfloat16"
    if tensor.shape != shape:
        return f"is misshapen: {list(tensor.shape)}, expected {list(shape)}"
    extremes = torch.stack(tensor.aminmax())  # NaN and infinity pass through them; isfinite() would take a copy
    if not bool(extremes.isfinite().all()):
        return "holds values that are not finite"
    return None if bool(extremes.float().isfinite().all()) else "holds values beyond float32"


def _require_order(path: Path, keys: list[str], order: list[str]) -> None:
    """The EMA list has no names. It is in the reference's order only if the file was made by the reference's code."""
    if keys != order:
        first = next(key for key, reference in zip(keys, order, strict=True) if key != reference)
        raise InputError(
            f"the order of ema.shadow_params isn't known, because state_dict is in another order from {first} on",
            where=str(path),
            expected="the reference's order",
            todo="Use weights raw",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < FLOAT32_MAX


def _shadow(path: Path, raw: Mapping[str, Any], count: int) -> Sequence[Any]:
    ema = raw.get("ema")
    if not isinstance(ema, dict):
        raise InputError("it has no EMA weights", where=f"{path}: ema", todo="Use weights raw")
    shadow = ema.get("shadow_params")
    if not isinstance(shadow, list | tuple) or len(shadow) != count:
        what = f"{len(shadow)} tensors" if isinstance(shadow, list | tuple) else type(shadow).__name__
        expected = f"{count} tensors, one for each parameter"
        raise InputError(f"it holds {what}", where=f"{path}: ema.shadow_params", expected=expected)
    return shadow


def _require_same_sizes(path: Path, config: MdlmConfig) -> None:
    theirs = read_object(path, expected="the checkpoint's config")
    expected = {name: getattr(config, ours) for name, ours in SIZES.items()}
    problems = [
        f"{name} is {theirs.get(name)!r}, expected {value} (the model's {SIZES[name]})"
        for name, value in expected.items()
        if theirs.get(name) != value
    ]
    if theirs.get("time_conditioning", False) is not False:
        problems.append("time_conditioning is on, expected false")
    if problems:
        raise InputError("; ".join(problems), where=str(path), todo="Make the model section the checkpoint's")


def _sha256(path: Path) -> str:
    digest, block = hashlib.sha256(), 1 << 22
    with path.open("rb") as file, tqdm(total=path.stat().st_size, desc="hashing", unit="B", unit_scale=True) as bar:
        while data := file.read(block):
            digest.update(data)
            bar.update(len(data))
    return digest.hexdigest()
