"""The rules of comparison in perplexity: intervals per model and arm, paired differences, and whether a gate is open.

Numbers only; sentences are in `findings`. All intervals come from one joint resampling of the documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reporting.labels import number, span
from reporting.params.compare import CompareParams
from reporting.readings import Reading
from reporting.schema import (
    BASE,
    REFERENCE_ARM,
    ArmRow,
    Difference,
    Gate,
    ModelRow,
    NllPath,
    PathPerplexity,
    SeedDifference,
    Span,
    Verdict,
)
from softmask.evaluation.intervals import JointBootstrap, joint_bootstrap, monte_carlo_error, same_sign, spread

TOKENS, BYTES = "tokens", "bytes"


def column(model: str, path: NllPath) -> str:
    """The name of a model's column in the joint table."""
    return f"{model}/{path}"


@dataclass(frozen=True)
class Comparer:
    """All models on the same resampled units."""

    readings: Sequence[Reading]
    bootstrap: JointBootstrap
    params: CompareParams

    @classmethod
    def of(cls, readings: Sequence[Reading], params: CompareParams) -> "Comparer":
        """Resample the units once for all models."""
        first = readings[0].arrays
        table = {TOKENS: first.tokens, BYTES: first.bytes}
        for reading in readings:
            for path, nll in reading.arrays.nll.items():
                table[column(reading.instance.name, path)] = nll.mean(axis=0)
        return cls(readings, joint_bootstrap(table, params.resamples, params.level, params.seed), params)

    def perplexity(self, models: Sequence[str], path: NllPath) -> PathPerplexity:
        """NLL a token, perplexity and bits per byte of one model, or of the mean NLL of several."""
        weights = {column(model, path): 1 / len(models) for model in models}
        bits = {name: weight / np.log(2) for name, weight in weights.items()}
        per_model = [self.bootstrap.ratio({name: 1.0}, TOKENS).estimate for name in weights]
        return PathPerplexity(
            nll=Span.of(self.bootstrap.ratio(weights, TOKENS)),
            ppl=Span.of(self.bootstrap.ratio(weights, TOKENS, np.exp)),
            bits_per_byte=Span.of(self.bootstrap.ratio(bits, BYTES)),
            monte_carlo_se=self.monte_carlo(weights),
            seeds_sd=spread(per_model),
        )

    def monte_carlo(self, weights: dict[str, float]) -> float | None:
        """Monte Carlo error of a linear combination of NLLs a token; the models' draws are shared, so it is paired."""
        arrays = {column(r.instance.name, path): nll for r in self.readings for path, nll in r.arrays.nll.items()}
        total = np.sum([weight * arrays[name] for name, weight in weights.items()], axis=0)
        return monte_carlo_error(total, float(self.readings[0].arrays.tokens.sum()))

    def gate(self, reading: Reading) -> Gate | None:
        """Open if mean lambda reaches the threshold and lambda = 0 would change the NLL; None without a soft mask."""
        metrics = reading.metrics.gate
        if metrics is None or NllPath.TWO_PASS not in reading.arrays.nll:
            return None
        name = reading.instance.name
        weights = {column(name, NllPath.BINARY): 1.0, column(name, NllPath.TWO_PASS): -1.0}
        effect = self.bootstrap.ratio(weights, TOKENS)
        wide = metrics.lam_mean >= self.params.gate_lam
        lam = f"mean lambda {number(metrics.lam_mean, 3)} {'reaches' if wide else 'is under'} {self.params.gate_lam:g}"
        does = "changes its NLL by" if effect.excludes_zero else "changes its NLL by nothing that excludes zero:"
        reason = f"{lam}; lambda = 0 {does} {span(Span.of(effect), 4, sign=True)} nats a token"
        return Gate(open=wide and effect.excludes_zero, reason=reason, effect=Span.of(effect), metrics=metrics)

    def model_row(self, reading: Reading) -> ModelRow:
        """One model's numbers."""
        name, metrics = reading.instance.name, reading.metrics
        return ModelRow(
            model=name,
            arm=reading.instance.arm,
            seed=reading.instance.seed,
            perplexity={path: self.perplexity([name], path) for path in metrics.paths},
            gate=self.gate(reading),
            training=metrics.training,
            evaluation_cost=metrics.evaluation_cost,
        )

    def arm_row(self, arm: str) -> ArmRow:
        """An arm over its seeds (for the base, the one model)."""
        readings = self.of_arm(arm)
        gates = {r.instance.seed: self.gate(r) for r in readings}
        soft = any(gate is not None for gate in gates.values())
        opened = [seed for seed, gate in gates.items() if seed is not None and gate and gate.open]
        return ArmRow(
            arm=arm,
            seeds=[seed for seed in gates if seed is not None],
            perplexity={
                path: self.perplexity([r.instance.name for r in readings], path) for path in readings[0].metrics.paths
            },
            own_path=readings[0].metrics.own_path,
            gate_open=opened if soft else None,
        )

    def of_arm(self, arm: str) -> list[Reading]:
        """The models of an arm, in the order of the seeds."""
        return [reading for reading in self.readings if reading.instance.arm == arm]

    def differences(self, arms: Sequence[str]) -> list[Difference]:
        """Soft-masked arms against the binary arm (both paths), then every arm against the base."""
        found = []
        for arm in arms:
            if arm != REFERENCE_ARM and REFERENCE_ARM in arms:
                paths = reversed(self.of_arm(arm)[0].metrics.paths)
                found += [self.difference(arm, path, REFERENCE_ARM) for path in paths]
        for arm in arms:
            found.append(self.difference(arm, self.of_arm(arm)[0].metrics.own_path, BASE))
        return found

    def difference(self, arm: str, path: NllPath, reference: str) -> Difference:
        """NLL of the arm minus NLL of the reference's one-pass path, paired by document, mask and seed."""
        others = {reading.instance.seed: reading.instance.name for reading in self.of_arm(reference)}
        seeds, mean = [], dict[str, float]()
        readings = self.of_arm(arm)
        for reading in readings:
            own = column(reading.instance.name, path)
            other = column(others[None if reference == BASE else reading.instance.seed], NllPath.BINARY)
            weights = {own: 1.0, other: -1.0}
            for name, weight in weights.items():
                mean[name] = mean.get(name, 0.0) + weight / len(readings)
            seeds.append(
                SeedDifference(
                    seed=reading.instance.seed or 0,
                    nll=Span.of(self.bootstrap.ratio(weights, TOKENS)),
                    monte_carlo_se=self.monte_carlo(weights),
                )
            )
        estimates = [seed.nll.estimate for seed in seeds]
        overall = self.bootstrap.ratio(mean, TOKENS)
        agree = same_sign(estimates)
        gates = [self.gate(reading) for reading in readings]
        verdict = Verdict.UNDECIDED
        if any(gate is not None and not gate.open for gate in gates):
            verdict = Verdict.GATE_CLOSED
        elif overall.excludes_zero and agree and len(self.readings[0].arrays.tokens) >= self.params.min_units:
            verdict = Verdict.LOWER if overall.estimate < 0 else Verdict.HIGHER
        return Difference(
            arm=arm,
            path=path,
            reference=reference,
            reference_path=NllPath.BINARY,
            seeds=seeds,
            nll=Span.of(overall),
            seeds_sd=spread(estimates),
            seeds_agree=agree,
            verdict=verdict,
        )
