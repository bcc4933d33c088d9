"""Adapter folders of Dream models: a peft adapter, and beside it the soft mask that it was trained with.

A folder alone says how to decode with it: `soft_mask.json` holds the omegas in full precision. Without
`adapter_config.json` it stands for the plain base. The official code's folders, with `transparency_config.json`, are
read as well. Knows neither data nor training.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PeftType, get_peft_model
from peft.helpers import DoraCaching
from safetensors import SafetensorError, safe_open

from softmask.backbones.dream import DreamModel
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from softmask.plain_json import read_object

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SOFT_MASK = "soft_mask.json"
OFFICIAL = "transparency_config.json"
OFFICIAL_NAMES = {
    "omega_s": ("scale",),
    "omega_a": ("steepness",),
    "omega_b": ("centre", "center", "offset"),
    "k": ("mixinputs_k", "topk"),
    "temperature": ("mixinputs_temp",),
}
"""The official code's words for ours."""
CHOICES = ("kind", "k", "interpolation")
OMEGAS = ("omega_s", "omega_a", "omega_b", "temperature")


@dataclass(frozen=True)
class AdapterSettings:
    """Shape of a LoRA or DoRA adapter (paper: DoRA of rank 16 on the attention's four projections).

    Args:
        rank, alpha, dropout: of LoRA.
        targets: names of the linear layers.
        dora: weight-decomposed.
        seed: of the initial weights.
    """

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]
    dora: bool
    seed: int


