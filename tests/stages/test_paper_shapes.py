"""The paper profile's own stages at the paper's shapes on a CPU: import, a soft-masked step, a sample of 8 steps.

The 169M model has random weights, in both layouts of published checkpoints; the tokenizer has GPT-2's layout and size.
What this costs is printed (`pytest -s`), not asserted.
"""

import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.utils.hydra import compose_and_dump
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from artifacts.files import read_json, read_lines
from artifacts.hashing import file_md5
from runner.stage import MISTAKE
from softmask.backbones.dit import Mdlm, Rotary
from stages.sources.documents import read_documents
from stages.tokenizer import END_OF_TEXT
from tests.pipeline.clones import Clone, attempt, run
from tests.softmask.published import published_model, traps, write_hub, write_lightning

pytestmark = pytest.mark.slow

VOCABULARY = 50_258
ARM = "sm_iso_update-1"
LENGTH = 256
"""Tokens of the rows that are trained on and sampled: no weight depends on it, and 1,024 take four times as long."""
OVERRIDES = (
    "profile=paper",
    *("compute.device=cpu", "compute.precision=fp32", "compute.processes=1", "compute.threads=2"),
    *("corpus.source=package_sources", "corpus.package_sources.max_characters=300000", "tokenizer.hub.path=gpt2"),
    *("base.weights=ema", "base.checkpoint.layout=lightning"),
    *("arms.training.steps=2", "arms.training.batch_size=1", "arms.training.accumulation=1"),
    *("arms.training.warmup_steps=0", "arms.training.log_every=1", "arms.training.probe_rows=1"),
    "arms.settings.sm_iso_update.soft_mask.p_sm=1.0",
    *("sampling.samples=1", "sampling.batch_size=1", "sampling.cells=[{sampler: mdlm, nfe: 8, eta: null}]"),
    *("sampling.trace.cell=0", "report.nfe=8"),
)
"""The paper profile, but for the device, the number of steps, sequences and samples, and where text comes from."""
SCALES = {"vocab_embed": 1.0, "sigma_map": 0.1, "norm": 0.1, "adaLN_modulation": 0.5, "output_layer.linear": 0.35}
"""Part of a parameter's name -> what its random values are scaled by, so that predictions have some nats of entropy."""
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command and prints the peak memory of its largest process, in KiB. Small itself: a child inherits its peak."""


def compose(root: Path, *overrides: str) -> None:
    conf = str(root / "conf")
    compose_and_dump(str(root / "params.yaml"), conf, None, "config", "hydra_plugins", [*OVERRIDES, *overrides])


def make(root: Path, name: str, *arguments: str) -> None:
    """Run a stage to its good end and print what it took."""
    said = run([sys.executable, "-c", MEASURED, sys.executable, "-m", f"stages.{name}", *arguments], root)
    peak = int(said.split()[-1]) / 2**20
    timed = max(root.rglob("run.json"), key=lambda file: file.stat().st_mtime_ns)
    took = read_json(timed)
    print(f"\n169M: {took['stage']}: {took['seconds']:.1f} s, peak {peak:.2f} GiB a process")


def gpt2_tokenizer(folder: Path, texts: Iterator[str]) -> None:
    """A byte-level BPE in GPT-2's layout: bytes, merges, end-of-text as the last of 50,257 ids; names fill it up."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    )
    bpe: dict[str, Any] = json.loads(trained.to_str())["model"]
    fillers = (f"<filler{number}>" for number in range(VOCABULARY))
    vocabulary = bpe["vocab"] | {next(fillers): number for number in range(len(bpe["vocab"]), VOCABULARY - 2)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge) for merge in bpe["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    assert tokenizer.token_to_id(END_OF_TEXT) == VOCABULARY - 2
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))


def random_model(seed: int) -> Mdlm:
    """The published shape with random weights of the magnitudes of a trained model."""
    model = published_model(seed)
    with torch.no_grad():
        rotary = model.backbone.rotary_emb
        rotary.inv_freq.copy_(Rotary(2 * len(rotary.inv_freq)).inv_freq)
        for name, parameter in model.named_parameters():
            scale = next((scale for part, scale in SCALES.items() if part in name), 0.06)
            parameter.mul_(scale).add_(float("norm" in name))
    return model


