"""Findings: plain sentences that rules make from the numbers, whichever way these went.

"Lower" and "higher" without a qualifier are claims: the interval excludes zero and all seeds agree. Anything less is
said as what it is.
"""

from collections.abc import Iterable, Sequence

from reporting.labels import PATH_LABELS, arm_label, listing, number, percent
from reporting.schema import (
    BASE,
    REFERENCE_ARM,
    ArmRow,
    CurvePoint,
    Difference,
    Finding,
    GenerationPair,
    How,
    ModelRow,
    NllPath,
    Resampling,
    Topic,
    Verdict,
)

SEVERAL_SEEDS = 2


def all_findings(
    models: Sequence[ModelRow],
    arms: Sequence[ArmRow],
    differences: Sequence[Difference],
    pairs: Sequence[GenerationPair],
    curves: Sequence[CurvePoint],
    resampling: Resampling,
    min_units: int,
) -> list[Finding]:
    """Everything that was found, in the report's order: gates, perplexity, generation, limits."""
    return [
        *gate_findings(models, arms),
        *perplexity_findings(arms, differences, resampling),
        *generation_findings(pairs, curves),
        *limit_findings(models, arms, resampling, min_units),
    ]


def gate_findings(models: Sequence[ModelRow], arms: Sequence[ArmRow]) -> list[Finding]:
    """One finding an arm with a soft mask: open in which seeds, and why not in the others."""
    found = []
    for arm in arms:
        if arm.gate_open is None:
            continue
        rows = [row for row in models if row.arm == arm.arm and row.gate is not None]
        closed = [row for row in rows if row.gate and not row.gate.open]
        if not closed:
            lam = listing([number(row.gate.metrics.lam_mean, 2) for row in rows if row.gate])
            effect = listing([number(row.gate.effect.estimate, 4, sign=True) for row in rows if row.gate])
            text = f"The gate of {arm_label(arm.arm)} is open in {_every(len(rows))}."
            evidence = f"Mean lambda {lam}; forcing lambda to 0 changes its NLL by {effect} nats a token."
        else:
            text = (
                f"The gate of {arm_label(arm.arm)} is closed in {listing([f'seed {row.seed}' for row in closed])}: "
                "a comparison with binary masking would not test soft-masking, so none is made."
            )
            evidence = " ".join(f"Seed {row.seed}: {row.gate.reason}." for row in closed if row.gate)
        found.append(Finding(topic=Topic.GATE, text=text, evidence=evidence))
    return found


def perplexity_findings(
    arms: Sequence[ArmRow], differences: Sequence[Difference], resampling: Resampling
) -> list[Finding]:
    """One finding a difference whose gate is open, naming what a two-pass perplexity is."""
    rows = {row.arm: row for row in arms}
    found = []
    for difference in differences:
        if difference.verdict is not Verdict.GATE_CLOSED:
            found.append(_difference(difference, rows[difference.arm], rows[difference.reference], resampling))
    if REFERENCE_ARM not in rows:
        text = "There is no binary arm in this run, so soft-masking is compared with the base only."
        found.append(Finding(topic=Topic.PERPLEXITY, text=text))
    return found


def _difference(difference: Difference, arm: ArmRow, reference: ArmRow, resampling: Resampling) -> Finding:
    own = arm.perplexity[difference.path].ppl.estimate
    other = reference.perplexity[difference.reference_path].ppl.estimate
    name = arm_label(difference.arm)
    if NllPath.TWO_PASS in arm.perplexity:
        name += f" ({PATH_LABELS[difference.path]})"
    against = "the base" if difference.reference == BASE else arm_label(difference.reference)
    if difference.verdict is Verdict.UNDECIDED:
        text = f"{name} and {against} can't be told apart in validation perplexity: {own:.2f} and {other:.2f}."
    else:
        text = f"{name} has a {difference.verdict} validation perplexity than {against}: {own:.2f} against {other:.2f}."
    nll = difference.nll
    evidence = (
        f"Paired NLL difference {number(nll.estimate, 4, sign=True)} nats a token, {resampling.level:.0%} interval "
        f"{number(nll.low, 4, sign=True)} to {number(nll.high, 4, sign=True)} over {resampling.units} "
        f"{resampling.unit_kind}; {_by_seed(difference)}."
    )
    return Finding(topic=Topic.PERPLEXITY, text=text, evidence=evidence)


def _by_seed(difference: Difference) -> str:
    values = [number(seed.nll.estimate, 4, sign=True) for seed in difference.seeds]
    if len(values) < SEVERAL_SEEDS:
        return "one seed"
    return f"the seeds {'agree' if difference.seeds_agree else 'disagree'}: {listing(values)}"


def _every(seeds: int) -> str:
    return {1: "its one seed", 2: "both seeds"}.get(seeds, f"all {seeds} seeds")


def generation_findings(pairs: Sequence[GenerationPair], curves: Sequence[CurvePoint]) -> list[Finding]:
    """One finding an (arm, sampler), then where soft-masking loses, then MAUVE."""
    groups: dict[tuple[str, str], list[GenerationPair]] = {}
    for pair in pairs:
        if pair.verdict is not Verdict.GATE_CLOSED:
            groups.setdefault((pair.arm, pair.sampler), []).append(pair)
    found = [_group(group) for group in groups.values()]
    texts = [_losses(pair for group in groups.values() for pair in group)] if groups else []
    return found + [Finding(topic=Topic.GENERATION, text=text) for text in texts + _mauve(curves)]


