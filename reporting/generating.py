"""The rules of comparison in generation: curves over seeds, and pairs at equal real forward passes.

A step that changed no token costs no forward pass, and two-pass sampling costs two, so nominal NFE is not cost: pairs
are made at the reference's real forward passes, from a measured point where one is near, else by interpolation of
log(gen PPL) and of entropy in log(real forward passes). Points outside of an arm's range are left out.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from reporting.params.compare import CompareParams
from reporting.readings import Reading
from reporting.schema import (
    REFERENCE_ARM,
    CurvePoint,
    GenerationMetrics,
    GenerationPair,
    GenerationRow,
    How,
    SeedPair,
    Span,
    Verdict,
)
from softmask.evaluation.intervals import Interval, log_interpolate, same_sign, seeds_interval, spread

Curve = list[GenerationMetrics]
"""One model's points of one sampler, by rising real forward passes."""


def rows(readings: Sequence[Reading]) -> list[GenerationRow]:
    """Every model's generation metrics, in the order of params."""
    return [
        GenerationRow(model=r.instance.name, arm=r.instance.arm, seed=r.instance.seed, metrics=metrics)
        for r in readings
        for metrics in r.metrics.generation
    ]


def curves(all_rows: Sequence[GenerationRow]) -> list[CurvePoint]:
    """Mean and spread over seeds of every (arm, sampler, nominal NFE), in the order of the rows."""
    groups: dict[tuple[str, str, int], list[GenerationMetrics]] = {}
    for row in all_rows:
        if row.metrics.sampler is not None and row.metrics.nfe is not None:
            groups.setdefault((row.arm, row.metrics.sampler, row.metrics.nfe), []).append(row.metrics)
    return [_curve_point(*key, metrics) for key, metrics in groups.items()]


def _curve_point(arm: str, sampler: str, nfe: int, metrics: Sequence[GenerationMetrics]) -> CurvePoint:
    perplexities = [m.gen_ppl for m in metrics]
    entropies = [m.entropy for m in metrics]
    mauves = [m.mauve for m in metrics if m.mauve is not None]
    complete = len(mauves) == len(metrics)
    notes = sorted({m.mauve_note for m in metrics if m.mauve_note})
    return CurvePoint(
        arm=arm,
        sampler=sampler,
        nfe=nfe,
        seeds=len(metrics),
        samples=sum(m.samples for m in metrics),
        real_nfe=float(np.mean([_real(m) for m in metrics])),
        gen_ppl=float(np.mean(perplexities)),
        gen_ppl_sd=spread(perplexities),
        entropy=float(np.mean(entropies)),
        entropy_sd=spread(entropies),
        mauve=float(np.mean([m.mean for m in mauves])) if complete else None,
        mauve_sd=(spread([m.mean for m in mauves]) if len(mauves) > 1 else mauves[0].std) if complete else None,
        mauve_note="; ".join(notes) or None,
    )


def _real(metrics: GenerationMetrics) -> float:
    """Real forward passes; the nominal number where the evaluator states none."""
    return metrics.real_nfe_mean if metrics.real_nfe_mean is not None else float(metrics.nfe or 0)


def _by_sampler(reading: Reading) -> dict[str, Curve]:
    found: dict[str, Curve] = {}
    for metrics in reading.metrics.generation:
        if metrics.sampler is not None:
            found.setdefault(metrics.sampler, []).append(metrics)
    return {sampler: sorted(curve, key=_real) for sampler, curve in found.items()}


def pairs(
    readings: Sequence[Reading], arms: Sequence[str], open_gates: Mapping[str, bool], params: CompareParams
) -> list[GenerationPair]:
    """Each soft-masked arm against the binary arm, sampler by sampler, at the reference's real forward passes.

    Args:
        open_gates: for each arm, whether the gates of all of its seeds are open; an arm that isn't in it has none.
    """
    references = {r.instance.seed: _by_sampler(r) for r in readings if r.instance.arm == REFERENCE_ARM}
    found = []
    for arm in arms if references else ():
        if arm == REFERENCE_ARM:
            continue
        models = {r.instance.seed or 0: _by_sampler(r) for r in readings if r.instance.arm == arm}
        for sampler in next(iter(models.values())):
            reference_sampler = sampler if sampler in next(iter(references.values())) else params.baseline_sampler
            curves_of_seeds = {
                seed: (own[sampler], references[seed][reference_sampler])
                for seed, own in models.items()
                if sampler in own and reference_sampler in references[seed]
            }
            if len(curves_of_seeds) == len(models):
                found += _pairs_of(arm, sampler, reference_sampler, curves_of_seeds, open_gates.get(arm, True), params)
    return found


