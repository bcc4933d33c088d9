"""The judge stage: trained or imported, the same layout; resumed or not, the same bytes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from softmask.evaluation.judge import Judge
from stages.judge import Params, run
from stages.params.compute import ComputeParams
from stages.params.judge import HubJudgeParams, JudgeParams, JudgeSource, TrainJudgeParams
from stages.params.training import TrainingParams
from tests.tiny_judge import gpt2_folder, packed_letters

TRAINING = TrainingParams(
    steps=6,
    batch_size=4,
    accumulation=1,
    learning_rate=1e-2,
    warmup_steps=2,
    betas=(0.9, 0.98),
    epsilon=1e-8,
    weight_decay=0.01,
    max_grad_norm=1.0,
    ema_decay=0.9,
    log_every=2,
    save_every=2,
)
SMALL = TrainJudgeParams(seed=1, hidden_size=8, intermediate_size=16, n_layers=1, n_heads=2, training=TRAINING)
COMPUTE = ComputeParams(
    device="cpu", threads=1, precision="fp32", deterministic=True, processes=1, fsdp=False, head_chunk=16
)
REVISION = "0" * 40


def make(folder: Path, source: JudgeSource, hub: Path, lengths: list[int], key: str = "key") -> Context[Params]:
    """Run the stage on a packed split of random documents."""
    tokens = folder / "tokens"
    if not tokens.exists():
        packed_letters(tokens, folder / "tokenizer", lengths)
    judge = JudgeParams(source=source, train=SMALL, hub=HubJudgeParams(path=str(hub), revision=REVISION))
    out = folder / "judge"
    context = Context(
        Params(compute=COMPUTE, judge=judge),
        {"tokens": tokens, "tokenizer": folder / "tokenizer"},
        {"model": out / "model", "history": out / "history.json", "manifest": out / "manifest.json"},
        {},
        Checkpoints(folder / "store", key),
    )
    run(context)
    return context


def train(folder: Path, key: str = "key") -> Context[Params]:
    return make(folder, JudgeSource.TRAIN, Path("nowhere/at-all"), [30, 70, 45], key)


@pytest.fixture(scope="module", autouse=True)
def in_a_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DVCLive logs below the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Context[Params]:
    return train(tmp_path_factory.mktemp("trained"))


def test_a_trained_judge_has_the_corpus_tokenizer_and_reads_a_row_at_once(trained: Context[Params]) -> None:
    model = trained.outputs["model"]
    assert (model / "tokenizer.json").read_bytes() == (trained.inputs["tokenizer"] / "tokenizer.json").read_bytes()
    judge = Judge.load(model, "cpu")
    assert judge.context == 8
    assert judge.eos_token == "<|endoftext|>"


def test_its_history_and_cost_are_recorded(trained: Context[Params]) -> None:
    history = json.loads(trained.outputs["history"].read_text())
    assert [record["step"] for record in history] == [2, 4, 6]
    assert all(record["loss"] > 0 for record in history)
    assert trained.counts["forwards"] == 6
    assert trained.counts["tokens"] == 6 * 4 * 8


def test_it_learns(trained: Context[Params]) -> None:
    history = json.loads(trained.outputs["history"].read_text())
    assert history[-1]["loss"] < history[0]["loss"]


def test_training_twice_gives_the_same_bytes(tmp_path: Path, trained: Context[Params]) -> None:
    again = train(tmp_path)
    for name in ("model", "history"):
        assert path_hash(again.outputs[name]) == path_hash(trained.outputs[name])


def test_a_resumed_training_gives_the_same_bytes(tmp_path: Path, trained: Context[Params]) -> None:
    first = train(tmp_path)
    newest = tmp_path / "store" / "training" / "checkpoint-6"
    shutil.rmtree(newest)
    shutil.rmtree(first.outputs["model"])
    marked = tmp_path / "store" / "training" / "checkpoint-4"
    made = marked.stat().st_mtime_ns
    again = train(tmp_path)
    assert marked.stat().st_mtime_ns == made, "it went on from checkpoint 4 and didn't start anew"
    for name in ("model", "history"):
        assert path_hash(again.outputs[name]) == path_hash(trained.outputs[name])


def test_the_saved_weights_are_the_average_and_not_the_last_ones(trained: Context[Params]) -> None:
    checkpoint = trained.checkpoints.path / "training" / "checkpoint-6" / "model.safetensors"
    last = {name.removeprefix("model."): value for name, value in load_file(checkpoint).items()}
    saved = load_file(trained.outputs["model"] / "model.safetensors")
    assert set(saved) == set(last)
    assert not torch.equal(saved["lm_head.weight"], last["lm_head.weight"])


def test_one_row_is_too_few_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokens: only one row; expected two rows"):
        make(tmp_path, JudgeSource.TRAIN, Path("nowhere/at-all"), [9])


def test_an_imported_judge_has_the_same_layout_and_an_empty_history(tmp_path: Path, trained: Context[Params]) -> None:
    hub = gpt2_folder(tmp_path / "hub")
    context = make(tmp_path, JudgeSource.HUB, hub, [30, 70])
    model = context.outputs["model"]
    names = {"config.json", "model.safetensors", "tokenizer.json"}
    assert names <= {p.name for p in model.iterdir()}
    assert names <= {p.name for p in trained.outputs["model"].iterdir()}
    assert json.loads(context.outputs["history"].read_text()) == []
    assert set(context.counts["source_files"]) == names
    ids = torch.arange(8)[None]
    ours, theirs = Judge.load(model, "cpu"), Judge.load(hub, "cpu")
    assert torch.equal(ours.model(ids).logits, theirs.model(ids).logits)


def test_a_hub_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    hub = gpt2_folder(tmp_path / "hub")
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"judge\.hub: .* has no safetensors file"):
        make(tmp_path, JudgeSource.HUB, hub, [30, 70])


def test_a_hub_model_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    hub = gpt2_folder(tmp_path / "hub")
    config = json.loads((hub / "config.json").read_text())
    config.update(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    (hub / "config.json").write_text(json.dumps(config))
    (hub / "mine.py").write_text("raise SystemExit('foreign code ran')")
    with pytest.raises(InputError, match="the judge can't be loaded"):
        make(tmp_path, JudgeSource.HUB, hub, [30, 70])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 10**9}, "config.json: 1000000000 layers; expected at most 1024"),
        ({"n_embd": 4096, "n_head": 1}, "config.json: a model of "),
        ({"n_embd": 128 * 10**9, "n_head": 1}, "the judge can't be loaded: Storage size calculation overflowed"),
        ({"n_embd": 2**62}, "the judge can't be loaded: "),
        ({"n_embd": "wide"}, "the judge can't be loaded: "),
    ],
)
def test_a_hub_model_larger_than_its_files_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    hub = gpt2_folder(tmp_path / "hub")
    config = json.loads((hub / "config.json").read_text())
    (hub / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError) as caught:
        make(tmp_path, JudgeSource.HUB, hub, [30, 70])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hub": {"path": "gpt2-large", "revision": "main"}}, r"hub\.revision: 'main' is wrong"),
        ({"source": "web"}, r"source: 'web' is wrong; expected 'train' or 'hub'"),
        (
            {"train": {**SMALL.model_dump(mode="json"), "n_heads": 3}},
            r"train\.hidden_size 8 with n_heads 3 is impossible",
        ),
        ({"train": {**SMALL.model_dump(mode="json"), "layers": 3}}, r"train\.layers: unknown key"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, object], message: str) -> None:
    judge = JudgeParams(source=JudgeSource.TRAIN, train=SMALL, hub=HubJudgeParams(path="a/b", revision=REVISION))
    with pytest.raises(InputError, match=message):
        validate(JudgeParams, {**judge.model_dump(mode="json"), **change}, "params.yaml")
