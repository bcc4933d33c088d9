"""Tiny Dream models with random weights everywhere, and folders of them in the published layout, for tests."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from softmask.backbones.dream import DreamConfig, DreamModel

VOCABULARY = 30
"""Ids of `tiny_dream`; the last one is the mask, the one before it end-of-text and padding."""
MASK, PAD = VOCABULARY - 1, VOCABULARY - 2


def tiny_dream(seed: int = 0, **changes: Any) -> DreamModel:
    """A model in eval mode, float32; the same seed gives the same weights."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), PAD),
        "mask_token_id": MASK,
    }
    model = DreamModel(DreamConfig(**{**shape, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + ("norm" in name) if "embed" not in name else noise)
    model.train(False)
    return model


def published_config(model: DreamModel, **changes: Any) -> dict[str, Any]:
    """config.json as the published folders have it, code and unused keys included."""
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rope_theta", "rms_norm_eps", "initializer_range"),
        *("mask_token_id", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_act", "tie_word_embeddings"),
    )
    return {
        **{name: getattr(model.config, name) for name in names},
        "architectures": ["DreamModel"],
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
        "max_window_layers": 28,
        "model_type": "Dream",
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.2",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        **changes,
    }


def write_published(
    folder: Path, model: DreamModel, shards: int = 3, dtype: torch.dtype = torch.bfloat16, **config: Any
) -> Path:
    """A folder as the hub has it: config.json, shards with their index, and code that must never run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(published_config(model, **config)), encoding="utf-8")
    for name in ("configuration_dream.py", "modeling_dream.py", "tokenization_dream.py"):
        (folder / name).write_text("raise SystemExit('code of the checkpoint ran')\n", encoding="utf-8")
    keys = list(model.state_dict())
    tensors = {key: tensor.to(dtype).clone() for key, tensor in model.state_dict().items()}
    places = {key: f"model-{1 + i * shards // len(keys):05}-of-{shards:05}.safetensors" for i, key in enumerate(keys)}
    for name in sorted(set(places.values())):
        save_file({key: tensors[key] for key in keys if places[key] == name}, folder / name, {"format": "pt"})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
