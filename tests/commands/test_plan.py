"""The plan says what a run will take: forwards, FLOPs and tokens as the manifests count them, and writes nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from commands.planning import coins, language
from commands.planning.answering import answered
from commands.planning.composing import composed
from commands.planning.facts import Facts
from commands.planning.pipeline import ESTIMATES, WITHOUT_MODEL, planned
from commands.planning.sampling import Sampled, sampled
from commands.planning.shapes import mdlm_config, mdlm_parameters
from commands.planning.work import Basis, Work, together
from runner.section import validate
from runner.stage import declared_stages
from softmask.decoding.decoder import DecodingSettings, generate
from softmask.decoding.dream_decoder import decode
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.decoding.dream_settings import DreamDecoding
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.transitions import RemdmSettings
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule
from stages.params.code.generation import CellParams
from tests.pipeline.clones import Clone, environment
from tests.softmask.tiny import soft_mask_settings, tiny_mdlm
from tests.softmask.tiny_dream import tiny_dream

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "conf/profile").glob("*.yaml"))
LENGTH, SEQUENCES = 6, 3000
SIX_SIGMA = 6.0
EXACT = ("judge", "references", "base", "arm", "evaluate_base", "evaluate", "dream_base", "finetune")
"""Stages of the smoke run whose manifests the plan foresees to the last FLOP."""

# Sampling


def settings(sampler: Sampler, refresh: Refresh, **changes: Any) -> DecodingSettings:
    values: dict[str, Any] = {
        "nfe": 5,
        "nucleus_p": 1.0,
        "temperature": 1.0,
        "remask_feedback": RemaskFeedback.MASK,
        "omega_schedule": OmegaSchedule.CONSTANT,
        "feedback_from": 0.0,
        "feedback_until": 1.0,
        "remdm": RemdmSettings(eta=0.08, t_on=0.6, t_off=0.2, alpha_on=0.8),
        "final_t": 0.05,
        "final_argmax": True,
        "head_chunk": 4096,
        **changes,
    }
    return DecodingSettings(sampler=sampler, refresh=refresh, **values)


def check_sampling(how: DecodingSettings, feedback: FeedbackKind | None) -> Sampled:
    """Real forwards and rows of the head have the planned mean, and none is above the planned bound."""
    model = tiny_mdlm(None if feedback is None else soft_mask_settings(feedback))
    made = generate(model, how, SEQUENCES, LENGTH, torch.Generator().manual_seed(1))
    plan = sampled(how, feedback, LENGTH)
    forwards = made.forwards.double()
    assert abs(float(forwards.mean()) - plan.forwards) <= SIX_SIGMA * float(forwards.std()) / SEQUENCES**0.5 + 1e-9
    assert made.head_rows / SEQUENCES == pytest.approx(plan.head_rows, rel=0.03)
    assert int(forwards.max()) <= plan.most_forwards and plan.head_rows <= plan.most_head_rows
    return plan


@pytest.mark.parametrize("feedback", [None, *FeedbackKind])
@pytest.mark.parametrize("refresh", Refresh)
@pytest.mark.parametrize("sampler", Sampler)
def test_planned_forwards_of_sampling_are_the_mean_of_real_ones(
    sampler: Sampler, refresh: Refresh, feedback: FeedbackKind | None
) -> None:
    check_sampling(settings(sampler, refresh), feedback)


@pytest.mark.parametrize("window", [(0.0, 0.4), (0.4, 1.0)])
@pytest.mark.parametrize("sampler", [Sampler.MDLM, Sampler.MDLM_TWO_PASS, Sampler.REMDM_CAP])
def test_steps_without_feedback_are_planned_as_binary_ones(sampler: Sampler, window: tuple[float, float]) -> None:
    start, end = window
    how = settings(sampler, Refresh.ON_CHANGE, feedback_from=start, feedback_until=end)
    assert (
        check_sampling(how, FeedbackKind.TOP_K).head_rows
        < sampled(settings(sampler, Refresh.ON_CHANGE), FeedbackKind.TOP_K, LENGTH).head_rows
        or start > 0
    )


def test_the_official_sampler_takes_650_forwards_at_1024_nominal_steps() -> None:
    """method.md, section 9."""
    how = settings(Sampler.MDLM, Refresh.ON_CHANGE, nfe=1024, final_t=1e-3)
    plan = sampled(how, None, 1024)
    assert plan.forwards == pytest.approx(1024 * (1 - (1 - 0.999 / 1024) ** 1024) + 1 - 0.999**1024)
    assert 640 < plan.forwards < 655 and plan.most_forwards == 1024
    assert plan.head_rows == pytest.approx(1024)


# Answers


def cell(**changes: Any) -> CellParams:
    values: dict[str, Any] = {
        "name": "x",
        "nfe_ratio": None,
        "tokens_per_step": None,
        "threshold": None,
        "cache": "none",
        "block_length": None,
        "refresh_every": None,
        "sets": None,
        **changes,
    }
    return validate(CellParams, values, "test")


def really(how: CellParams, length: int, feedback: FeedbackKind | None, prompt: int) -> tuple[int, int, int]:
    """Forwards, positions and head rows of a real answer that nothing ends early."""
    soft_mask = None
    if feedback is not None:
        values = {"omega_s": 0.9, "omega_a": 2.0, "omega_b": -4.0, "temperature": 1.0, "k": 3}
        soft_mask = SoftMask(**values, kind=feedback, interpolation=Interpolation.LINEAR)  # type: ignore[arg-type]
    decoding = DreamDecoding(
        algorithm=Algorithm.ENTROPY,
        steps=how.steps(length),
        threshold=how.threshold,
        temperature=0.0,
        top_p=None,
        top_k=None,
        alg_temp=None,
        eps=1e-3,
        omega_schedule=OmegaSchedule.CONSTANT,
        eos_rule=EosRule.FREE,
        end_ids=(),
        stop_at_end=False,
        cache=how.cache,
        block_length=how.block_length,
        refresh_every=how.refresh_every,
        head_chunk=64,
    )
    made = decode(tiny_dream(), soft_mask, [list(range(1, 1 + prompt))], length, decoding, [torch.Generator()])
    return int(made.forwards), int(made.positions), made.head_rows


@pytest.mark.parametrize("feedback", [None, *FeedbackKind])
@pytest.mark.parametrize(
    "changes",
    [
        {"nfe_ratio": "1/1"},
        {"nfe_ratio": "1/4"},
        {"tokens_per_step": 3},
        {"nfe_ratio": "1/2", "cache": "prefix", "block_length": 6},
        {"nfe_ratio": "1/2", "cache": "dual", "block_length": 6},
        {"nfe_ratio": "1/1", "cache": "dual", "block_length": 12, "refresh_every": 5},
    ],
    ids=str,
)
def test_a_planned_answer_is_what_a_real_one_takes(changes: dict[str, Any], feedback: FeedbackKind | None) -> None:
    how, length, prompt = cell(**changes), 24, 5
    plan = answered(how, length, Algorithm.ENTROPY, 1e-3, feedback)
    assert (plan.forwards, plan.positions(prompt + length), plan.head_rows) == really(how, length, feedback, prompt)
    assert plan.most_head_rows >= plan.head_rows


@pytest.mark.parametrize("cache", CacheMode)
def test_a_threshold_takes_at_most_what_is_planned(cache: CacheMode) -> None:
    how = cell(threshold=0.2, cache=cache.value, block_length=8)
    plan = answered(how, 24, Algorithm.ENTROPY, 1e-3, FeedbackKind.TOP_K)
    bound = (plan.forwards, plan.positions(24 + 5), plan.most_head_rows)
    assert all(real <= most for real, most in zip(really(how, 24, FeedbackKind.TOP_K, 5), bound, strict=True))
    assert plan.forwards == 24


# Parameters, models, sums


def test_the_papers_model_has_169_million_parameters() -> None:
    _, params = composed("paper", [])
    config = mdlm_config(params.model, Facts(params).text.vocabulary, params.tokens.length, None)
    assert mdlm_parameters(config) == 169_627_218
    assert config.vocab_size == 50_258


def test_coins_are_tossed_as_the_run_will_and_expected_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, params = composed("smoke", ["arms.training.steps=400"])
    axes = {"arm": "sm_iso_update", "seed": "1"}
    tossed = language.arm(Facts(params), axes)
    monkeypatch.setattr(coins, "TOSSED", 100)
    expected = language.arm(Facts(params), axes)
    assert expected.forwards == round(800 * 1.8) != tossed.forwards
    assert abs(tossed.forwards - expected.forwards) < SIX_SIGMA * (800 * 0.8 * 0.2) ** 0.5


def test_the_basis_of_a_sum_is_its_least_sure_part() -> None:
    parts = [Work(forwards=2, memory=5, disk=1), Work(forwards=3, memory=4, disk=2, basis=Basis.ABOUT)]
    assert together(parts) == Work(forwards=5, most_forwards=5, memory=5, disk=3, basis=Basis.ABOUT)


def test_processes_share_the_flops_of_a_training_beside_what_each_has_apart() -> None:
    assert Work(flops=10**15, processes=4).seconds(1e14) == 2.5
    assert Work(flops=10**15, apart=10**14, processes=4).seconds(1e14) == 3.5


def test_an_arm_that_is_not_trained_takes_no_forward() -> None:
    _, params = composed("smoke", ["arms.settings.sm_iso_update.budget=none"])
    work = language.arm(Facts(params), {"arm": "sm_iso_update", "seed": "1"})
    assert (work.forwards, work.flops, work.unfinished) == (0, 0, 0) and work.disk > 0


def test_every_stage_is_planned_or_said_to_take_next_to_nothing() -> None:
    modules = {entry["cmd"].split()[2].removeprefix("stages.") for entry in declared_stages(ROOT / "dvc.yaml").values()}
    assert modules == set(ESTIMATES) | set(WITHOUT_MODEL) and not set(ESTIMATES) & set(WITHOUT_MODEL)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_can_be_planned(profile: str) -> None:
    raw, params = composed(profile, [])
    plan = planned(declared_stages(), raw, params)
    found = {item.instance: item.work for item in plan}
    for seed in params.seeds:
        for arm in params.arms.names:
            assert found[f"arm@{arm}-{seed}"].flops > 0 and found[f"generate@{arm}-{seed}"].flops > 0
    assert all(work.most_flops >= work.flops for work in found.values())


# The command


def command(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    variables = {**environment(), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "commands.plan", *arguments]
    return subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file but git's own."""
    files = (Path(at) / name for at, _, names in os.walk(folder) for name in names if "/.git" not in at)
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@pytest.mark.slow
def test_the_command_plans_the_paper_and_touches_nothing(origin: Path) -> None:
    before = state(origin)
    done = command("--profile", "paper", "--flops", "1e15", "--set", "seeds=[1,2]", "--json", folder=origin)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    arms = [stage for stage in found["stages"] if stage["stage"] == "arm"]
    assert len(arms) == 6 and found["flops_per_second"] == 1e15 and arms[0]["processes"] == 8
    assert arms[0]["seconds"] == pytest.approx(arms[0]["flops"] / 8e15, abs=1e-3)
    assert state(origin) == before


