"""The decision before a promotion: what it measures of two models, what it decides, and what it refuses to compare."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml

from artifacts.files import dump_json, read_json, write_json
from artifacts.hashing import path_hash
from commands import promotion
from commands.promotion import compare, decide, decide_between
from commands.retraining import Decision, Measured
from reporting.labels import MINUS
from reporting.params.compare import CompareParams
from runner.section import validate
from runner.stage import run_command
from softmask.backbones.dit import Mdlm
from softmask.errors import InputError
from softmask.evaluation.perplexity import batch_nll
from stages.params.retrain import Direction, GuardParams, Metric, PromotionParams
from tests.softmask.tiny import close_gate, soft_mask_settings, tiny_mdlm
from tests.tiny_judge import packed_letters

ROOT = Path(__file__).parents[2]
MODEL = "models/mdlm/sm-1/model"
DOCUMENTS, IDS = 40, 12
RULES: dict[str, Any] = {
    **{"metric": "nll", "direction": "lower", "minimum_improvement": 0.0},
    "guards": [{"metric": "nll_without_feedback", "tolerance": 0.05}],
}
RESAMPLING = CompareParams.model_validate(
    {
        **{"resamples": 500, "level": 0.95, "seed": 1, "min_units": 10, "gate_lam": 0.05, "nfe_tolerance": 0.05},
        **{"entropy_margin": 0.05, "baseline_sampler": "mdlm", "plot_points": 200},
    }
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": {"deps": []}}}), encoding="utf-8")
    params()
    return tmp_path


def params(**changes: Any) -> dict[str, Any]:
    """Write params.yaml: those of the repository, with changes to retrain.promotion."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["compute"]["threads"] = 1
    values["retrain"]["promotion"] = {**RULES, **changes}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return {name: values[name] for name in promotion.Params.model_fields}


def checkout(name: str, model: Mdlm) -> Path:
    """A checkout in which a model has been trained; only the champion needs tokens."""
    root = Path(name)
    tokens = root / "data/tokens/validation" if name == "champion" else root / "elsewhere"
    packed_letters(tokens, root / "data/tokenizer/tokenizer", [60] * DOCUMENTS)
    model.save_pretrained(root / MODEL)
    return root


def noisy(soft: bool = True) -> Mdlm:
    """A model that is sure of wrong letters. With this seed, feedback makes it less sure and so better."""
    return tiny_mdlm(soft_mask_settings() if soft else None, vocab_size=IDS, seed=6)


def scaled(model: Mdlm, factor: float) -> Mdlm:
    """The model, surer or less sure. At 0 it finds all letters alike, and of random letters nothing better is known."""
    with torch.no_grad():
        for weights in model.backbone.output_layer.parameters():
            weights.mul_(factor)
    return model


def decided(champion: Mdlm, candidate: Mdlm) -> Decision:
    """The decision between two models."""
    return decide_between(checkout("champion", champion), checkout("candidate", candidate), "sm", 1)


# The decision between models


def test_a_model_is_no_improvement_on_itself() -> None:
    decision = decided(noisy(), noisy())
    assert not decision.promoted and (decision.documents, decision.units) == (DOCUMENTS, DOCUMENTS)
    assert list(decision.metrics) == [Metric.NLL, Metric.NLL_WITHOUT_FEEDBACK]
    for measured in decision.metrics.values():
        assert (measured.improvement, measured.low, measured.high) == (0, 0, 0)
        assert measured.champion == measured.candidate
    assert decision.reasons == [
        "The 95% interval (+0.0000 to +0.0000) of the improvement in nll does not lie above zero."
    ]
    assert decision.hashes.champion == decision.hashes.candidate == path_hash(Path("champion") / MODEL)["md5"]
    assert decision.hashes.validation_tokens == path_hash(Path("champion/data/tokens/validation"))["md5"]


def test_a_better_candidate_is_promoted_and_a_worse_one_is_not() -> None:
    better = decided(noisy(), scaled(noisy(), 0))
    own, one_pass = better.metrics[Metric.NLL], better.metrics[Metric.NLL_WITHOUT_FEEDBACK]
    assert better.promoted and 0 < own.low < own.improvement < own.high
    assert own.candidate == pytest.approx(one_pass.candidate) == pytest.approx(math.log(IDS - 1), rel=0.1)
    assert own.champion < one_pass.champion
    assert own.improvement == pytest.approx(own.champion - own.candidate)
    assert [reason.split(" ")[0] for reason in better.reasons] == ["nll", "The", "nll_without_feedback"]
    worse = decided(scaled(noisy(), 0), noisy())
    assert not worse.promoted and len(worse.reasons) == 3
    assert worse.metrics[Metric.NLL].improvement == -own.improvement
    assert worse.hashes.candidate == better.hashes.champion


def test_arms_without_a_soft_mask_have_one_metric() -> None:
    params(guards=[])
    decision = decided(noisy(soft=False), scaled(noisy(soft=False), 0))
    assert decision.promoted and list(decision.metrics) == [Metric.NLL]


