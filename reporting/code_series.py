"""The code study's plots that DVC shows, and its numbers for `dvc metrics show`: small, stable files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reporting.code_labels import measure
from reporting.code_schema import CodeComparison, CodePoint
from reporting.schema import REFERENCE_ARM
from reporting.series import GATE, LOSS, Row, history_rows, write_csv

PASS = (
    *("model", "family", "arm", "set", "part", "cell", "cache", "problems", "seeds", "pass1", "pass1_sd"),
    *("forwards", "positions", "flops", "tokens", "empty_share"),
)
VALIDATION = ("model", "step", "eval_loss", "eval_loss_binary")


def write_code_plots(
    folder: Path, comparison: CodeComparison, histories: Mapping[str, Sequence[Row]], points: int
) -> None:
    """Write `pass.csv` (pass@1 against forwards, positions and FLOPs), `loss.csv`, `validation.csv` and `gate.csv`.

    Args:
        histories: `family/model` -> its training's records.
        points: most records of a history.
    """
    caches = {cell.name: cell.cache for cell in comparison.cells}
    rows = [_row(point, caches.get(point.cell, "")) for point in comparison.points]
    write_csv(folder / "pass.csv", PASS, rows)
    write_csv(folder / "loss.csv", LOSS, history_rows(histories, "loss", points))
    write_csv(folder / "validation.csv", VALIDATION, history_rows(histories, "eval_loss", points))
    write_csv(folder / "gate.csv", GATE, history_rows(histories, "omega_s", points))


def _row(point: CodePoint, cache: str) -> Row:
    # `model` is what the plots colour by: one line a family, arm, benchmark and cache
    model = " ".join(filter(None, (point.family, point.arm, measure(point.set, point.part), cache)))
    values = point.model_dump(mode="json", exclude={"pass1"})
    return {**values, "model": model, "cache": cache, "pass1": point.pass1.estimate}


def code_headline(comparison: CodeComparison) -> dict[str, Any]:
    """The few numbers that `dvc metrics show` and `dvc exp show` have room for, under family, arm, set and cell."""
    numbers: dict[str, Any] = {}
    for point in comparison.points:
        if point.part is comparison.headline(point.set):
            cell: dict[str, Any] = {
                "pass1": point.pass1.estimate,
                "pass1_low": point.pass1.low,
                "pass1_high": point.pass1.high,
                "forwards": point.forwards,
                "empty_share": point.empty_share,
            }
            _at(numbers, point.family, point.arm, point.set)[point.cell] = cell
    for difference in comparison.differences:
        own = difference.part is comparison.headline(difference.set)
        if own and difference.reference == REFERENCE_ARM != difference.arm:
            own_cell = _at(numbers, difference.family, difference.arm, difference.set, difference.cell)
            own_cell["vs_binary"] = {**difference.difference.model_dump(), "verdict": str(difference.verdict)}
    gates = {
        f"{row.family}/{row.model}": {
            "open": row.gate.open,
            "lam_mean": row.gate.lam_mean,
            "omega_s": row.gate.omegas.omega_s,
        }
        for row in comparison.models
        if row.gate is not None
    }
    return {"code": numbers, "code_gate": gates}


def _at(tree: dict[str, Any], *path: str) -> dict[str, Any]:
    for key in path:
        tree = tree.setdefault(key, {})
    return tree