@pytest.mark.slow
def test_the_table_has_a_row_for_each_stage_and_a_sum(origin: Path) -> None:
    done = command("--profile", "smoke", folder=origin)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert {"judge", "arm", "generate", "evaluate", "finetune", "code_generate", "all,"} <= set(lines)
    assert "Next to nothing: check" in done.stdout
    assert "…" not in done.stdout


def test_a_mistake_is_one_plain_message_and_exit_2(origin: Path) -> None:
    done = command("--profile", "papr", folder=origin)
    assert done.returncode == 2
    assert re.fullmatch(r"error: conf/profile: there is no profile 'papr'; expected one of local, .*\n", done.stderr)


@pytest.mark.parametrize(
    ("profile", "override", "message"),
    [
        ("smoke", "no.such=1", r"^profile smoke: can't be composed: .*no\.such"),
        ("smoke", "seeds=[1", r"^profile smoke: can't be composed: "),
        ("smoke", "profile=papr", r"^profile smoke: can't be composed: "),
        ("smoke", "arms.training.steps=0", r"^profile smoke: arms\.training\.steps"),
        (None, "no.such=1", r"^params\.yaml: can't be composed: .*no"),
        (None, "arms.training.steps=0", r"^params\.yaml: arms\.training\.steps"),
    ],
)
def test_what_is_wrong_with_an_override_is_said(profile: str | None, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        composed(profile, [override])


def test_without_a_profile_it_is_params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    raw, params = composed(None, ["arms.training.steps=77"])
    assert params.arms.training.steps == raw["arms"]["training"]["steps"] == 77
    assert yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))["arms"]["training"]["steps"] != 77