def _group(group: Sequence[GenerationPair]) -> Finding:
    first = group[0]
    against = arm_label(REFERENCE_ARM)
    if first.reference_sampler != first.sampler:
        against += f" with {first.reference_sampler}"
    seeds = len(first.seeds)
    points = [f"{percent(pair.change)} at {number(pair.real_nfe, 1)}" for pair in group]
    text = (
        f"{arm_label(first.arm)} with {first.sampler} against {against}, at equal real forward passes: generative "
        f"perplexity {listing(points)} passes ({'one seed' if seeds == 1 else f'mean of {seeds} seeds'})."
    )
    return Finding(topic=Topic.GENERATION, text=text, evidence=f"{_verdicts(group, seeds)} {_caveats(group)}")


def _caveats(group: Sequence[GenerationPair]) -> str:
    drops = [number(pair.entropy_difference, 3, sign=True) for pair in group]
    text = f"Entropy differs by {listing(drops)} nats."
    if sharper := [number(pair.real_nfe, 1) for pair in group if pair.sharper]:
        text += f" At {listing(sharper)} passes entropy is clearly lower as well, which alone lowers the perplexity."
    interpolated = [pair for pair in group if any(seed.how is How.INTERPOLATED for seed in pair.seeds)]
    if interpolated:
        which = "The point is" if len(group) == 1 else f"{len(interpolated)} of the {len(group)} points are"
        text += f" {which} interpolated in the logarithm of real passes."
    return text


def _verdicts(group: Sequence[GenerationPair], seeds: int) -> str:
    if seeds < SEVERAL_SEEDS:
        return "One seed has no spread to judge by, so nothing is claimed."
    parts = []
    for verdict in Verdict:
        at = [number(pair.real_nfe, 1) for pair in group if pair.verdict is verdict]
        if at:
            parts.append(f"{_PHRASES[verdict]} at {listing(at)}")
    return "; ".join(parts).capitalize() + "."


_PHRASES = {
    Verdict.LOWER: "lower, by an interval over seeds that excludes zero,",
    Verdict.HIGHER: "higher, by an interval over seeds that excludes zero,",
    Verdict.LOWER_IN_EVERY_SEED: "lower in every seed, too few of them for an interval that excludes zero,",
    Verdict.HIGHER_IN_EVERY_SEED: "higher in every seed, too few of them for an interval that excludes zero,",
    Verdict.UNDECIDED: "can't be told apart",
    Verdict.ONE_SEED: "one seed",
    Verdict.GATE_CLOSED: "gate closed",
}


def _losses(pairs: Iterable[GenerationPair]) -> str:
    worse = [
        f"{arm_label(pair.arm)} with {pair.sampler} at {number(pair.real_nfe, 1)} passes ({percent(pair.change)})"
        for pair in pairs
        if pair.log_ratio > 0
    ]
    if not worse:
        return "Soft-masking's generative perplexity is above binary's at none of these points."
    return f"Soft-masking's generative perplexity is above binary's at: {'; '.join(worse)}."


def _mauve(curves: Sequence[CurvePoint]) -> list[str]:
    notes = sorted({point.mauve_note for point in curves if point.mauve is None and point.mauve_note})
    return [f"MAUVE is left empty where samples are too few: {'; '.join(notes)}."] if notes else []


def _two_pass(arms: Sequence[ArmRow]) -> list[str]:
    if not any(NllPath.TWO_PASS in arm.perplexity for arm in arms):
        return []
    return [
        "A perplexity of two passes is the bound of the process that runs both passes at every step: two forwards for "
        "each of binary's one. It says nothing about the sampler that carries feedback over in one forward a step."
    ]


def _forwards(models: Sequence[ModelRow]) -> list[str]:
    forwards: dict[str, list[str]] = {}
    for row in models:
        if row.arm != BASE and row.training is not None and row.training.forwards is not None:
            forwards.setdefault(row.arm, []).append(f"{row.training.forwards:,}")
    parts = [f"{arm_label(arm)} {listing(list(dict.fromkeys(counts)))}" for arm, counts in forwards.items()]
    return [f"Forwards spent in training each arm: {'; '.join(parts)}."] if parts else []


def limit_findings(
    models: Sequence[ModelRow], arms: Sequence[ArmRow], resampling: Resampling, min_units: int
) -> list[Finding]:
    """What the reader must keep in mind about this run's size and cost."""
    texts = []
    if resampling.units < min_units:
        texts.append(
            f"Perplexity rests on {resampling.units} {resampling.unit_kind} only; "
            f"below {min_units} no difference is claimed."
        )
    if resampling.unit_kind != "documents":
        texts.append(
            f"There are too few validation documents to resample, so intervals come from {resampling.unit_kind} of "
            "fixed size: passages of one document go together, and intervals are narrower than they should be."
        )
    texts += _two_pass(arms) + _forwards(models)
    seeds = {len(arm.seeds) for arm in arms if arm.arm != BASE}
    if seeds == {1}:
        texts.append("One seed was run: how far results spread over seeds is unknown.")
    errors = [path.monte_carlo_se for arm in arms for path in arm.perplexity.values()]
    known = [error for error in errors if error is not None]
    if known:
        texts.append(
            f"The Monte Carlo error of an NLL from {resampling.draws} draws of t and masks is at most "
            f"{number(max(known), 4)} nats a token; draws are shared by all models, and the table of differences has "
            "the error of each."
        )
    else:
        texts.append("One Monte Carlo draw of t and masks was made, so its error is unknown.")
    return [Finding(topic=Topic.LIMITS, text=text) for text in texts]
