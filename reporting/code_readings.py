"""Reads what the code comparison is made from: scores, verdicts, costs and histories of exactly the named models.

Knows no statistics. A file that is missing, torn, or about other problems is the user's to mend.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.files import read_lines
from artifacts.manifest import Environment, Manifest
from reporting.code_schema import (
    NEAREST,
    NEAREST_MODEL,
    CodeMetrics,
    GenerationCosts,
    Part,
    ScoredCell,
    VerdictRow,
)
from reporting.readings import Reader, instances, parse
from reporting.schema import Cost
from softmask.errors import InputError

FIELDS = ("set", "task_id", "cell", "solution", "base", "plus")
RATE_AGREEMENT = 1e-9
"""metrics.json states a share of the verdicts' passes."""

Place = tuple[str, str]
"""A problem set and a cell."""


@dataclass(frozen=True)
class CodeInstance:
    """A model that params name: a family's base, or an arm and a seed; or the nearest-example baseline."""

    family: str
    model: str
    arm: str
    seed: int | None


@dataclass(frozen=True)
class Outcomes:
    """Which problems of one set at one cell a model solves."""

    task_ids: tuple[str, ...]
    """Sorted."""
    passes: Mapping[Part, NDArray[np.float64]]
    """float64 [U] of 0 and 1, in the order of `task_ids`; a part that the set lacks isn't there."""
    scored: ScoredCell


@dataclass(frozen=True)
class CodeReading:
    """All that is read about one model."""

    instance: CodeInstance
    outcomes: Mapping[Place, Outcomes]
    generation: GenerationCosts | None
    training: Cost | None
    history: Sequence[Mapping[str, Any]]
    environment: Environment | None


def code_instances(families: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> list[CodeInstance]:
    """Each family's base, then every arm with every seed, in the order of params."""
    return [
        CodeInstance(family, model.name, model.arm, model.seed)
        for family in families
        for model in instances(arms, seeds)
    ]


def read_code_model(reader: Reader, instance: CodeInstance, inputs: Mapping[str, Path]) -> CodeReading:
    """Scores, costs, history and environment of one model.

    Args:
        inputs: the folders `scores`, `samples` and `models`, each with `{family}/{model}`.

    Raises:
        InputError: a file is missing or torn, or files of one model disagree.
    """
    place = Path(instance.family) / instance.model
    samples, model = inputs["samples"] / place, inputs["models"] / place
    return CodeReading(
        instance=instance,
        outcomes=read_outcomes(reader, inputs["scores"] / place, instance),
        generation=reader.record(samples / "costs.json", GenerationCosts),
        training=reader.record(model / "costs.json", Cost),
        history=read_history(reader, model / "history.json"),
        environment=reader.record(samples / "manifest.json", Manifest).environment,
    )


def read_nearest(reader: Reader, scores: Path) -> CodeReading:
    """The baseline that answers with the nearest training example; it has no model and costs nothing.

    Raises:
        InputError: its scores are missing or torn.
    """
    instance = CodeInstance(NEAREST, NEAREST_MODEL, NEAREST, None)
    outcomes = read_outcomes(reader, scores / NEAREST / NEAREST_MODEL, instance)
    return CodeReading(instance, outcomes, None, None, (), None)


def read_history(reader: Reader, path: Path) -> list[dict[str, Any]]:
    """The records of a training.

    Raises:
        InputError: the file is missing or holds no list of records.
    """
    history = reader.json(path)
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise InputError("it holds no list of records", where=str(path))
    return history


def read_verdicts(path: Path) -> Iterator[VerdictRow]:
    """The lines of a `verdicts.jsonl`.

    Raises:
        InputError: the file is missing, or names the line that is wrong.
    """
    for number, row in enumerate(read_lines(path, FIELDS), start=1):
        yield parse(row, VerdictRow, Path(f"{path}, line {number}"))


def read_outcomes(reader: Reader, folder: Path, instance: CodeInstance) -> dict[Place, Outcomes]:
    """What a model solves, its verdicts checked against the metrics that were written beside them.

    Raises:
        InputError: a file is missing or torn, is another model's, or has a problem twice; or the two disagree.
    """
    file = folder / "metrics.json"
    metrics = reader.record(file, CodeMetrics)
    if (metrics.family, metrics.model) != (instance.family, instance.model):
        where, expected = str(file), f"{instance.family}/{instance.model}"
        raise InputError(f"is about {metrics.family}/{metrics.model}", where=where, expected=expected)
    verdicts = folder / "verdicts.jsonl"
    rows: dict[Place, dict[str, VerdictRow]] = {}
    for row in read_verdicts(verdicts):
        known = rows.setdefault((row.set, row.cell), {})
        if row.task_id in known:
            raise InputError(f"{row.task_id} is there twice at cell {row.cell!r}", where=str(verdicts))
        known[row.task_id] = row
    reader.note(verdicts)
    places = {(cell.set, cell.cell): cell for cell in metrics.cells}
    if set(places) != set(rows):
        odd = sorted(set(places) ^ set(rows))[0]
        raise _disagree(f"set {odd[0]!r} at cell {odd[1]!r} is in one of the two only", file, verdicts)
    return {place: _outcomes(rows[place], cell, file, verdicts) for place, cell in places.items()}


def _outcomes(rows: Mapping[str, VerdictRow], scored: ScoredCell, file: Path, verdicts: Path) -> Outcomes:
    where = f"set {scored.set!r} at cell {scored.cell!r}"
    if len(rows) != scored.problems:
        raise _disagree(f"{where}: {len(rows)} verdicts, {scored.problems} problems", file, verdicts)
    task_ids = tuple(sorted(rows))
    passes: dict[Part, NDArray[np.float64]] = {}
    for part in Part:
        values = [rows[task_id].passes(part) for task_id in task_ids]
        stated = scored.rate(part)
        if None in values:
            if stated is not None or set(values) != {None}:
                raise _disagree(f"{where}: verdicts without {part}", file, verdicts)
            continue
        passes[part] = np.array(values, dtype=np.float64)
        found = float(passes[part].mean())
        if stated is None or abs(found - stated) > RATE_AGREEMENT:
            raise _disagree(f"{where}: {found:.6f} of the verdicts pass {part}, and {stated} is stated", file, verdicts)
    return Outcomes(task_ids, passes, scored)


def _disagree(what: str, file: Path, verdicts: Path) -> InputError:
    todo = "Make both again: dvc repro -f"
    return InputError(what, where=str(file), expected=f"what {verdicts.name} beside it says", todo=todo)


def check_same_problems(readings: Sequence[CodeReading]) -> None:
    """Hold all models to the same problems, sets and cells, without which no difference is paired.

    Args:
        readings: of models that params name; the nearest-example baseline may have fewer sets.

    Raises:
        InputError: names the first model that was scored on something else than the first one.
    """
    first = readings[0]
    expected = {place[0]: outcomes.task_ids for place, outcomes in first.outcomes.items()}
    for reading in readings:
        nearest = reading.instance.arm == NEAREST
        odd = [place for place, outcomes in reading.outcomes.items() if expected.get(place[0]) != outcomes.task_ids]
        odd += [] if nearest else sorted(set(first.outcomes) ^ set(reading.outcomes))
        if odd:
            own, other = (f"{r.instance.family}/{r.instance.model}" for r in (reading, first))
            raise InputError(
                f"{own} was scored on other problems or cells than {other}: {odd[0][0]} at {odd[0][1]}",
                expected="all models on the same ones",
                todo="Make the scores again: dvc repro -f",
            )
