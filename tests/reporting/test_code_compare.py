"""The code comparison on finished runs of known differences: what it claims, what it refuses to, and what it reads."""

import csv
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reporting.code_comparing import uncached
from reporting.code_schema import CellInfo, Part, VerdictRow
from softmask.errors import InputError
from stages.code_compare import STAGE
from tests.reporting.code_run import CELLS, CodeRun

MakeCode = Callable[..., CodeRun]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def make_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCode:
    """A factory of finished code studies; the current folder is the study's root."""
    monkeypatch.chdir(tmp_path)
    return lambda **changes: CodeRun(tmp_path, **changes).write()


def difference(comparison: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    """The one difference with these fields, by default SM against binary on all tests of micro_iid at 1/4."""
    fields = {"set": "micro_iid", "part": "plus", "arm": "sm", "cell": "1/4", "reference": "binary", **wanted}
    fields.setdefault("reference_cell", fields["cell"])
    (found,) = [d for d in comparison["differences"] if all(d[name] == value for name, value in fields.items())]
    return dict(found)


def point(
    comparison: dict[str, Any], arm: str, part: str = "plus", place: tuple[str, str] = ("micro_iid", "1/4")
) -> Any:
    """The one point of an arm."""
    (found,) = [p for p in comparison["points"] if (p["arm"], p["part"], p["set"], p["cell"]) == (arm, part, *place)]
    return found


def texts(comparison: dict[str, Any], topic: str) -> str:
    """All findings of a topic, with their evidence."""
    return " ".join(f["text"] + " " + f["evidence"] for f in comparison["findings"] if f["topic"] == topic)


def at_random(share: float, seeds: Sequence[int]) -> Any:
    """Outcomes that are independent of one another."""

    def passes(name: str, arm: str, seed: int | None, cell: str, difficulty: np.ndarray) -> np.ndarray:
        own = share + (0.1 if arm == "sm" else 0.0)
        return np.random.default_rng([len(name), len(arm), seed or 0, len(cell), *seeds]).random(len(difficulty)) < own

    return passes


# Statistics


def test_rates_and_spreads_are_means_and_deviations_over_seeds(make_code: MakeCode) -> None:
    run = make_code(passes=at_random(0.5, [1]), seeds=(1, 2, 3))
    comparison = run.compare()
    for arm in ("binary", "sm"):
        rates = [float(run.outcomes("micro_iid", arm, seed, "1/4").mean()) for seed in run.seeds]
        found = point(comparison, arm)
        assert found["pass1"]["estimate"] == pytest.approx(statistics.mean(rates))
        assert found["pass1_sd"] == pytest.approx(statistics.stdev(rates))
        assert (found["seeds"], found["problems"]) == (3, 60)


def test_the_interval_is_that_of_a_mean_of_paired_differences(make_code: MakeCode) -> None:
    run = make_code(passes=at_random(0.5, [2]), sets={"micro_iid": 400}, seeds=(1, 2))
    found = difference(run.compare(resamples=4000))
    paired = np.mean(
        [
            run.outcomes("micro_iid", "sm", seed, "1/4").astype(float)
            - run.outcomes("micro_iid", "binary", seed, "1/4")
            for seed in run.seeds
        ],
        axis=0,
    )
    error = 1.96 * paired.std() / math.sqrt(len(paired))
    assert found["difference"]["estimate"] == pytest.approx(paired.mean())
    assert found["difference"]["low"] == pytest.approx(paired.mean() - error, abs=0.1 * error)
    assert found["difference"]["high"] == pytest.approx(paired.mean() + error, abs=0.1 * error)


def test_pairing_by_problem_narrows_what_both_models_share(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: 0.1, 2: 0.1}, sets={"micro_iid": 200}).compare()
    own, other = point(comparison, "sm")["pass1"], point(comparison, "binary")["pass1"]
    paired = difference(comparison)["difference"]
    unpaired = math.hypot(own["high"] - own["low"], other["high"] - other["low"])
    assert paired["high"] - paired["low"] < 0.75 * unpaired


def test_all_tests_means_the_base_ones_too() -> None:
    row = {"set": "s", "task_id": "t", "cell": "c", "solution": ""}
    rows = [VerdictRow.model_validate({**row, "base": base, "plus": "pass"}) for base in ("pass", "fail", None)]
    assert [r.passes(Part.PLUS) for r in rows] == [True, False, True]
    assert [r.passes(Part.BASE) for r in rows] == [True, False, None]


