"""Published MDLM checkpoints, written here in both of their layouts, and pickles that would do harm.

The weights are random; keys, order, types and what lies beside the weights are as the reference leaves them.
"""

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from softmask.backbones.checkpoint import ROTARY, SIZES, reference_keys
from softmask.backbones.dit import Mdlm, MdlmConfig

GOLDEN = Path(__file__).parents[1] / "golden"
Change = Callable[[dict[str, Any]], Any]


def reference_state(model: Mdlm) -> OrderedDict[str, Tensor]:
    """A copy of a model's weights as the reference's code would list them."""
    ours = model.state_dict()
    return OrderedDict((key, ours[key].clone()) for key in reference_keys(model.config.n_blocks))


def hyper_parameters() -> dict[str, Any]:
    """What `save_hyperparameters` in the reference's module leaves: a Hydra config and a tokenizer, as objects."""
    config = OmegaConf.create({"model": {"hidden_size": 16, "lengths": [6]}, "name": "${model.hidden_size}"})
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return {"config": config, "tokenizer": PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="b")}


def lightning_checkpoint(raw: Mdlm, averaged: Mdlm) -> dict[str, Any]:
    """A whole Lightning checkpoint, with the averaged weights as an EMA list without names."""
    shadow = [tensor for key, tensor in reference_state(averaged).items() if key != ROTARY]
    adam = {"step": torch.tensor(7.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    return {
        "epoch": 0,
        "global_step": 7,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": reference_state(raw),
        "loops": {"fit_loop": {"epoch_progress": {"current": {"completed": 0}}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(3.1), "last_k": np.float64(2.0)}},
        "optimizer_states": [
            {"state": {0: adam}, "param_groups": [{"lr": 3e-4, "betas": (0.9, 0.999), "params": [0]}]}
        ],
        "lr_schedulers": [{"base_lrs": [3e-4], "last_epoch": 7, "lr_lambdas": [{}]}],
        "hparams_name": "kwargs",
        "hparams_type": DictConfig,
        "hyper_parameters": hyper_parameters(),
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": shadow},
        "sampler": {"random_state": {"generator": torch.Generator().get_state(), "folder": Path("somewhere")}},
    }


def write_lightning(path: Path, raw: Mdlm, averaged: Mdlm, change: Change = lambda checkpoint: None) -> Path:
    checkpoint = lightning_checkpoint(raw, averaged)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def hub_config(model: Mdlm) -> dict[str, Any]:
    """The published config.json, with this model's sizes."""
    sizes = {name: getattr(model.config, ours) for name, ours in SIZES.items()}
    return {"architectures": ["MDLM"], "dropout": 0.1, "model_type": "mdlm", "time_conditioning": False, **sizes}


def write_hub(folder: Path, model: Mdlm, change: Change = lambda state: None, name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hub_config(model)), encoding="utf-8")
    state = dict(reference_state(model))
    change(state)
    if name.endswith(".safetensors"):
        save_file(state, folder / name, {"format": "pt"})
    else:
        torch.save(state, folder / name)
    return folder


def published_model(seed: int) -> Mdlm:
    """The 169M shape with random weights."""
    published = json.loads((GOLDEN / "mdlm_small_state_dict.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        config = MdlmConfig(vocab_size=50258, mask_token_id=50257, length=1024, hidden_size=768)
        config.n_blocks, config.n_heads, config.cond_dim = 12, 12, 128
        model = Mdlm(config)
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == published["state_dict"]
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.uniform_(-1, 1, generator=generator)
    return model


class Trap:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def traps(mark: Path) -> Mapping[str, Trap]:
    """Each writes the file `mark` when it is unpickled."""
    return {
        "posix.system": Trap(os.system, f"touch {mark}"),
        "builtins.eval": Trap(eval, f"open({str(mark)!r}, 'w')"),
        "builtins.exec": Trap(exec, f"open({str(mark)!r}, 'w')"),
        "_io.open": Trap(open, str(mark), "w"),
        "pickle.loads": Trap(pickle.loads, pickle.dumps(Trap(os.system, f"touch {mark}"))),
    }
