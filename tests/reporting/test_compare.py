"""The comparison on finished runs of known differences: what it claims, what it refuses to, and what it reads."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from reporting.generating import seed_pair
from reporting.schema import GenerationMetrics, How
from softmask.errors import InputError
from stages.compare import STAGE

MakeRun = Callable[..., Any]
"""The fixture's factory: see conftest.py."""


def texts(comparison: dict[str, Any], topic: str) -> str:
    """All findings of a topic, with their evidence."""
    return " ".join(f["text"] + " " + f["evidence"] for f in comparison["findings"] if f["topic"] == topic)


def difference(comparison: dict[str, Any], path: str = "two_pass", reference: str = "binary") -> dict[str, Any]:
    """The difference of sm_iso_update on a path."""
    found: dict[str, Any] = next(
        d
        for d in comparison["differences"]
        if (d["arm"], d["path"], d["reference"]) == ("sm_iso_update", path, reference)
    )
    return found


def test_a_gain_in_every_seed_whose_interval_excludes_zero_is_claimed(make_run: MakeRun) -> None:
    comparison = make_run(gain={1: 0.024, 2: 0.026}).compare()
    found = difference(comparison)
    assert found["verdict"] == "lower"
    assert found["nll"]["low"] < -0.025 < found["nll"]["high"] < 0
    assert [seed["seed"] for seed in found["seeds"]] == [1, 2]
    assert found["seeds_sd"] == pytest.approx(0.001, abs=0.001)
    assert "SM iso-update (two passes) has a lower validation perplexity than binary" in texts(comparison, "perplexity")


def test_a_loss_is_claimed_as_plainly_as_a_gain(make_run: MakeRun) -> None:
    comparison = make_run(gain={1: -0.02, 2: -0.02}).compare()
    assert difference(comparison)["verdict"] == "higher"
    assert "SM iso-update (two passes) has a higher validation perplexity than binary" in texts(
        comparison, "perplexity"
    )


def test_seeds_that_disagree_give_no_claim(make_run: MakeRun) -> None:
    comparison = make_run(gain={1: 0.03, 2: -0.005}).compare()
    found = difference(comparison)
    assert found["nll"]["high"] < 0
    assert (found["seeds_agree"], found["verdict"]) == (False, "can't be told apart")
    assert "can't be told apart in validation perplexity" in texts(comparison, "perplexity")


def test_an_interval_that_holds_zero_gives_no_claim(make_run: MakeRun) -> None:
    run = make_run(gain={1: 0.0, 2: 0.0})
    arrays = load_file("data/evaluation/binary-1/nll.safetensors")
    jitter = np.random.default_rng(5).normal(0, 40, size=arrays["binary"].shape[1:])
    for seed in run.seeds:  # the same documents go far up and down in both seeds: no trend, much noise
        _shift(f"sm_iso_update-{seed}", "two_pass", jitter - jitter.mean() + 0.2)
    assert difference(run.compare())["verdict"] == "can't be told apart"


def _shift(model: str, path: str, nats: Any) -> None:
    """Add nats to each unit of a model's NLL on one path, in the arrays and in the metrics."""
    folder = Path("data/evaluation") / model
    arrays = load_file(folder / "nll.safetensors")
    arrays[path] = arrays[path] + nats
    save_file(arrays, folder / "nll.safetensors", metadata={"unit_kind": "documents"})
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["perplexity"][path]["nll"] = float(arrays[path].mean(axis=0).sum() / arrays["tokens"].sum())
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_both_paths_and_the_base_are_compared(make_run: MakeRun) -> None:
    comparison = make_run().compare()
    assert difference(comparison, path="binary")["verdict"] == "higher"
    assert difference(comparison, reference="base")["verdict"] == "lower"
    against_base = [d["arm"] for d in comparison["differences"] if d["reference"] == "base"]
    assert against_base == ["binary", "sm_iso_update"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lam_mean": 0.004}, "mean lambda 0.004 is under 0.05"),
        ({"feedback_effect": 0.0}, "nothing that excludes zero"),
    ],
)
def test_a_closed_gate_is_said_and_nothing_is_compared(make_run: MakeRun, changes: Any, reason: str) -> None:
    run = make_run(**changes)
    if "feedback_effect" in changes:
        for seed in run.seeds:
            _same_on_both_paths(f"sm_iso_update-{seed}")
    comparison = run.compare()
    gates = [model["gate"] for model in comparison["models"] if model["gate"]]
    assert [gate["open"] for gate in gates] == [False, False]
    assert difference(comparison)["verdict"] == "gate closed"
    assert {pair["verdict"] for pair in comparison["pairs"]} == {"gate closed"}
    assert "closed in seed 1 and seed 2" in texts(comparison, "gate")
    assert reason in texts(comparison, "gate")
    assert "SM iso-update" not in texts(comparison, "perplexity") + texts(comparison, "generation")
    headline = json.loads(Path("reports/metrics.json").read_text())
    assert headline["gate"]["sm_iso_update-1"]["open"] is False
    assert headline["lm"]["sm_iso_update"]["nll_vs_binary"]["verdict"] == "gate closed"