def test_a_guard_stops_what_feedback_hides() -> None:
    params(guards=[{"metric": "nll_without_feedback", "tolerance": 0.0}])
    decision = decided(scaled(close_gate(noisy()), 0.95), noisy())
    assert decision.metrics[Metric.NLL].low > 0 > decision.metrics[Metric.NLL_WITHOUT_FEEDBACK].improvement
    assert not decision.promoted
    (reason,) = decision.reasons
    assert reason.startswith("nll_without_feedback is worse by 0.") and reason.endswith("; at most 0 is tolerated.")


def test_an_improvement_has_to_reach_the_minimum() -> None:
    decision = decided(noisy(), scaled(noisy(), 0.9))
    params(minimum_improvement=decision.metrics[Metric.NLL].improvement + 1e-6)
    stricter = decide_between(Path("champion"), Path("candidate"), "sm", 1)
    assert (decision.promoted, stricter.promoted) == (True, False) and stricter.metrics == decision.metrics


def test_few_documents_are_resampled_as_passages() -> None:
    checkout("champion", noisy()), checkout("candidate", scaled(noisy(), 0))
    packed_letters(Path("champion/data/tokens/validation"), Path("champion/data/tokenizer/tokenizer"), [100] * 6)
    decision = decide_between(Path("champion"), Path("candidate"), "sm", 1)
    assert (decision.documents, decision.unit_kind, decision.units) == (6, "passages", 1)
    assert not decision.promoted and "the text has only 1." in " ".join(decision.reasons)


