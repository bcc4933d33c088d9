"""The rules of comparison in pass@1: points over seeds, paired differences, and whether a gate is open.

Numbers only; sentences are in `code_findings`. All intervals of a set come from one joint resampling of its problems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reporting.code_readings import CodeReading, Place
from reporting.code_schema import (
    NEAREST,
    CellInfo,
    CodeDifference,
    CodeGate,
    CodeModelRow,
    CodePoint,
    CodeVerdict,
    CostShares,
    Part,
    SeedRate,
)
from reporting.labels import add_costs, number
from reporting.params.code_compare import CodeCompareParams
from reporting.schema import BASE, REFERENCE_ARM, Cost, Omegas, Span
from softmask.evaluation.intervals import JointBootstrap, joint_bootstrap, same_sign, spread

PROBLEMS = "problems"
"""The column that counts problems."""


def column(reading: CodeReading, cell: str, part: Part) -> str:
    """The name of a model's column, at a cell and on a part of the tests, in its set's joint table."""
    return f"{reading.instance.family}/{reading.instance.model}/{cell}/{part}"


def gate_of(reading: CodeReading, gate_lam: float) -> CodeGate | None:
    """Open if lambda reaches the threshold where the kept weights were measured; None without a soft mask.

    The kept weights are those of the lowest evaluation loss after the start (paper: best checkpoint).
    """
    measured = [record for record in reading.history if record.get("lam_mean") is not None]
    if not measured:
        return None
    kept = min(measured[1:] or measured, key=lambda record: float(record["eval_loss"]))
    lam = float(kept["lam_mean"])
    return CodeGate(
        open=lam >= gate_lam,
        reason=f"mean lambda {number(lam, 3)} {'reaches' if lam >= gate_lam else 'is under'} {gate_lam:g}",
        step=kept["step"],
        lam_mean=lam,
        lam_std=kept["lam_std"],
        omegas=Omegas.model_validate(kept),
        initial_omegas=Omegas.model_validate(measured[0]),
        loss=kept["eval_loss"],
        loss_without=kept["eval_loss_binary"],
    )


@dataclass(frozen=True)
class CodeComparer:
    """All models on the same resampled problems of each set."""

    readings: Sequence[CodeReading]
    cells: Sequence[CellInfo]
    tables: Mapping[str, JointBootstrap]
    """Problem set -> the joint resampling of its problems."""
    params: CodeCompareParams

    @classmethod
    def of(
        cls, readings: Sequence[CodeReading], cells: Sequence[CellInfo], params: CodeCompareParams
    ) -> "CodeComparer":
        """Resample each set's problems once for all models."""
        tables: dict[str, dict[str, np.ndarray]] = {}
        for reading in readings:
            for (name, cell), outcomes in reading.outcomes.items():
                table = tables.setdefault(name, {PROBLEMS: np.ones(len(outcomes.task_ids))})
                table |= {column(reading, cell, part): passes for part, passes in outcomes.passes.items()}
        resampled = {
            name: joint_bootstrap(table, params.resamples, params.level, params.seed) for name, table in tables.items()
        }
        return cls(readings, cells, resampled, params)

    def models_of(self, family: str, arm: str) -> list[CodeReading]:
        """The models of a family's arm, in the order of the seeds."""
        return [r for r in self.readings if (r.instance.family, r.instance.arm) == (family, arm)]

    def rate(self, weights: Mapping[str, float], name: str) -> Span:
        """A linear combination of pass@1 of columns of a set."""
        return Span.of(self.tables[name].ratio(weights, PROBLEMS))

    def model_row(self, reading: CodeReading) -> CodeModelRow:
        """One model's gate and costs."""
        instance, generation = reading.instance, None
        if reading.generation is not None:
            cells = reading.generation.cells
            generation = add_costs([Cost(forwards=cell.forwards, flops=cell.flops) for cell in cells])
        return CodeModelRow(
            family=instance.family,
            model=instance.model,
            arm=instance.arm,
            seed=instance.seed,
            gate=gate_of(reading, self.params.gate_lam),
            training=reading.training,
            generation=generation,
        )

    def points(self, family: str, arm: str) -> list[CodePoint]:
        """An arm over its seeds, at everything that it was scored on."""
        models = self.models_of(family, arm)
        return [
            self._point(models, place, part)
            for place, outcomes in (models[0].outcomes.items() if models else ())
            for part in outcomes.passes
        ]

    def _point(self, models: Sequence[CodeReading], place: Place, part: Part) -> CodePoint:
        name, cell = place
        scored = [model.outcomes[place].scored for model in models]
        rates = [float(model.outcomes[place].passes[part].mean()) for model in models]
        return CodePoint(
            family=models[0].instance.family,
            arm=models[0].instance.arm,
            set=name,
            part=part,
            cell=cell,
            seeds=len(models),
            problems=scored[0].problems,
            pass1=self.rate({column(model, cell, part): 1 / len(models) for model in models}, name),
            pass1_sd=spread(rates),
            empty_share=_mean([row.empty_share for row in scored]),
            tokens=_mean([row.tokens_mean for row in scored]),
            **_spent(models, place),
        )

    def differences(self, families: Sequence[str], arms: Sequence[str]) -> list[CodeDifference]:
        """At each place: soft-masked arms against binary, arms against the base, the base against the nearest example.

        Then, at each place with a cache, every arm and the base against itself without one.
        """
        found = []
        for family in families:
            for arm in arms if REFERENCE_ARM in arms else ():
                found += self._against(family, arm, REFERENCE_ARM) if arm != REFERENCE_ARM else []
            for arm in arms:
                found += self._against(family, arm, BASE)
            found += self._against_nearest(family)
            for arm in (BASE, *arms):
                found += self._against_uncached(family, arm)
        return found

    def _against(self, family: str, arm: str, reference: str) -> list[CodeDifference]:
        models, others = self.models_of(family, arm), self.models_of(family, reference)
        by_seed = {other.instance.seed: other for other in others}
        paired = [(model, by_seed[None if reference == BASE else model.instance.seed]) for model in models]
        return [
            self.difference(paired, name, part, (cell, cell))
            for (name, cell), outcomes in models[0].outcomes.items()
            for part in outcomes.passes
        ]

    def _against_nearest(self, family: str) -> list[CodeDifference]:
        base = self.models_of(family, BASE)[0]
        return [
            self.difference([(base, nearest)], name, part, (cell, other))
            for nearest in self.models_of(NEAREST, NEAREST)
            for name, other in nearest.outcomes
            for (own, cell), outcomes in base.outcomes.items()
            if own == name
            for part in outcomes.passes
        ]

    def _against_uncached(self, family: str, arm: str) -> list[CodeDifference]:
        models = self.models_of(family, arm)
        found = []
        for name, cell in models[0].outcomes:
            partner = uncached(cell, name, self.cells)
            if partner is not None:
                paired = [(model, model) for model in models]
                parts = models[0].outcomes[name, cell].passes
                costs = _shares(_spent(models, (name, cell)), _spent(models, (name, partner)))
                found += [
                    self.difference(paired, name, part, (cell, partner)).model_copy(update={"costs": costs})
                    for part in parts
                ]
        return found

    def difference(
        self, paired: Sequence[tuple[CodeReading, CodeReading]], name: str, part: Part, cells: tuple[str, str]
    ) -> CodeDifference:
        """pass@1 of models minus that of their references, paired by problem, the mean over seeds first.

        Args:
            paired: each seed's model and its reference.
            cells: of the models and of the references.
        """
        seeds, mean = [], dict[str, float]()
        for model, reference in paired:
            weights = {column(model, cells[0], part): 1.0, column(reference, cells[1], part): -1.0}
            for key, weight in weights.items():
                mean[key] = mean.get(key, 0.0) + weight / len(paired)
            seeds.append(SeedRate(seed=model.instance.seed, difference=self.rate(weights, name)))
        first, reference = paired[0]
        overall = self.tables[name].ratio(mean, PROBLEMS)
        estimates = [seed.difference.estimate for seed in seeds]
        agree = same_sign(estimates)
        problems = first.outcomes[name, cells[0]].scored.problems
        gates = [gate_of(model, self.params.gate_lam) for model, _ in paired] if cells[0] == cells[1] else []
        verdict = CodeVerdict.UNDECIDED
        if any(gate is not None and not gate.open for gate in gates):
            verdict = CodeVerdict.GATE_CLOSED
        elif problems < self.params.min_problems:
            verdict = CodeVerdict.TOO_FEW
        elif overall.excludes_zero and agree:
            verdict = CodeVerdict.HIGHER if overall.estimate > 0 else CodeVerdict.LOWER
        return CodeDifference(
            family=first.instance.family,
            set=name,
            part=part,
            arm=first.instance.arm,
            cell=cells[0],
            reference=reference.instance.arm,
            reference_cell=cells[1],
            problems=problems,
            seeds=seeds,
            difference=Span.of(overall),
            seeds_sd=spread(estimates),
            seeds_agree=agree,
            verdict=verdict,
        )