def _same_on_both_paths(model: str) -> None:
    """Make feedback change nothing, up to noise around zero that has no trend."""
    arrays = load_file(Path("data/evaluation") / model / "nll.safetensors")
    signs = np.where(np.arange(arrays["two_pass"].shape[1]) % 2, 1.0, -1.0)
    _shift(model, "binary", arrays["two_pass"] - arrays["binary"] + 0.5 * signs)


def test_one_closed_gate_of_two_seeds_still_bars_the_claim(make_run: MakeRun) -> None:
    run = make_run()
    _same_on_both_paths("sm_iso_update-2")
    comparison = run.compare()
    assert difference(comparison)["verdict"] == "gate closed"
    assert comparison["arm_rows"][-1]["gate_open"] == [1]
    assert "closed in seed 2:" in texts(comparison, "gate")


def test_a_removed_seed_leaves_no_trace(make_run: MakeRun, tmp_path: Path) -> None:
    stale = make_run(seeds=(1, 2, 3), gain={1: 0.02, 2: 0.02, 3: 0.9})
    stale.seeds = (1, 2)
    stale.compare()
    left = {path: path.read_bytes() for path in sorted(Path("reports").rglob("*")) if path.is_file()}
    for folder in ("data", "models", "reports"):
        shutil.rmtree(folder)
    make_run(seeds=(1, 2), gain={1: 0.02, 2: 0.02}).compare()
    assert left == {path: path.read_bytes() for path in sorted(Path("reports").rglob("*")) if path.is_file()}


def test_real_passes_decide_what_is_compared(make_run: MakeRun) -> None:
    comparison = make_run().compare()
    pairs = [(p["sampler"], p["reference_sampler"], p["nfe"], p["seeds"][0]["how"]) for p in comparison["pairs"]]
    assert pairs == [
        ("mdlm", "mdlm", 8, "measured"),
        ("mdlm", "mdlm", 16, "measured"),
        ("mdlm", "mdlm", 32, "measured"),
        # two passes a step: 17 to 62 real passes, so binary's 8.5 and 16.0 are out of reach and 31.1 lies between
        ("mdlm_two_pass", "mdlm", 32, "interpolated"),
    ]


def generation(nfe: int, real: float, gen_ppl: float, entropy: float = 2.7) -> GenerationMetrics:
    """A point of a curve."""
    return GenerationMetrics(
        sampler="mdlm",
        nfe=nfe,
        real_nfe_mean=real,
        samples=64,
        tokens=640,
        gen_ppl=gen_ppl,
        entropy=entropy,
        mauve=None,
    )


def test_a_point_between_two_is_interpolated_in_the_logarithm_of_both() -> None:
    own = [generation(8, 8.0, 16.0, 2.6), generation(32, 32.0, 4.0, 2.8)]
    pair = seed_pair(1, own, generation(16, 16.0, 10.0), tolerance=0.02)
    assert pair is not None
    assert (pair.how, pair.arm_real_nfe) == (How.INTERPOLATED, 16.0)
    assert pair.gen_ppl == pytest.approx(8.0)
    assert pair.entropy == pytest.approx(2.7)


