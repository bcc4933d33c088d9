"""The speed stage: its counts are those of the answers, its times are spreads, and its page shows them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.section import validate
from softmask.backbones.dream_adapter import save_adapter
from softmask.errors import InputError
from stages import code_generate, speed
from stages.params.code.speed import SpeedParams
from tests.stages.test_code_generate import write

SPEED: dict[str, Any] = {
    **{"set": "micro_iid", "count": 3, "batch_size": 2, "arms": ["sm"], "seed": 1},
    **{"cells": ["1/2", "1/2 dual"], "warm_up": 1, "repeats": 3},
}
REPORT = Path("reports/speed.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny family with an arm `sm`; the current folder."""
    monkeypatch.chdir(write(tmp_path))
    stages: dict[str, Any] = {name: {"deps": []} for name in ("code_generate", "speed")}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    return tmp_path


def measure(**changes: Any) -> dict[str, Any]:
    """Run the stage here; its report."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["code"] |= {"families": ["tiny"], "speed": {**SPEED, **changes}}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    speed.STAGE.execute({})
    report: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8"))
    return report


def test_counts_are_those_of_the_same_answers(folder: Path) -> None:
    (family,) = measure()["families"]
    rows = {(row["cell"], row["model"]): row for row in family["rows"]}
    assert list(rows) == [(cell, model) for cell in SPEED["cells"] for model in ("base", "sm-1")]
    for model in ("base", "sm-1"):
        code_generate.STAGE.execute({"family": "tiny", "model": model})
        lines = Path(f"data/code/samples/tiny/{model}/samples.jsonl").read_text(encoding="utf-8").splitlines()
        for cell in SPEED["cells"]:
            answers = [json.loads(line) for line in lines]
            own = [a for a in answers if (a["set"], a["cell"]) == ("micro_iid", cell)][: SPEED["count"]]
            for name in ("tokens", "forwards", "positions"):
                assert rows[cell, model][name] == sum(answer[name] for answer in own)


def test_times_are_medians_within_their_spread_and_belong_together(folder: Path) -> None:
    (family,) = measure()["families"]
    for row in family["rows"]:
        for name in ("seconds", "tokens_per_second", "forward_ms"):
            assert 0 < row[name]["lowest"] <= row[name]["median"] <= row[name]["highest"]
        seconds = row["seconds"]["median"]
        assert row["tokens_per_second"]["median"] == pytest.approx(row["tokens"] / seconds)
        assert row["forward_ms"]["median"] == pytest.approx(1000 * seconds / row["forwards"])


def test_models_are_compared_with_the_binary_arm_where_there_is_one(folder: Path) -> None:
    (family,) = measure()["families"]
    assert {row["against_binary"] for row in family["rows"]} == {None}
    save_adapter(folder / "models/dream/tiny/binary-1/adapter", None, None)
    (family,) = measure(arms=["sm", "binary"])["families"]
    times = {(row["cell"], row["model"]): row["forward_ms"]["median"] for row in family["rows"]}
    for row in family["rows"]:
        assert row["against_binary"] == times[row["cell"], row["model"]] / times[row["cell"], "binary-1"]


def test_the_page_shows_every_row_and_says_what_is_counted(folder: Path) -> None:
    report = measure()
    page = Path("reports/speed.html").read_text(encoding="utf-8")
    families = report["families"]
    assert page.count("<tr><td>") == sum(len(family["rows"]) + len(family["drifts"]) for family in families)
    assert "response tokens only" in page and "the first 3 problems" in page
    assert "src=" not in page and "href=" not in page


def test_each_cached_cell_says_how_far_it_drifts_and_the_others_do_not(folder: Path) -> None:
    (family,) = measure()["families"]
    assert [(row["cell"], row["model"]) for row in family["drifts"]] == [("1/2 dual", "base"), ("1/2 dual", "sm-1")]
    for row in family["drifts"]:
        assert row["problems"] == SPEED["batch_size"] and row["positions"] > 0
        assert 0 < row["kl"] <= row["largest_kl"] and 0 <= row["changed"] <= 1 and 0 <= row["agreement"] <= 1
    assert "exactness" in Path("reports/speed.html").read_text(encoding="utf-8")
    (family,) = measure(cells=["1/2"])["families"]
    assert family["drifts"] == [] and "exactness" not in Path("reports/speed.html").read_text(encoding="utf-8")


def test_what_was_read_is_recorded_by_hash(folder: Path) -> None:
    measure()
    manifest = json.loads(Path("reports/manifests/speed/manifest.json").read_text(encoding="utf-8"))
    family = "models/dream/tiny"
    parts = ("tokenizer", "base/model", "base/adapter", "sm-1/adapter")
    wanted = {"data/check/valid.json", "data/code/problems/micro_iid.jsonl", *(f"{family}/{part}" for part in parts)}
    assert set(manifest["inputs"]) == wanted


def test_too_few_problems_are_named(folder: Path) -> None:
    with pytest.raises(InputError, match="count 9 is more than the 5 problems of micro_iid"):
        measure(count=9)


def test_a_cell_that_is_not_for_the_set_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="arithmetic is not answered at '1/2 dual'; expected some of 1/2, 1/1"):
        measure(set="arithmetic")
    assert not REPORT.exists()


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(InputError, match="names one twice"):
        validate(SpeedParams, {**SPEED, "cells": ["1/2", "1/2"]}, "params.yaml")