# Against a real run


def counted(clone: Clone, stage: str) -> dict[str, int]:
    """Forwards, FLOPs and tokens in a stage's manifest, the judge's included."""
    (path,) = [path for path in clone.outputs(stage) if path.endswith("manifest.json")]
    counts: dict[str, Any] = json.loads((clone.root / path).read_text(encoding="utf-8"))["counts"]
    judging = counts.get("judging") or counts.get("judge") or {}
    return {name: counts.get(name, 0) + judging.get(name, 0) for name in ("forwards", "flops", "tokens")}


@pytest.mark.slow
def test_the_plan_of_the_smoke_run_is_what_its_manifests_say(smoke: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(smoke.root)
    raw, params = composed(None, [])
    plan = {item.instance: item.work for item in planned(declared_stages(), raw, params)}
    assert set(plan) == set(smoke.stages())
    exact = {name for name in plan if name.partition("@")[0] in EXACT}
    assert len(exact) == 11
    for name in exact:
        work = plan[name]
        assert work.basis is Basis.EXACT, name
        assert {"forwards": work.forwards, "flops": work.flops, "tokens": work.tokens} == counted(smoke, name), name
    bounded = [name for name in plan if name.startswith(("generate", "code_generate"))]
    assert len(bounded) == 6
    for name in bounded:
        work, real = plan[name], counted(smoke, name)
        assert real["forwards"] <= work.most_forwards and real["flops"] <= work.most_flops, name
        assert real["forwards"] == pytest.approx(work.forwards, rel=0.05), name