def test_a_point_within_the_tolerance_is_taken_as_it_is() -> None:
    pair = seed_pair(1, [generation(16, 16.2, 9.0)], generation(16, 16.0, 10.0), tolerance=0.02)
    assert pair is not None
    assert (pair.how, pair.arm_real_nfe, pair.gen_ppl) == (How.MEASURED, 16.2, 9.0)
    assert seed_pair(1, [generation(16, 16.5, 9.0)], generation(16, 16.0, 10.0), tolerance=0.02) is None


def test_one_seed_claims_nothing_about_generation(make_run: MakeRun) -> None:
    comparison = make_run(seeds=(1,)).compare()
    assert {pair["verdict"] for pair in comparison["pairs"]} == {"one seed, no claim"}
    assert "One seed has no spread to judge by, so nothing is claimed" in texts(comparison, "generation")
    assert "One seed was run" in texts(comparison, "limits")


def test_a_lower_perplexity_with_lower_entropy_gets_a_caveat(make_run: MakeRun) -> None:
    run = make_run()
    for seed in run.seeds:
        file = Path(f"data/evaluation/sm_iso_update-{seed}/metrics.json")
        metrics = json.loads(file.read_text())
        for row in metrics["generation"]:
            row["entropy"] -= 0.4
        file.write_text(json.dumps(metrics))
    comparison = run.compare()
    assert all(pair["sharper"] for pair in comparison["pairs"] if pair["log_ratio"] < 0)
    assert "entropy is clearly lower as well" in texts(comparison, "generation")


def test_a_pair_says_what_is_shown_of_it(make_run: MakeRun) -> None:
    for pair in make_run().compare()["pairs"]:
        for name in ("real_nfe", "gen_ppl", "reference_gen_ppl"):
            assert pair[name] == pytest.approx(sum(seed[name] for seed in pair["seeds"]) / len(pair["seeds"]))
        assert math.log1p(pair["change"]) == pytest.approx(pair["log_ratio"])
        assert pair["change_interval"] == {
            name: pytest.approx(math.expm1(bound)) for name, bound in pair["interval"].items()
        }


def test_the_points_where_soft_masking_loses_are_listed(make_run: MakeRun) -> None:
    found = texts(make_run().compare(), "generation")
    assert "perplexity is above binary's at: SM iso-update with mdlm_two_pass at 31.1 passes (+" in found


def test_mauve_is_averaged_where_all_seeds_have_it_and_explained_where_not(make_run: MakeRun) -> None:
    assert {point["mauve"] for point in make_run(mauve=True).compare()["curves"]} == {0.5}
    comparison = make_run(mauve=False).compare()
    assert {point["mauve"] for point in comparison["curves"]} == {None}
    assert "64 samples; MAUVE is printed from 500 on" in texts(comparison, "generation")


def test_too_few_units_claim_nothing_and_passages_are_named(make_run: MakeRun) -> None:
    comparison = make_run(units=12, unit_kind="passages").compare()
    assert difference(comparison)["verdict"] == "can't be told apart"
    assert "Perplexity rests on 12 passages only" in texts(comparison, "limits")
    assert "too few validation documents" in texts(comparison, "limits")


def test_perplexity_and_bits_per_byte_agree_with_the_evaluation(make_run: MakeRun) -> None:
    run = make_run()
    comparison = run.compare()
    stated = json.loads(Path("data/evaluation/binary-2/metrics.json").read_text())["perplexity"]["binary"]
    row = next(model for model in comparison["models"] if model["model"] == "binary-2")["perplexity"]["binary"]
    assert row["ppl"]["estimate"] == pytest.approx(stated["ppl"])
    assert row["bits_per_byte"]["estimate"] == pytest.approx(stated["bits_per_byte"])
    seeds = [m["perplexity"]["binary"]["nll"]["estimate"] for m in comparison["models"] if m["arm"] == "binary"]
    arm = comparison["arm_rows"][1]["perplexity"]["binary"]
    assert arm["ppl"]["estimate"] == pytest.approx(math.exp(sum(seeds) / 2))


def test_a_run_without_soft_masks_is_compared_with_the_base_only(make_run: MakeRun) -> None:
    comparison = make_run(arms=("binary",)).compare()
    assert [(d["arm"], d["reference"]) for d in comparison["differences"]] == [("binary", "base")]
    assert comparison["pairs"] == []
    assert Path("reports/plots/gate.csv").read_text().startswith("model,step,omega_s")


