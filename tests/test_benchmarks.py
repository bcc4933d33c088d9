"""What benchmarks share: rows, their file, and the plain way that MDLM's steps are compared with."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from artifacts.files import read_json
from benchmarks import __main__ as command
from benchmarks import lineage, mdlm, naive
from benchmarks.table import MIB, Cost, Measured, peak_mib
from softmask.training.soft_mask_objective import SoftMaskObjective

SMALL = replace(mdlm.TINY, batch=2, turns=(1, 1, 1))


def test_a_row_says_what_is_compared_and_nothing_that_was_not_measured() -> None:
    row = Measured("a", Cost(1.0, 30.0), "b", Cost(2.0, 20.0), at_most=0.4)
    assert row.row() == {
        "name": "a",
        "against": "b",
        "ratio": 0.5,
        "seconds": 1.0,
        "against_seconds": 2.0,
        "peak_mib": 30.0,
        "against_peak_mib": 20.0,
    }
    assert row.aim == "<= 0.4, missed" and replace(row, at_most=0.5).aim == "<= 0.5, met"
    assert Measured("memory", Cost(None, 30.0), "b", Cost(None, 20.0)).ratio == 1.5
    alone = Measured("a", Cost(1.0))
    assert alone.aim == "" and [alone.row()[key] for key in ("against", "ratio", "against_seconds")] == [None] * 3


def test_a_benchmark_that_runs_again_replaces_its_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "REPORT", tmp_path / "bench.json")
    command.keep([Measured("a", Cost(1.0), "b", Cost(1.0)), Measured("a", Cost(1.0), "c", Cost(1.0))])
    command.keep([Measured("a", Cost(3.0), "b", Cost(1.0))])
    assert [(row["against"], row["ratio"]) for row in read_json(command.REPORT)] == [("c", 1.0), ("b", 3.0)]


def test_the_peak_is_what_is_held_at_once() -> None:
    def task() -> None:
        for _ in range(2):
            torch.zeros(3, MIB // 4)
        torch.zeros(2, MIB // 4)

    assert peak_mib(task) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("two_pass", [False, True])
def test_the_plain_way_has_the_same_loss_and_gradients(two_pass: bool) -> None:
    model = mdlm.make_model(SMALL)
    x0, x_t = mdlm.masked_tokens(model.config, 2, mdlm.T)
    t = torch.full((2,), mdlm.T)
    names, weights = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
    ours = SoftMaskObjective(model, mdlm.LogLinear(0.0), 16)(x0, x_t, t, two_pass)
    plain = naive.loss(model, x0, x_t, t, two_pass)
    torch.testing.assert_close(ours, plain)
    made = [torch.autograd.grad(loss, weights, allow_unused=not two_pass) for loss in (ours, plain)]
    for name, a, b in zip(names, *made, strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_the_steps_that_are_measured_compare_as_the_issue_names_them() -> None:
    rows = mdlm.training(SMALL, mdlm.make_model(SMALL)) + mdlm.sampling(SMALL, mdlm.make_model(SMALL))
    pairs = {(row.name, row.against) for row in rows}
    assert len(pairs) == len(rows)
    assert ("tiny training step SM", "tiny binary step") in pairs
    assert ("tiny sampling step SM, masked 0.5", "tiny forward with head") in pairs
    assert all(row.ratio and row.cost.peak_mib for row in rows)


def test_the_experiments_that_lineage_is_measured_on_are_whole(tmp_path: Path) -> None:
    assert all(seconds > 0 for seconds in lineage._many(tmp_path / "project", 2).values())  # a failure raises