# Claims


def test_a_gain_in_every_seed_whose_interval_excludes_zero_is_claimed(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: 0.15, 2: 0.2}).compare()
    found = difference(comparison)
    assert found["verdict"] == "higher"
    assert found["difference"]["estimate"] == pytest.approx(0.175)
    assert [seed["seed"] for seed in found["seeds"]] == [1, 2]
    assert found["seeds_sd"] == pytest.approx(0.05 / math.sqrt(2))
    assert "micro_iid+: SM solves more problems than binary at 1/4, 1/2 and 1/1." in texts(comparison, "pass")


def test_a_loss_is_claimed_as_plainly_as_a_gain(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: -0.2, 2: -0.15}).compare()
    assert difference(comparison)["verdict"] == "lower"
    assert "micro_iid+: SM solves fewer problems than binary at 1/4, 1/2 and 1/1." in texts(comparison, "pass")


def test_seeds_that_disagree_give_no_claim(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: 0.35, 2: -0.05}).compare()
    found = difference(comparison)
    assert found["difference"]["low"] > 0
    assert (found["seeds_agree"], found["verdict"]) == (False, "can't be told apart")
    assert "seeds disagree at 1/4 +35.0 and \N{MINUS SIGN}5.0" in texts(comparison, "pass")


def test_seeds_without_any_difference_do_not_disagree(make_code: MakeCode) -> None:
    assert "disagree" not in texts(make_code(gain={1: 0.0, 2: 0.0}).compare(), "pass")


def test_an_interval_that_holds_zero_gives_no_claim(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: 0.02, 2: 0.02}).compare()
    assert difference(comparison)["verdict"] == "can't be told apart"
    assert "micro_iid+: SM can't be told apart from binary at 1/4, 1/2 and 1/1." in texts(comparison, "pass")


def test_few_problems_give_no_claim(make_code: MakeCode) -> None:
    comparison = make_code(gain={1: 0.4, 2: 0.4}, sets={"micro_iid": 8}).compare()
    assert difference(comparison)["verdict"] == "too few problems, no claim"
    assert "Sets of few problems: micro_iid (8); below 20 no difference is claimed." in texts(comparison, "limits")
    assert "SM has too few problems to be compared with binary at 1/4" in texts(comparison, "pass")


def test_a_closed_gate_is_said_and_nothing_is_compared(make_code: MakeCode) -> None:
    comparison = make_code(lam_mean=0.004).compare()
    assert difference(comparison)["verdict"] == "gate closed"
    assert "gate of SM (Dream) is closed in seed 1 and seed 2" in texts(comparison, "gate")
    assert "mean lambda 0.004 is under 0.05" in texts(comparison, "gate")
    assert "SM solves" not in texts(comparison, "pass")
    gates = json.loads(Path("reports/code_metrics.json").read_text())["code_gate"]
    assert gates["dream/sm-1"]["open"] is False


def test_the_gate_is_that_of_the_weights_that_were_kept(make_code: MakeCode) -> None:
    comparison = make_code(lam_mean=0.25).compare()
    gate = next(model["gate"] for model in comparison["models"] if model["arm"] == "sm")
    assert (gate["step"], gate["lam_mean"], gate["omegas"]["omega_s"]) == (40, 0.25, 0.7)
    assert gate["initial_omegas"]["omega_s"] == 0.5
    assert gate["loss_without"] - gate["loss"] == pytest.approx(0.125)
    assert [model["gate"] for model in comparison["models"] if model["arm"] != "sm"] == [None] * 3


def test_one_seed_is_said_to_be_one(make_code: MakeCode) -> None:
    comparison = make_code(seeds=(1,)).compare()
    assert difference(comparison)["seeds_sd"] is None
    assert "One seed of finetuning was run" in texts(comparison, "limits")


def test_without_a_binary_arm_soft_masking_is_compared_with_the_base_only(make_code: MakeCode) -> None:
    comparison = make_code(arms=("sm",)).compare()
    assert {d["reference"] for d in comparison["differences"]} == {"base", "nearest", "sm"}
    assert "There is no binary arm in this run" in texts(comparison, "limits")
    assert json.loads(Path("reports/code_disagreements.json").read_text()) == {"counts": [], "listed": []}


