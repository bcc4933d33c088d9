"""The problems that only one of two arms solves: counted for every set and cell, some listed with answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.files import read_lines
from reporting.code_readings import CodeInstance, read_verdicts
from reporting.code_schema import (
    Answer,
    CodeComparison,
    Disagreement,
    DisagreementCount,
    Disagreements,
    Part,
    VerdictRow,
)
from reporting.params.code_compare import CodeCompareParams
from reporting.readings import Reader
from reporting.schema import REFERENCE_ARM

Verdicts = Mapping[tuple[str, str], Mapping[str, VerdictRow]]
"""(set, cell) -> task id -> verdict of one model."""


def disagreements(
    reader: Reader, comparison: CodeComparison, params: CodeCompareParams, scores: Path, problems: Path
) -> Disagreements:
    """Where each soft-masked arm and the binary arm differ, at the first seed and the cells without cache.

    Args:
        scores: the folder with `{family}/{model}/verdicts.jsonl`.
        problems: the folder with `{set}.jsonl`.

    Raises:
        InputError: a file is missing or torn.
    """
    counts: list[DisagreementCount] = []
    listed: list[Disagreement] = []
    if REFERENCE_ARM not in comparison.arms:
        return Disagreements(counts=counts, listed=listed)
    requests = read_requests(reader, problems, comparison.sets)
    seed = comparison.seeds[0]
    plain = {cell.name for cell in comparison.cells if cell.plain}
    for family in comparison.families:
        reference = CodeInstance(family, f"{REFERENCE_ARM}-{seed}", REFERENCE_ARM, seed)
        others = _verdicts(scores, reference)
        for arm in comparison.arms:
            if arm == REFERENCE_ARM:
                continue
            instance = CodeInstance(family, f"{arm}-{seed}", arm, seed)
            for (name, cell), rows in _verdicts(scores, instance).items():
                if cell in plain:
                    differ = _Differ(instance, reference, name, cell, comparison.headline(name), params)
                    counted, found = differ.between(rows, others[name, cell], requests[name])
                    counts.append(counted)
                    listed += found
    return Disagreements(counts=counts, listed=listed)


def read_requests(reader: Reader, folder: Path, sets: Sequence[str]) -> dict[str, dict[str, str]]:
    """What each problem of these sets asks: set -> task id -> request.

    Raises:
        InputError: a set's file is missing or torn.
    """
    found = {}
    for name in sets:
        file = folder / f"{name}.jsonl"
        found[name] = {row["task_id"]: row["request"] for row in read_lines(file, ("task_id", "request"))}
        reader.note(file)
    return found


def _verdicts(scores: Path, instance: CodeInstance) -> dict[tuple[str, str], dict[str, VerdictRow]]:
    found: dict[tuple[str, str], dict[str, VerdictRow]] = {}
    for row in read_verdicts(scores / instance.family / instance.model / "verdicts.jsonl"):
        found.setdefault((row.set, row.cell), {})[row.task_id] = row
    return found


class _Differ:
    """Two models at one set and cell."""

    def __init__(
        self,
        instance: CodeInstance,
        reference: CodeInstance,
        name: str,
        cell: str,
        part: Part,
        params: CodeCompareParams,
    ) -> None:
        self._instance, self._reference, self._name, self._cell = instance, reference, name, cell
        self._part, self._params = part, params

    def between(
        self, rows: Mapping[str, VerdictRow], others: Mapping[str, VerdictRow], requests: Mapping[str, str]
    ) -> tuple[DisagreementCount, list[Disagreement]]:
        """The count, and the first `listed` problems of each direction, as the set has them: none is chosen."""
        tasks = [task for task in requests if task in rows]
        won = [task for task in tasks if self._passes(rows[task]) and not self._passes(others[task])]
        lost = [task for task in tasks if self._passes(others[task]) and not self._passes(rows[task])]
        counted = DisagreementCount(
            family=self._instance.family,
            set=self._name,
            part=self._part,
            cell=self._cell,
            arm=self._instance.arm,
            seed=self._instance.seed or 0,
            problems=len(rows),
            only_arm=len(won),
            only_reference=len(lost),
        )
        shown = won[: self._params.listed] + lost[: self._params.listed]
        return counted, [self._listed(rows[task], others[task], requests[task]) for task in shown]

    def _passes(self, row: VerdictRow) -> bool:
        return bool(row.passes(self._part))

    def _listed(self, row: VerdictRow, other: VerdictRow, request: str) -> Disagreement:
        return Disagreement(
            family=self._instance.family,
            set=self._name,
            part=self._part,
            cell=self._cell,
            task_id=row.task_id,
            request=request,
            arm=self._answer(self._instance, row),
            reference=self._answer(self._reference, other),
        )

    def _answer(self, instance: CodeInstance, row: VerdictRow) -> Answer:
        status = row.base if self._part is Part.BASE or row.plus is None else row.plus
        if self._part is Part.PLUS and row.base is not None and not row.passes(Part.BASE):
            status = row.base
        characters = self._params.answer_characters
        return Answer(
            arm=instance.arm,
            seed=instance.seed,
            passes=self._passes(row),
            status=str(status),
            text=row.solution[:characters],
            cut=max(0, len(row.solution) - characters),
        )
