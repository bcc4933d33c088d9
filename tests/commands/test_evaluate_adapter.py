"""Evaluating one's own adapter: it gets what an arm gets, a killed run goes on, and mistakes are named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from artifacts.manifest import Manifest
from commands.evaluate_adapter import REPORTS, evaluate, others, table
from softmask.backbones.dream_adapter import AdapterSettings, add_adapter, save_adapter
from softmask.backbones.dream_checkpoint import load_dream
from softmask.decoding.dream_decoder import decode
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from stages import code_generate, code_score
from tests.stages.test_code_generate import cell, write
from tests.stages.test_code_score import VALUES

OFFICIAL = {"scale": 0.9, "centre": -4.0, "steepness": 2.0, "k": 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny family with one arm; the current folder."""
    monkeypatch.chdir(write(tmp_path, batch_size=1, cells=[cell("1/2")]))
    declared: dict[str, Any] = {name: {"deps": []} for name in ("code_generate", "code_score")}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": declared}), encoding="utf-8")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    params["code"] |= {"families": ["tiny"], "seeds": [1, 2], "arms": {"names": ["sm"]}, "scoring": VALUES}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return tmp_path


def adapter(folder: Path, soft: bool = True) -> Path:
    """A DoRA adapter for the tiny base with random weights, away from the pipeline's own."""
    base = load_dream(Path("models/dream/tiny/base/model"), torch.float32, torch.device("cpu"))
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    model = add_adapter(base, AdapterSettings(rank=2, alpha=2, dropout=0.0, targets=targets, dora=True, seed=1))
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    soft_mask = SoftMask(
        omega_s=0.9,
        omega_a=2.0,
        omega_b=-4.0,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=3,
    )
    save_adapter(folder, model, soft_mask if soft else None)
    return folder


def stage(model: str) -> Path:
    """Run the pipeline's two stages for a model; the folder of its answers."""
    for one in (code_generate, code_score):
        one.STAGE.execute({"family": "tiny", "model": model})
    return Path(f"data/code/samples/tiny/{model}")


def test_an_adapter_gets_what_the_same_adapter_gets_as_an_arm(folder: Path) -> None:
    metrics = evaluate(adapter(folder / "elsewhere/mine"), "tiny", "mine")
    shutil.copytree("elsewhere/mine", "models/dream/tiny/sm-7/adapter")
    answers, scores = stage("sm-7") / "samples.jsonl", Path("data/code/scores/tiny/sm-7")
    assert (REPORTS / "tiny/mine/answers/samples.jsonl").read_bytes() == answers.read_bytes()
    assert (REPORTS / "tiny/mine/scores/verdicts.jsonl").read_bytes() == (scores / "verdicts.jsonl").read_bytes()
    assert metrics["cells"] == json.loads((scores / "metrics.json").read_text(encoding="utf-8"))["cells"]
    for mine, arms in ((REPORTS / "tiny/mine/answers", answers.parent), (REPORTS / "tiny/mine/scores", scores)):
        said, expected = (Manifest.model_validate_json((at / "manifest.json").read_bytes()) for at in (mine, arms))
        assert (said.counts, said.environment, said.params) == (expected.counts, expected.environment, expected.params)
        assert said.outputs.keys() == {str(mine / Path(path).name) for path in expected.outputs}
    assert answers.read_bytes() != (stage("base") / "samples.jsonl").read_bytes()


def test_feedback_is_what_the_folder_says(folder: Path) -> None:
    for name, soft in (("binary", False), ("soft", True)):
        evaluate(adapter(folder / name, soft), "tiny", name)
    binary, soft_masked = (REPORTS / f"tiny/{name}/answers/samples.jsonl" for name in ("binary", "soft"))
    assert binary.read_bytes() != soft_masked.read_bytes()


def test_an_official_adapter_is_evaluated_as_ours(folder: Path) -> None:
    own = adapter(folder / "own")
    official = folder / "official"
    shutil.copytree(own, official, ignore=shutil.ignore_patterns("soft_mask.json"))
    (official / "transparency_config.json").write_text(json.dumps(OFFICIAL), encoding="utf-8")
    evaluate(own, "tiny", "own")
    evaluate(official, "tiny", "official")
    first, second = (REPORTS / f"tiny/{name}/answers/samples.jsonl" for name in ("own", "official"))
    assert first.read_bytes() == second.read_bytes()


def test_a_killed_evaluation_goes_on_and_a_changed_adapter_starts_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = adapter(folder / "mine")
    calls: list[int] = []
    stop_at: list[int] = [4]

    def counting(*arguments: Any) -> Any:
        if len(calls) in stop_at:
            stop_at.clear()
            raise KeyboardInterrupt
        calls.append(len(arguments[2]))
        return decode(*arguments)

    monkeypatch.setattr("stages.code_generate.decode", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(mine, "tiny", "mine")
    evaluate(mine, "tiny", "mine")
    answers = (REPORTS / "tiny/mine/answers/samples.jsonl").read_bytes()
    assert sum(calls) == len(answers.splitlines())
    assert not list(folder.glob(".checkpoints/*/units/*"))
    evaluate(adapter(folder / "mine", soft=False), "tiny", "mine")
    assert sum(calls) == 2 * len(answers.splitlines())
    assert (REPORTS / "tiny/mine/answers/samples.jsonl").read_bytes() != answers


def test_scores_stand_beside_those_of_base_and_arms(folder: Path) -> None:
    metrics = evaluate(adapter(folder / "mine"), "tiny", "mine")
    assert others("tiny") == {}
    stage("base")
    shares = {1: 0.2, 2: 0.4}
    for seed, share in shares.items():  # as code_score writes them
        cells = [{**cell, "pass_base": share, "pass_plus": None} for cell in metrics["cells"]]
        path = Path(f"data/code/scores/tiny/sm-{seed}/metrics.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**metrics, "model": f"sm-{seed}", "cells": cells}), encoding="utf-8")
    beside = others("tiny")
    assert {label: len(models) for label, models in beside.items()} == {"base": 1, "sm": 2}
    shown = table(metrics, beside)
    assert [str(column.header) for column in shown.columns] == ["set", "cell", "part", "mine", "base", "sm (2 seeds)"]
    arm = list(shown.columns[-1].cells)
    plus = [part == "plus" for part in shown.columns[2].cells]
    assert arm == ["" if no_arm else "30.0" for no_arm in plus]
    assert len(arm) == sum(cell["pass_plus"] is not None for cell in metrics["cells"]) + len(metrics["cells"])


@pytest.mark.parametrize(
    ("path", "family", "name", "message"),
    [
        ("nowhere", "tiny", "mine", r"nowhere: has no adapter_config\.json; expected the folder of a peft adapter"),
        ("models/dream/tiny/base/adapter", "tiny", "mine", r"has no adapter_config\.json"),
        ("mine", "large", "mine", r"--family: there is no family 'large'; expected .* tiny"),
        ("mine", "tiny", "../mine", r"--name: '\.\./mine' is no name"),
    ],
)
def test_mistakes_are_named(folder: Path, path: str, family: str, name: str, message: str) -> None:
    adapter(folder / "mine")
    with pytest.raises(InputError, match=message):
        evaluate(Path(path), family, name)
    assert not REPORTS.exists()


def test_a_family_that_was_not_made_is_named(folder: Path) -> None:
    adapter(folder / "mine")
    shutil.rmtree("models/dream/tiny/base/model")
    with pytest.raises(InputError, match=r"models/dream/tiny/base/model: the input is missing\. Make it first"):
        evaluate(Path("mine"), "tiny", "mine")