def test_the_base_is_held_against_the_nearest_training_example(make_code: MakeCode) -> None:
    comparison = make_code().compare()
    found = difference(comparison, arm="base", cell="1/1", reference="nearest", reference_cell="nearest")
    assert found["difference"]["estimate"] == pytest.approx(0.55 - 0.2)
    assert (
        "the base, at its best (1/1), solves more problems than answering with the nearest training example"
        in texts(comparison, "pass")
    )


def test_a_cache_is_held_against_the_same_steps_without(make_code: MakeCode) -> None:
    comparison = make_code().compare()
    found = difference(comparison, arm="sm", reference="sm", cell="1/2 dual", reference_cell="1/2")
    assert found["difference"]["estimate"] == pytest.approx(-0.05)
    assert "micro_iid+: SM with a cache solves fewer problems than without at 1/2 dual." in texts(comparison, "cache")


def test_a_cache_is_held_against_its_own_block_order_where_that_was_run() -> None:
    def info(name: str, cache: str, block: int | None, budget: str = "half") -> CellInfo:
        return CellInfo(name=name, budget=budget, cache=cache, block_length=block, sets=None)

    cells = [info("a", "none", None), info("b", "none", 8), info("c", "dual", 8), info("d", "dual", 16)]
    cells.append(info("e", "dual", 8, budget="a quarter"))
    assert [uncached(name, "set", cells) for name in "abcde"] == [None, None, "b", "a", None]


def test_empty_answers_are_said_from_the_share_of_params_on(make_code: MakeCode) -> None:
    assert "only end tokens" not in texts(make_code(empty=0.02).compare(), "limits")
    text = texts(make_code(empty=0.4).compare(), "limits")
    assert "Answers that are only end tokens count as wrong: up to 40.0 % (Dream, base, micro_iid at 1/4)." in text


# Files


def test_a_removed_seed_leaves_no_trace(make_code: MakeCode) -> None:
    stale = make_code(seeds=(1, 2, 3), gain={1: 0.1, 2: 0.1, 3: 0.9})
    stale.seeds = (1, 2)
    stale.compare()
    left = {path: path.read_bytes() for path in sorted(Path("reports").rglob("*")) if path.is_file()}
    for folder in ("data", "models", "reports"):
        shutil.rmtree(folder)
    make_code(seeds=(1, 2), gain={1: 0.1, 2: 0.1}).compare()
    assert left == {path: path.read_bytes() for path in sorted(Path("reports").rglob("*")) if path.is_file()}