def _pairs_of(
    arm: str,
    sampler: str,
    reference_sampler: str,
    seeds: Mapping[int, tuple[Curve, Curve]],
    open_gate: bool,
    params: CompareParams,
) -> list[GenerationPair]:
    found = []
    for nominal in [point.nfe for point in next(iter(seeds.values()))[1]]:
        at_seed = []
        for seed, (own, reference) in seeds.items():
            points = [point for point in reference if point.nfe == nominal]
            pair = seed_pair(seed, own, points[0], params.nfe_tolerance) if points else None
            if pair is not None:
                at_seed.append(pair)
        if nominal is not None and len(at_seed) == len(seeds):
            found.append(_pair(arm, sampler, reference_sampler, nominal, at_seed, open_gate, params))
    return found


def seed_pair(seed: int, own: Curve, reference: GenerationMetrics, tolerance: float) -> SeedPair | None:
    """One seed's pair at the reference's real forward passes; None where the arm has no point near or around it."""
    target = _real(reference)
    nearest = min(own, key=lambda point: abs(math.log(_real(point) / target)))
    if abs(_real(nearest) / target - 1) <= tolerance:
        how, at, gen_ppl, entropy = How.MEASURED, _real(nearest), nearest.gen_ppl, nearest.entropy
    else:
        x = [_real(point) for point in own]
        log_ppl = log_interpolate(x, [math.log(point.gen_ppl) for point in own], target)
        between = log_interpolate(x, [point.entropy for point in own], target)
        if log_ppl is None or between is None:
            return None
        how, at, gen_ppl, entropy = How.INTERPOLATED, target, math.exp(log_ppl), between
    return SeedPair(
        seed=seed,
        real_nfe=target,
        arm_real_nfe=at,
        how=how,
        gen_ppl=gen_ppl,
        reference_gen_ppl=reference.gen_ppl,
        entropy=entropy,
        reference_entropy=reference.entropy,
    )


def _pair(
    arm: str,
    sampler: str,
    reference_sampler: str,
    nominal: int,
    seeds: list[SeedPair],
    open_gate: bool,
    params: CompareParams,
) -> GenerationPair:
    ratios = [math.log(pair.gen_ppl / pair.reference_gen_ppl) for pair in seeds]
    entropy_difference = float(np.mean([pair.entropy - pair.reference_entropy for pair in seeds]))
    interval = seeds_interval(ratios, params.level)
    mean = float(np.mean(ratios))
    return GenerationPair(
        arm=arm,
        sampler=sampler,
        reference_sampler=reference_sampler,
        nfe=nominal,
        seeds=seeds,
        real_nfe=float(np.mean([pair.real_nfe for pair in seeds])),
        gen_ppl=float(np.mean([pair.gen_ppl for pair in seeds])),
        reference_gen_ppl=float(np.mean([pair.reference_gen_ppl for pair in seeds])),
        log_ratio=mean,
        interval=Span.of(interval) if interval else None,
        change=math.expm1(mean),
        change_interval=Span.of(Interval(*map(math.expm1, interval))) if interval else None,
        seeds_sd=spread(ratios),
        entropy_difference=entropy_difference,
        verdict=_verdict(ratios, interval is not None and interval.excludes_zero, open_gate),
        sharper=mean < 0 and entropy_difference < -params.entropy_margin,
    )


def _verdict(ratios: Sequence[float], excludes_zero: bool, open_gate: bool) -> Verdict:
    """What may be said: a claim needs an interval over seeds, agreement alone is an observation over several seeds."""
    if not open_gate:
        return Verdict.GATE_CLOSED
    if len(ratios) == 1:
        return Verdict.ONE_SEED
    if not same_sign(ratios):
        return Verdict.UNDECIDED
    if excludes_zero:
        return Verdict.LOWER if ratios[0] < 0 else Verdict.HIGHER
    return Verdict.LOWER_IN_EVERY_SEED if ratios[0] < 0 else Verdict.HIGHER_IN_EVERY_SEED