def uncached(cell: str, name: str, cells: Sequence[CellInfo]) -> str | None:
    """The cell that differs from a cached one in its cache only: same budget, same blocks if there is one, no cache.

    Args:
        name: the problem set that both are for.
    """
    known = {info.name: info for info in cells}
    own = known.get(cell)
    if own is None or own.cache == "none":
        return None
    same = [info for info in cells if (info.cache, info.budget) == ("none", own.budget)]
    same = [info for info in same if info.sets is None or name in info.sets]
    exact = [info.name for info in same if info.block_length == own.block_length]
    whole = [info.name for info in same if info.block_length is None]
    return next(iter(exact + whole), None)


def _spent(models: Sequence[CodeReading], place: Place) -> dict[str, Any]:
    """Forwards, positions and FLOPs a problem, means over the models."""
    scored = [model.outcomes[place].scored for model in models]
    flops = [flops for model in models if (flops := _flops(model, place)) is not None]
    return {
        "forwards": _mean([row.forwards_mean for row in scored]),
        "positions": _mean([row.positions_mean for row in scored]),
        "flops": _mean(flops) if len(flops) == len(models) else None,
    }


def _shares(spent: Mapping[str, Any], other: Mapping[str, Any]) -> CostShares:
    known = [name for name in CostShares.model_fields if spent[name] is not None and other[name]]
    return CostShares(**{name: spent[name] / other[name] for name in known})


def _flops(model: CodeReading, place: Place) -> float | None:
    """FLOPs a problem."""
    for cell in model.generation.cells if model.generation is not None else ():
        if (cell.set, cell.cell) == place:
            return cell.flops / cell.problems
    return None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