def test_the_plots_are_the_points(make_code: MakeCode) -> None:
    comparison = make_code().compare()
    with Path("reports/code_plots/pass.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["pass1"]) for row in rows] == [p["pass1"]["estimate"] for p in comparison["points"]]
    assert {row["model"] for row in rows} >= {"dream sm micro_iid+ none", "dream sm micro_iid+ dual"}
    costs = {(row["cell"], row["arm"]): float(row["flops"] or 0) for row in rows if row["set"] == "micro_iid"}
    assert costs["1/2 dual", "sm"] == costs["1/2", "sm"] / 3
    assert costs["nearest", "nearest"] == 0


def test_the_headline_is_every_arm_at_every_cell(make_code: MakeCode) -> None:
    comparison = make_code().compare()
    numbers = json.loads(Path("reports/code_metrics.json").read_text())["code"]
    assert set(numbers) == {"dream", "nearest"}
    assert set(numbers["dream"]["sm"]["micro_iid"]) == {"1/4", "1/2", "1/1", "1/2 dual"}
    shown = numbers["dream"]["sm"]["micro_iid"]["1/4"]
    assert shown["pass1"] == point(comparison, "sm")["pass1"]["estimate"]
    assert shown["vs_binary"]["verdict"] == "higher"


def test_problems_that_one_arm_alone_solves_are_counted_and_some_listed(make_code: MakeCode) -> None:
    run = make_code(passes=at_random(0.5, [3]))
    run.compare(listed=2)
    found = json.loads(Path("reports/code_disagreements.json").read_text())
    own, other = (run.outcomes("micro_iid", arm, 1, "1/4") for arm in ("sm", "binary"))
    counted = found["counts"][0]
    assert (counted["set"], counted["cell"], counted["seed"]) == ("micro_iid", "1/4", 1)
    assert (counted["only_arm"], counted["only_reference"]) == (int((own & ~other).sum()), int((other & ~own).sum()))
    listed = [d for d in found["listed"] if (d["set"], d["cell"]) == ("micro_iid", "1/4")]
    wanted = [*np.flatnonzero(own & ~other)[:2], *np.flatnonzero(other & ~own)[:2]]
    assert [d["task_id"] for d in listed] == [f"micro_iid/{i}" for i in wanted]
    assert listed[0]["request"] == f"Write task {wanted[0]}."
    assert "sm-1" in listed[0]["arm"]["text"] and "binary-1" in listed[0]["reference"]["text"]
    assert {d["cell"] for d in found["listed"]} == {"1/4", "1/2", "1/1"}


def test_a_long_answer_is_cut_and_said_to_be(make_code: MakeCode) -> None:
    make_code(text="x" * 500).compare(answer_characters=100)
    listed = json.loads(Path("reports/code_disagreements.json").read_text())["listed"]
    assert {len(d["arm"]["text"]) for d in listed} == {100}
    assert min(d["arm"]["cut"] for d in listed) > 400


def test_a_run_without_families_has_an_empty_comparison(make_code: MakeCode) -> None:
    comparison = make_code(families=()).compare()
    assert (comparison["models"], comparison["findings"]) == ([], [])


def test_two_families_are_compared_each_for_itself(make_code: MakeCode) -> None:
    comparison = make_code(families=("dream", "dream_coder")).compare()
    assert [m["family"] for m in comparison["models"]] == ["dream"] * 5 + ["dream_coder"] * 5
    assert difference(comparison, family="dream") | {"family": ""} == difference(comparison, family="dream_coder") | {
        "family": ""
    }


def test_every_file_that_was_read_is_noted(make_code: MakeCode) -> None:
    inputs = make_code().compare()["inputs"]
    assert "data/code/scores/dream/sm-2/verdicts.jsonl" in inputs
    assert "data/code/samples/dream/base/costs.json" in inputs
    assert "models/dream/dream/sm-1/history.json" in inputs
    assert "data/code/problems/arithmetic.jsonl" in inputs
    assert set(STAGE.collections) == {"scores", "samples", "models", "problems"}


SCORES = Path("data/code/scores/dream")


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("sm-1/metrics.json", '"pass_plus": 0.4', '"pass_plus": 0.9', "of the verdicts pass plus, and 0.9"),
        ("sm-1/metrics.json", '"model": "sm-1"', '"model": "sm-2"', "is about dream/sm-2; expected dream/sm-1"),
        ("sm-1/metrics.json", '"problems": 60', '"problems": 61', "60 verdicts, 61 problems"),
        ("sm-1/verdicts.jsonl", '"micro_iid/0"', '"micro_iid/1"', "micro_iid/1 is there twice at cell '1/4'"),
        ("sm-1/verdicts.jsonl", '"base": "pass"', '"base": "good"', "verdicts.jsonl, line"),
        ("sm-1/verdicts.jsonl", '"micro_iid/0"', '"micro_iid/60"', "dream/sm-1 was scored on other problems"),
    ],
)
def test_scores_that_disagree_with_themselves_are_named(
    make_code: MakeCode, name: str, old: str, new: str, message: str
) -> None:
    run = make_code()
    _edit(SCORES / name, old, new)
    with pytest.raises(InputError) as caught:
        run.compare()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "data/code/scores/dream/sm-1/verdicts.jsonl",
        "data/code/scores/nearest/train/metrics.json",
        "data/code/samples/dream/base/costs.json",
        "models/dream/dream/binary-2/history.json",
        "data/code/problems/micro_new.jsonl",
    ],
)
def test_a_missing_file_is_named(make_code: MakeCode, path: str) -> None:
    run = make_code()
    Path(path).unlink()
    with pytest.raises(InputError, match="the file is missing") as caught:
        run.compare()
    assert path in str(caught.value)


def test_a_model_that_lacks_a_cell_is_named(make_code: MakeCode) -> None:
    run = make_code()
    run.cells = CELLS[:2]
    run.write_model("dream", "sm", 2)
    run.cells = CELLS
    with pytest.raises(InputError, match="dream/sm-2 was scored on other problems or cells than dream/base"):
        run.compare()


def test_the_stage_loads_no_model_library() -> None:
    code = "import sys, stages.code_compare; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
