"""The plots that DVC shows: small, stable CSV files with one row a record and the model or arm as a column."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.files import write_text
from reporting.schema import CurvePoint

LOSS = ("model", "step", "loss")
GATE = ("model", "step", "omega_s", "omega_a", "omega_b", "lam_mean", "lam_std", "lam_confident", "lam_unsure")
GENERATION = ("model", "arm", "sampler", "nfe", "real_nfe", "gen_ppl", "entropy", "mauve")

Row = dict[str, Any]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows with exactly these columns; what a row lacks stays empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if row.get(name) is None else row[name] for name in columns} for row in rows)
    write_text(path, buffer.getvalue())


def thinned(records: Sequence[Row], points: int) -> list[Row]:
    """At most `points` of the records, evenly spaced, first and last included."""
    return [records[i] for i in thinned_indices(len(records), points)]


def thinned_indices(length: int, points: int) -> list[int]:
    """At most `points` (2 and more) of the indices 0 .. length - 1, evenly spaced, first and last included."""
    if length <= points:
        return list(range(length))
    return [round(i * (length - 1) / (points - 1)) for i in range(points)]


def history_rows(histories: Mapping[str, Sequence[Row]], column: str, points: int) -> list[Row]:
    """The records that have `column`, of each model, thinned."""
    found = []
    for model, history in histories.items():
        records = [record for record in history if record.get(column) is not None]
        found += [{"model": model, **record} for record in thinned(records, points)]
    return found


class ReadRow(dict[str, str]):
    """A row as it was read."""

    def __init__(self, values: Mapping[str, str], place: str) -> None:
        super().__init__(values)
        self.place = place
        """`PATH:INDEX`, counted from 0 after the heading."""


def read_csv(path: Path) -> list[ReadRow]:
    """The rows of a file that `write_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [ReadRow(row, f"{path.as_posix()}:{index}") for index, row in enumerate(csv.DictReader(file))]


def curve_rows(curves: Sequence[CurvePoint]) -> list[Row]:
    """Generation curves; `model` is arm and sampler here, since it is what the plots colour by."""
    return [{"model": f"{point.arm} {point.sampler}", **point.model_dump()} for point in curves]


def write_plots(
    folder: Path,
    histories: Mapping[str, Sequence[Row]],
    judge: Sequence[Row],
    curves: Sequence[CurvePoint],
    points: int,
) -> None:
    """Write `loss.csv`, `gate.csv`, `judge.csv` and `generation.csv`."""
    write_csv(folder / "loss.csv", LOSS, history_rows(histories, "loss", points))
    write_csv(folder / "gate.csv", GATE, history_rows(histories, "omega_s", points))
    write_csv(folder / "judge.csv", LOSS, history_rows({"judge": judge}, "loss", points))
    write_csv(folder / "generation.csv", GENERATION, curve_rows(curves))