def test_the_same_inputs_give_the_same_bytes_also_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = decided(noisy(), scaled(noisy(), 0.9))
    calls: list[bool] = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(len(calls) == 13)
        if calls[-1]:
            raise KeyboardInterrupt
        return batch_nll(*arguments)

    monkeypatch.setattr("stages.evaluate.batch_nll", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decide_between(Path("champion"), Path("candidate"), "sm", 1)
    resumed = decide_between(Path("champion"), Path("candidate"), "sm", 1)
    assert len(calls) == 2 * 2 * math.ceil(305 / 64) + 1, "no batch but the interrupted one was measured twice"
    assert dump_json(resumed.model_dump(mode="json")) == dump_json(undisturbed.model_dump(mode="json"))
    assert not list(Path(".checkpoints").glob("*/units/*"))


# The rule


def measured(improvement: float, low: float, high: float) -> Measured:
    return Measured(champion=1.0, candidate=1.0 - improvement, improvement=improvement, low=low, high=high)


GOOD, SAME = measured(0.02, 0.01, 0.03), measured(0.0, -0.01, 0.01)
MISSES = "; an improvement of at least 0.03 is asked for."


@pytest.mark.parametrize(
    ("own", "guarded", "minimum", "units", "failed"),
    [
        (GOOD, SAME, 0.0, 10, []),
        (GOOD, SAME, 0.02, 10, []),
        (GOOD, measured(-0.05, -0.06, -0.04), 0.0, 10, []),
        (GOOD, SAME, 0.03, 10, [f"nll is better by 0.0200 nats a token{MISSES}"]),
        (SAME, SAME, 0.03, 9, [f"nll is the same{MISSES}", "An interval counts ..."]),
        (GOOD, SAME, 0.0, 9, ["An interval counts from 10 resampled units on; the text has only 9."]),
        (measured(0.02, 0.0, 0.04), SAME, 0.0, 10, ["The 95% interval (+0.0000 to +0.0400) of the improvement in ..."]),
        (measured(0.02, -0.01, 0.04), SAME, 0.0, 10, [f"The 95% interval ({MINUS}0.0100 to +0.0400) of the ..."]),
        (
            measured(-0.02, -0.03, -0.01),
            measured(-0.06, -0.07, 0.0),
            0.0,
            10,
            [
                "nll is worse by 0.0200 nats a token; an improvement of at least 0 is asked for.",
                f"The 95% interval ({MINUS}0.0300 to {MINUS}0.0100) of the improvement in nll does not lie above zero.",
                "nll_without_feedback is worse by 0.0600 nats a token; at most 0.05 is tolerated.",
            ],
        ),
    ],
)
def test_a_candidate_has_to_meet_every_condition(
    own: Measured, guarded: Measured, minimum: float, units: int, failed: list[str]
) -> None:
    rules = PromotionParams(
        metric=Metric.NLL,
        direction=Direction.LOWER,
        minimum_improvement=minimum,
        guards=[GuardParams(metric=Metric.NLL_WITHOUT_FEEDBACK, tolerance=0.05)],
    )
    promoted, reasons = decide(rules, {Metric.NLL: own, Metric.NLL_WITHOUT_FEEDBACK: guarded}, units, RESAMPLING)
    assert promoted is not bool(failed)
    assert len(reasons) == (len(failed) or 3)
    for reason, expected in zip(reasons, failed, strict=False):
        assert reason.startswith(expected.removesuffix("...")) and (expected.endswith("...") or reason == expected)


def test_metrics_are_means_a_token_and_the_direction_says_what_is_better() -> None:
    tokens = np.array([1, 3] * 10)
    champion = {Metric.NLL: 2.0 * tokens, Metric.NLL_WITHOUT_FEEDBACK: 3.0 * tokens}
    candidate = {Metric.NLL: np.array([1.0, 5.0] * 10), Metric.NLL_WITHOUT_FEEDBACK: 2.5 * tokens}
    for direction, sign in (("lower", 1), ("higher", -1)):
        found = compare(champion, candidate, tokens, validate(promotion.Params, params(direction=direction), ""))
        own = found[Metric.NLL]
        assert (own.champion, own.candidate, own.improvement) == (2.0, 1.5, sign * 0.5)
        assert own.low < own.improvement < own.high
        assert found[Metric.NLL_WITHOUT_FEEDBACK].improvement == 0.5, "guards are better where they are lower"


# What is refused


def other_tokenizer(root: Path) -> None:
    path = root / "data/tokenizer/tokenizer/tokenizer.json"
    write_json(path, {**read_json(path), "truncation": None, "version": "1.1"})


def without_soft_mask(root: Path) -> None:
    noisy(soft=False).save_pretrained(root / MODEL)


def not_finite(root: Path) -> None:
    scaled(noisy(), math.nan).save_pretrained(root / MODEL)


@pytest.mark.parametrize(
    ("damage", "side", "message"),
    [
        (shutil.rmtree, "candidate", "--candidate: there is no folder candidate; expected the root of a checkout"),
        (lambda root: shutil.rmtree(root / MODEL), "candidate", f"candidate/{MODEL}: the input is missing. Make it"),
        (lambda root: shutil.rmtree(root / "data/tokens"), "champion", "champion/data/tokens/validation: the input is"),
        (other_tokenizer, "candidate", "candidate/data/tokenizer/tokenizer: not the champion's tokenizer"),
        (
            without_soft_mask,
            "candidate",
            f"candidate/{MODEL}: the candidate has no soft mask, the champion a soft mask",
        ),
        (not_finite, "candidate", f"candidate/{MODEL}: it has weights that are not finite. Train it again"),
        (lambda root: params(metric="mauve"), "champion", "params.yaml: retrain.promotion.metric: 'mauve' is wrong"),
        (
            lambda root: (root / MODEL / "model.safetensors").unlink(),
            "candidate",
            f"candidate/{MODEL}/model.safetensors",
        ),
    ],
    ids=["no folder", "no model", "no tokens", "a tokenizer", "a kind", "not finite", "a metric", "a torn model"],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_computed(damage: Any, side: str, message: str) -> None:
    champion, candidate = checkout("champion", noisy()), checkout("candidate", noisy())
    damage(Path(side))
    with pytest.raises(InputError) as raised:
        decide_between(champion, candidate, "sm", 1)
    assert str(raised.value).startswith(message)
    assert not Path(".checkpoints").exists()


def test_feedback_is_not_measured_without_a_soft_mask() -> None:
    with pytest.raises(
        InputError, match=r"params\.yaml: retrain\.promotion: 'nll_without_feedback' .*; expected nll alone"
    ):
        decided(noisy(soft=False), noisy(soft=False))


# The command line


def command(monkeypatch: pytest.MonkeyPatch, candidate: str) -> Any:
    """Run the command; its exit code."""
    options = {"champion": "champion", "candidate": candidate, "arm": "sm", "seed": "1", "out": "made/decision.json"}
    monkeypatch.setattr(
        sys, "argv", ["promotion", *(part for name, value in options.items() for part in (f"--{name}", value))]
    )
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: typer.run(promotion.main))
    return exit_.value.code


def test_the_command_writes_and_shows_the_decision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout("champion", noisy()), checkout("candidate", scaled(noisy(), 0))
    for candidate, verdict in (("candidate", "Promote the candidate"), ("champion", "Keep the champion")):
        assert command(monkeypatch, candidate) == 0
        decision = json.loads(Path("made/decision.json").read_text(encoding="utf-8"))
        assert decision["promoted"] is (candidate == "candidate")
        assert set(decision["metrics"]["nll"]) == {"champion", "candidate", "improvement", "low", "high"}
        shown = capsys.readouterr().out
        assert shown.endswith("\n- ".join([f"\n{verdict}:", *decision["reasons"]]) + "\n")
        assert f"sm-1 on {DOCUMENTS} validation documents" in shown and "nll_without_feedback" in shown


def test_a_mistake_ends_with_2_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout("champion", noisy())
    capsys.readouterr()
    assert command(monkeypatch, "nowhere") == 2
    assert (
        capsys.readouterr().err == "error: --candidate: there is no folder nowhere; expected the root of a checkout\n"
    )
    assert not Path("made").exists()