def with_moments(checkpoint: dict[str, Any]) -> None:
    """Give a checkpoint the optimizer's moments, so that it has the public file's size."""
    moments = [torch.zeros_like(tensor) for tensor in checkpoint["ema"]["shadow_params"]]
    state = {n: {"step": torch.tensor(7.0), "exp_avg": m, "exp_avg_sq": m.clone()} for n, m in enumerate(moments)}
    checkpoint["optimizer_states"][0]["state"] = state


@pytest.fixture(scope="module")
def paper(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone with the paper profile, packed tokens, and both checkpoints of one model beside it."""
    folder = tmp_path_factory.mktemp("paper")
    root = folder / "clone"
    Clone.of(origin, root)
    compose(root)
    make(root, "check")
    make(root, "corpus")
    gpt2_tokenizer(root / "gpt2", (document.text for document in read_documents(root / "data/corpus/train")))
    make(root, "tokenizer")
    make(root, "tokens")
    averaged = random_model(2)
    write_hub(root / "models/import/mdlm-owt", averaged)
    write_lightning(root / "models/import/mdlm.ckpt", random_model(1), averaged, with_moments)
    yield root
    shutil.rmtree(folder)  # some 8 GB


def test_both_layouts_lead_to_one_model_a_soft_masked_step_and_a_sample(paper: Path) -> None:
    weights = paper / "models/mdlm/base/model/model.safetensors"
    compose(paper, "base.checkpoint.layout=hub", "base.checkpoint.path=models/import/mdlm-owt")
    make(paper, "base")
    of_hub = file_md5(weights)
    compose(paper, f"tokens.length={LENGTH}")  # the Lightning file, as the profile has it
    make(paper, "tokens")
    make(paper, "base")
    assert file_md5(weights) == of_hub
    make(paper, "arm", "--arm", "sm_iso_update", "--seed", "1")
    first, *records = read_json(paper / f"models/mdlm/{ARM}/history.json")
    assert len(records) == 2 and all(math.isfinite(record["loss"]) for record in records)
    assert all(records[-1][omega] != first[omega] for omega in ("omega_s", "omega_a", "omega_b"))
    costs = read_json(paper / f"models/mdlm/{ARM}/costs.json")
    assert (costs["updates"], costs["forwards"]) == (2, 4)
    make(paper, "generate", "--model", ARM)
    (row,) = read_lines(paper / f"data/samples/{ARM}/samples.jsonl", ["ids", "real_nfe"])
    assert row["real_nfe"] <= 9 and len(row["ids"]) == LENGTH and max(row["ids"]) < VOCABULARY - 1


def test_a_harmful_or_torn_checkpoint_stops_the_stage_before_anything_is_run_or_written(paper: Path) -> None:
    mark = paper / "executed"
    harmful = paper / "models/import/harmful.ckpt"
    torch.save(traps(mark)["posix.system"], harmful)
    torn = paper / "models/import/torn.ckpt"
    with (paper / "models/import/mdlm.ckpt").open("rb") as whole:
        torn.write_bytes(whole.read(2**20))
    base = paper / "models/mdlm/base"
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()}
    for file, reason in (
        (harmful, "posix.system, which is not data, and was refused"),
        (torn, "can't be read as data"),
    ):
        compose(paper, f"base.checkpoint.path=models/import/{file.name}")
        done = attempt([sys.executable, "-m", "stages.base"], paper)
        assert done.returncode == MISTAKE and done.stdout == ""
        (message,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert file.name in message and reason in message and "Traceback" not in done.stderr
    assert not mark.exists()
    assert before == {path: path.stat().st_mtime_ns for path in base.rglob("*") if path.is_file()}
    torch.load(harmful, weights_only=False)  # the trap is a real one
    assert mark.exists()