def add_adapter(model: DreamModel, settings: AdapterSettings) -> PeftModel:
    """Put a fresh adapter into `model`, in place, and freeze all else; the same seed gives the same weights.

    Raises:
        InputError: the model has no such layers.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        use_dora=settings.dora,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise InputError(
                f"no adapter fits: {' '.join(str(error).split())}", expected="names of linear layers, such as q_proj"
            ) from None
    assert isinstance(adapted, PeftModel)
    return adapted


def save_adapter(folder: Path, adapted: PeftModel | None, soft_mask: SoftMask | None) -> None:
    """Write an adapter folder; without an adapter it stands for the plain base."""
    folder.mkdir(parents=True, exist_ok=True)
    if adapted is not None:
        for config in adapted.peft_config.values():
            assert isinstance(config, LoraConfig)
            config.target_modules = sorted(config.target_modules or ())  # peft keeps a set, whose order varies
        adapted.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # peft's template of a model card says nothing
    record = None
    if soft_mask is not None:
        raw = {name: float(getattr(soft_mask, f"raw_{name}").detach()) for name in OMEGAS}
        choices = {name: getattr(soft_mask, name) for name in CHOICES}
        record = {**choices, **soft_mask.omegas(), "raw": raw}
    text = json.dumps({"soft_mask": record}, indent=2, sort_keys=True)
    (folder / SOFT_MASK).write_text(text + "\n", encoding="utf-8")


def load_adapter(model: DreamModel, folder: Path) -> SoftMask | None:
    """Put a folder's adapter into `model`, in place, and give its soft mask, on the CPU.

    Returns:
        None for a binary model, and for the plain base.

    Raises:
        InputError: the folder is damaged or not safe to load, or doesn't fit the model.
    """
    soft_mask = read_soft_mask(folder)
    if not (folder / ADAPTER_CONFIG).exists():
        if not (folder / SOFT_MASK).exists():
            raise InputError(f"there is no {ADAPTER_CONFIG}", where=str(folder), expected="an adapter folder of peft")
        return soft_mask
    if not (folder / WEIGHTS).exists():
        raise InputError(f"there is no {WEIGHTS}", where=str(folder), expected="weights as safetensors")
    _require_sizes(folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False, use_safetensors=True)
    except Exception as error:  # adapter_config.json may say anything
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the adapter can't be loaded: {reason}", where=str(folder)) from None
    assert isinstance(adapted, PeftModel)
    _require_all(adapted, folder)
    DoraCaching()(enabled=True)  # else DoRA's norms are made anew at every step
    model.train(False)
    return soft_mask


def read_soft_mask(folder: Path) -> SoftMask | None:
    """The soft mask that an adapter folder names, ours or the official code's; None if it is a binary one's.

    Raises:
        InputError: the file can't be read, or a value is missing or out of its range.
    """
    if (folder / SOFT_MASK).exists():
        record = _read(folder / SOFT_MASK).get("soft_mask")
        if record is None:
            return None
        where = folder / SOFT_MASK
        soft_mask = _soft_mask(where, record, **{name: name for name in (*CHOICES, *OMEGAS)})
        exact = record.get("raw")
        for name in OMEGAS:
            raw = exact.get(name) if isinstance(exact, dict) else None
            if isinstance(raw, float):
                if not math.isfinite(raw):
                    raise InputError(f"{raw} is not finite", where=f"{where}: soft_mask.raw.{name}")
                getattr(soft_mask, f"raw_{name}").data.fill_(raw)
        return soft_mask
    if (folder / OFFICIAL).exists():
        return _official(folder / OFFICIAL)
    return None


def _official(where: Path) -> SoftMask:
    """`scale`, `centre` (or `offset`), `steepness`, `mixinputs_k` or `k`, `sm_alg`; rounded to bf16 by its writer."""
    defaults = {"temperature": 1.0, "kind": FeedbackKind.TOP_K, "k": 1, "interpolation": Interpolation.LINEAR}
    record = {**defaults, **_read(where)}
    for ours, names in OFFICIAL_NAMES.items():
        record[ours] = next((record[name] for name in names if name in record), record.get(ours))
    if record.get("sm_alg") == "mixinputs_with_temp":
        record["kind"] = FeedbackKind.FULL
    return _soft_mask(where, record, **{name: name for name in (*CHOICES, *OMEGAS)})


def _soft_mask(where: Path, record: Mapping[str, Any], **names: str) -> SoftMask:
    try:
        values = {ours: record[theirs] for ours, theirs in names.items()}
        numbers = {name: float(values[name]) for name in OMEGAS}
        kind, k, interpolation = FeedbackKind(values["kind"]), int(values["k"]), Interpolation(values["interpolation"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"can't be read ({error!r})", where=str(where), expected=f"{', '.join((*CHOICES, *OMEGAS))} of a soft mask"
        ) from None
    good = 0 <= numbers["omega_s"] <= 1 and numbers["omega_a"] > 0 > numbers["omega_b"] and numbers["temperature"] > 0
    if not (good and all(map(math.isfinite, numbers.values()))) or k < 1:
        raise InputError(
            f"{numbers} with k {k} is impossible",
            where=str(where),
            expected="omega_s from 0 to 1, omega_a above 0, omega_b below 0, temperature above 0, k from 1",
        )
    return SoftMask(kind=kind, k=k, interpolation=interpolation, **numbers)


def _read(file: Path) -> dict[str, Any]:
    return read_object(file, expected="a JSON object")


def _require_sizes(folder: Path) -> None:
    """What adapter_config.json asks for is of the size of what is stored: peft makes it before it reads weights."""
    where = folder / ADAPTER_CONFIG
    config = _read(where)
    if (kind := config.get("peft_type")) != PeftType.LORA:
        raise InputError(f"{kind!r}", where=f"{where}: peft_type", expected="LORA, with DoRA or not")
    if config.get("layer_replication"):
        raise InputError("layers are replicated", where=f"{where}: layer_replication", expected="null")
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            ranks = {file.get_slice(key).get_shape()[0] for key in file.keys() if "lora_A" in key}  # noqa: SIM118
    except (SafetensorError, OSError, IndexError) as error:
        raise InputError(f"truncated or damaged ({error})", where=str(folder / WEIGHTS)) from None
    patterns = config.get("rank_pattern") or {}
    for rank in (config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [patterns])):
        if type(rank) is not int or rank not in ranks:
            expected = f"a rank that is stored: {', '.join(map(str, sorted(ranks)))}"
            raise InputError(f"the rank {rank!r}", where=f"{where}: r, rank_pattern", expected=expected)


def _require_all(adapted: PeftModel, folder: Path) -> None:
    """peft ignores adapter weights that fit nowhere, and leaves missing ones fresh."""
    from peft import get_peft_model_state_dict

    wanted = set(get_peft_model_state_dict(adapted))
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        there = set(file.keys())
    wrong = sorted(wanted ^ there)
    wild = [name for name, weights in adapted.named_parameters() if "lora_" in name and not weights.isfinite().all()]
    if wild:
        raise InputError(f"{wild[0]} holds values that are not finite", where=str(folder / WEIGHTS))
    if wrong:
        raise InputError(
            f"{len(wrong)} tensors are missing or fit nowhere in this model: {', '.join(wrong[:3])}",
            where=str(folder / WEIGHTS),
            expected="the adapter of this base",
        )
