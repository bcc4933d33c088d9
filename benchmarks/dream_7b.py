"""Loads a checkpoint with Dream-7B's true shapes and runs one forward, and says what that takes in memory and time.

The weights are random bfloat16, written shard by shard. Loading and the forward run in a process of their own, so that
the peak is theirs. Needs 15.3 GB of disk: `python benchmarks/dream_7b.py FOLDER`; `--layers 1` is a quick rehearsal.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from softmask.backbones.dream import DreamConfig, DreamModel, shifted
from softmask.backbones.dream_checkpoint import CONFIG, INDEX, load_dream

SHARD_BYTES = 4_900_000_000
"""About the published shards' size: four of them."""
FORWARDS = 2
"""The first one reads the weights from disk, the second one finds them in memory."""


def published_config(layers: int) -> dict[str, object]:
    """config.json of Dream-v0-Instruct-7B as published, with fewer layers if asked."""
    return {
        **DreamConfig().to_diff_dict(),
        "architectures": ["DreamModel"],
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
        "max_window_layers": 28,
        "num_hidden_layers": layers,
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_mrope": False,
        "use_sliding_window": False,
    }


def shards(shapes: Mapping[str, torch.Size]) -> list[list[str]]:
    """The keys of each shard, in the model's order."""
    parts: list[list[str]] = [[]]
    size = 0
    for key, shape in shapes.items():
        size += 2 * shape.numel()
        if size > SHARD_BYTES and parts[-1]:
            parts.append([])
            size = 2 * shape.numel()
        parts[-1].append(key)
    return parts


def make(folder: Path, layers: int) -> None:
    """Write the folder; no more than one shard is in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = published_config(layers)
    (folder / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    with torch.device("meta"):
        model = DreamModel(DreamConfig(num_hidden_layers=layers))
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    total = 2 * sum(shape.numel() for shape in shapes.values())
    if shutil.disk_usage(folder).free < 1.05 * total:
        sys.exit(f"{folder}: {total / 1e9:.1f} GB are needed, {shutil.disk_usage(folder).free / 1e9:.1f} GB are free")
    parts, generator = shards(shapes), torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    with tqdm(total=total, desc="writing random weights", unit="B", unit_scale=True) as bar:
        for number, keys in enumerate(parts, start=1):
            name = f"model-{number:05}-of-{len(parts):05}.safetensors"
            save_file(dict(_random(keys, shapes, generator, bar)), folder / name, metadata={"format": "pt"})
            places |= dict.fromkeys(keys, name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _random(
    keys: list[str], shapes: Mapping[str, torch.Size], generator: torch.Generator, bar: "tqdm[Any]"
) -> Iterator[tuple[str, torch.Tensor]]:
    for key in keys:
        tensor = torch.empty(shapes[key], dtype=torch.bfloat16).normal_(std=0.02, generator=generator)
        yield key, tensor + 1 if "norm" in key else tensor
        bar.update(2 * tensor.numel())


def measure(folder: Path, tokens: int) -> None:
    """Load, forward, print."""
    started = time.perf_counter()
    model = load_dream(folder)
    loaded = time.perf_counter() - started
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"layers {model.config.num_hidden_layers}, parameters {parameters:,}, {model.dtype}")
    print(f"load    {loaded:8.2f} s   {memory()}")
    ids = torch.full((1, tokens), int(model.config.mask_token_id))
    for _ in range(FORWARDS):
        started = time.perf_counter()
        with torch.inference_mode():
            last = shifted(model.hidden(model.embed(ids)))[:, -1]
            log_probs = model.log_probs(last)
        assert bool(log_probs.isfinite().all()), "log-probabilities are finite"
        print(f"forward {time.perf_counter() - started:8.2f} s   {memory()}   {tokens} tokens, head on one row")
    print(f"peak resident memory {resident('VmHWM'):.2f} GiB, mapped files included")


def memory() -> str:
    """Resident memory now: the process's own, and pages of mapped files."""
    return f"own {resident('RssAnon'):6.2f} GiB, mapped {resident('RssFile'):6.2f} GiB"


def resident(name: str) -> float:
    """A line of /proc/self/status in GiB; getrusage would count the parent's peak, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint is made, if it isn't there yet")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--tokens", type=int, default=8, help="length of the prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", action="store_true", help="only load and run what is there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        measure(options.folder, options.tokens)
        return
    if not (options.folder / INDEX).exists():
        make(options.folder, options.layers)
    command = [sys.executable, __file__, str(options.folder), "--measure"]
    subprocess.run([*command, "--tokens", str(options.tokens), "--threads", str(options.threads)], check=True)


if __name__ == "__main__":
    main()