def test_a_run_without_a_binary_arm_says_so(make_run: MakeRun) -> None:
    comparison = make_run(arms=("sm_iso_update",)).compare()
    assert {d["reference"] for d in comparison["differences"]} == {"base"}
    assert "no binary arm in this run" in texts(comparison, "perplexity")


def test_plots_are_thinned_and_keep_both_ends(make_run: MakeRun) -> None:
    make_run().compare(plot_points=5)
    rows = [line.split(",") for line in Path("reports/plots/loss.csv").read_text().splitlines()]
    assert [row[1] for row in rows if row[0] == "binary-1"] == ["0", "100", "200", "290", "390"]


def _spoil_json(file: str, change: Callable[[Any], None]) -> Callable[[], None]:
    def spoil() -> None:
        value = json.loads(Path(file).read_text())
        change(value)
        Path(file).write_text(json.dumps(value))

    return spoil


def _other_text() -> None:
    folder = Path("data/evaluation/binary-2")
    arrays = load_file(folder / "nll.safetensors")
    arrays["bytes"] = arrays["bytes"] + 1
    save_file(arrays, folder / "nll.safetensors", metadata={"unit_kind": "documents"})


NLL = "data/evaluation/binary-1/nll.safetensors"
METRICS = "data/evaluation/binary-1/metrics.json"
SPOILED: dict[str, tuple[Callable[[], Any], str]] = {
    "missing metrics": (lambda: Path(METRICS).unlink(), "binary-1/metrics.json: the file is missing"),
    "missing arrays": (lambda: Path(NLL).unlink(), "binary-1/nll.safetensors: the file is missing"),
    "torn arrays": (
        lambda: Path(NLL).write_bytes(Path(NLL).read_bytes()[:50]),
        "nll.safetensors: no readable safetensors",
    ),
    "torn metrics": (lambda: Path(METRICS).write_text('{"model":'), "metrics.json: not valid JSON"),
    "missing field": (_spoil_json(METRICS, lambda m: m.pop("generation")), "metrics.json: generation: Field required"),
    "another model": (
        _spoil_json(METRICS, lambda m: m.update(model="binary-9")),
        "model is 'binary-9'; expected binary-1",
    ),
    "another NLL": (
        _spoil_json(METRICS, lambda m: m["perplexity"]["binary"].update(nll=3.0)),
        "metrics.json says 3.0; expected files of one and the same evaluation",
    ),
    "no two-pass array": (
        _spoil_json(METRICS, lambda m: m["perplexity"].update(two_pass=m["perplexity"]["binary"])),
        "nll.safetensors: lacks two_pass",
    ),
    "other text": (_other_text, "binary-2 was evaluated on other units or draws than base"),
    "missing history": (
        lambda: Path("models/mdlm/base/history.json").unlink(),
        "base/history.json: the file is missing",
    ),
    "missing references": (
        lambda: Path("data/references/metrics.json").unlink(),
        "references/metrics.json: the file is missing",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_input_is_named_and_nothing_is_written(make_run: MakeRun, case: str) -> None:
    run = make_run()
    spoil, message = SPOILED[case]
    spoil()
    with pytest.raises(InputError) as caught:
        run.compare()
    assert message in str(caught.value)
    assert not Path("reports/comparison.json").exists()


def test_the_stage_runs_from_params_and_writes_its_manifest(make_run: MakeRun, compare_params: dict[str, Any]) -> None:
    make_run()
    params = {"profile": "local", "seeds": [1, 2], "arms": {"names": ["binary", "sm_iso_update"]}}
    Path("params.yaml").write_text(yaml.safe_dump({**params, "compare": compare_params, "unrelated": 1}))
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"compare": {"deps": ["data/check/valid.json"]}}}))
    STAGE.execute({})
    first = {
        path: path.read_bytes() for path in Path("reports").rglob("*") if path.is_file() and path.name != "run.json"
    }
    manifest = json.loads(Path(STAGE.outputs["manifest"]).read_text())
    assert manifest["counts"] == {"findings": 12, "models": 5, "tokens": 28246, "units": 41}
    STAGE.execute({})
    assert first == {path: path.read_bytes() for path in first}
