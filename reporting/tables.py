"""The report's tables, drawn from the comparison. Numbers are formatted here and nowhere computed."""

from collections.abc import Sequence

from reporting import paper
from reporting.cited import cite, joined
from reporting.content import Table
from reporting.labels import (
    PATH_LABELS,
    add_costs,
    arm_label,
    count,
    flops,
    model_label,
    number,
    percent,
    plus_minus,
    span,
)
from reporting.schema import (
    BASE,
    ArmRow,
    Comparison,
    Cost,
    CostLine,
    CurvePoint,
    GenerationMetrics,
    GenerationPair,
    NllPath,
    Omegas,
)


def intervals_note(comparison: Comparison) -> str:
    """Where the intervals come from."""
    r = comparison.resampling
    return (
        f"{r.level:.0%} intervals from {r.resamples:,} resamples of {r.units:,} {r.unit_kind}, joint for all models; "
        f"{r.draws} Monte Carlo draws of t and masks, shared by all models."
    )


def perplexity(comparison: Comparison) -> Table:
    """Validation perplexity of the base and of every arm, on each of its paths."""
    rows = [
        (
            arm_label(arm.arm),
            PATH_LABELS[path],
            str(len(arm.seeds) or 1),
            span(values.ppl, 3),
            span(values.bits_per_byte, 4),
            cite(values, "monte_carlo_se", number, 4),
            cite(values, "seeds_sd", number, 4),
        )
        for arm in comparison.arm_rows
        for path, values in arm.perplexity.items()
    ]
    columns = ("model", "path", "seeds", "perplexity", "bits per byte", "Monte Carlo error (NLL)", "seed spread (NLL)")
    note = intervals_note(comparison) + " Over seeds, perplexity is the exponential of the mean NLL."
    return Table("Validation perplexity (the ELBO expression)", columns, rows, 2, note)


def differences(comparison: Comparison) -> Table:
    """Paired differences, the mean over seeds first and then each seed."""
    rows: list[Sequence[str]] = []
    for item in comparison.differences:
        name = f"{arm_label(item.arm)}, {PATH_LABELS[item.path]}"
        against = arm_label(item.reference)
        spread, verdict = cite(item, "seeds_sd", number, 4), cite(item, "verdict")
        rows.append((name, against, "all", span(item.nll, 4, True), spread, "", verdict))
        for seed in item.seeds:
            error = cite(seed, "monte_carlo_se", number, 4)
            rows.append((name, against, cite(seed, "seed"), span(seed.nll, 4, True), "", error, ""))
    columns = (
        "model",
        "against",
        "seed",
        "NLL difference, nats a token",
        "seed spread",
        "Monte Carlo error",
        "verdict",
    )
    note = (
        "Below zero is better than the reference. A verdict of lower or higher needs an interval that excludes zero "
        "and all seeds agreeing. Two passes a step are the bound of the two-pass process, at twice the forwards."
    )
    return Table("Paired differences in NLL", columns, rows, 2, note)


def curve(comparison: Comparison) -> Table:
    """Every (arm, sampler, NFE), and the real text."""
    rows: list[Sequence[str]] = [
        (
            arm_label(point.arm),
            point.sampler,
            cite(point, "nfe"),
            cite(point, "real_nfe", number, 1),
            plus_minus(point, "gen_ppl", "gen_ppl_sd"),
            plus_minus(point, "entropy", "entropy_sd", 3),
            cite(point, "samples", count),
            _mauve(point),
        )
        for point in comparison.curves
    ]
    rows.append(_real_text(comparison.real_text))
    columns = ("model", "sampler", "NFE", "real passes", "generative perplexity", "entropy, nats", "samples", "MAUVE")
    note = (
        f"± is the spread over seeds. Perplexity and entropy are the samples' own; the judge that scores them has a "
        f"validation perplexity of {number(comparison.judge.ppl)} on {count(comparison.judge.tokens)} tokens."
    )
    if comparison.real_text_note:
        note += f" Real text: {comparison.real_text_note}"
    return Table("Unconditional generation", columns, rows, 2, note)


def _mauve(point: CurvePoint) -> str:
    if point.mauve is None:
        return joined("empty: ", cite(point, "mauve_note")) if point.mauve_note else ""
    return plus_minus(point, "mauve", "mauve_sd", 3)


def _real_text(row: GenerationMetrics) -> Sequence[str]:
    mauve = plus_minus(row.mauve, "mean", "std", 3) if row.mauve else joined("empty: ", cite(row, "mauve_note"))
    quality = (cite(row, "gen_ppl", number), cite(row, "entropy", number, 3), cite(row, "samples", count))
    return ("real text", "held out", "", "", *quality, mauve)


def pairs(comparison: Comparison) -> Table:
    """Generation at equal real forward passes."""
    rows = [
        (
            arm_label(pair.arm),
            pair.sampler
            if pair.sampler == pair.reference_sampler
            else f"{pair.sampler} (binary: {pair.reference_sampler})",
            cite(pair, "nfe"),
            cite(pair, "real_nfe", number, 1),
            cite(pair, "gen_ppl", number),
            cite(pair, "reference_gen_ppl", number),
            _change(pair),
            joined(cite(pair, "verdict"), ", entropy lower too" if pair.sharper else ""),
            cite(pair, "entropy_difference", number, 3, sign=True),
            " and ".join(sorted({str(seed.how) for seed in pair.seeds})),
        )
        for pair in comparison.pairs
    ]
    columns = (
        "model",
        "sampler",
        "binary's NFE",
        "real passes",
        "gen. perplexity",
        "binary's",
        "difference",
        "verdict",
        "entropy difference",
        "how",
    )
    note = (
        "At the binary arm's real forward passes: the arm's own point where one lies within "
        f"{comparison.nfe_tolerance:.0%} of it, else interpolated in the logarithm of real passes. Points outside of "
        "an arm's range are left out. The interval is Student's t over seeds."
    )
    return Table("Soft-masking against binary at equal real forward passes", columns, rows, 2, note)


def _change(pair: GenerationPair) -> str:
    change, interval = cite(pair, "change", percent), pair.change_interval
    if interval is None:
        return change
    return joined(change, " (", cite(interval, "low", percent), " to ", cite(interval, "high", percent), ")")


def gates(comparison: Comparison) -> Table:
    """Initial and final omegas, lambda, and whether the gate is open."""
    rows = []
    for model in comparison.models:
        if model.gate is None:
            continue
        metrics = model.gate.metrics
        for title, omegas in (("initial", metrics.initial_omegas), ("final", metrics.omegas)):
            final = title == "final"
            rows.append(
                (
                    model_label(model.arm, model.seed),
                    title,
                    *_omegas(omegas),
                    plus_minus(metrics, "lam_mean", "lam_std", 3) if final else "",
                    span(model.gate.effect, 4, sign=True) if final else "",
                    ("open" if model.gate.open else "closed") if final else "",
                )
            )
    columns = ("model", "", "omega_s", "omega_a", "omega_b", "temperature", "lambda", "NLL added by lambda = 0", "gate")
    note = (
        f"The gate is open if mean lambda at masked positions is at least {comparison.gate_lam:g} and forcing "
        "lambda = 0 in the trained model changes its NLL by a paired interval that excludes zero. lambda ± is its "
        "spread over positions."
    )
    return Table("Soft masks: omegas and gate", columns, rows, 2, note)


def _omegas(omegas: Omegas) -> tuple[str, str, str, str]:
    a, b, c, d = (cite(omegas, name, number, 3) for name in ("omega_s", "omega_a", "omega_b", "temperature"))
    return a, b, c, d


def lam_by_entropy(comparison: Comparison) -> Table:
    """Lambda by how certain the model is."""
    rows = [
        (
            model_label(model.arm, model.seed),
            "above" if piece.below is None else joined("below ", cite(piece, "below", "{:g}".format)),
            cite(piece, "share", "{:.1%}".format),
            cite(piece, "lam_mean", number, 3),
        )
        for model in comparison.models
        if model.gate is not None
        for piece in model.gate.metrics.by_entropy
    ]
    columns = ("model", "entropy, nats", "share of masked positions", "mean lambda")
    return Table("Lambda by entropy of the prediction", columns, rows, 2)


def costs(lines: Sequence[CostLine]) -> Table:
    """Forwards, FLOPs and tokens of each piece of work, with their sum."""
    rows: list[Sequence[str]] = [(line.work, line.model, *cost(line.cost)) for line in lines]
    rows.append(("all of these", "", *cost(add_costs([line.cost for line in lines]))))
    columns = ("work", "model", "updates", "forwards", "backwards", "FLOPs", "tokens")
    note = (
        "Counted, not timed; FLOPs by formula. A forward is one pass over a batch, or over a row where rows are scored."
    )
    return Table("What it cost", columns, rows, 2, note)


def cost(spent: Cost) -> tuple[str, str, str, str, str]:
    """Updates, forwards, backwards, FLOPs and tokens."""
    updates, forwards, backwards, tokens = (
        cite(spent, name, count) for name in ("updates", "forwards", "backwards", "tokens")
    )
    return updates, forwards, backwards, cite(spent, "flops", flops), tokens


def environments(comparison: Comparison) -> Table:
    """The library versions that the evaluations ran with."""
    rows = []
    for environment in comparison.environments:
        rows += sorted({"python": environment.python, **environment.versions}.items())
        locks = [(f"{file}, MD5", digest) for file, digest in environment.locks.items()]
        rows += locks or [("environment lock, MD5", "no lock file")]
    return Table("Versions", ("what", "version"), rows, 2)


def inputs(hashes: dict[str, str]) -> Table:
    """MD5 of every file that the comparison and the report read."""
    rows = sorted(hashes.items())
    return Table("Input hashes", ("file", "MD5"), rows, 2, "As in dvc.lock and in the stages' manifests.")


def paper_generation(comparison: Comparison, table: paper.GenerationTable, regime: str) -> Table:
    """Table 1 or 2, this run's numbers in the rows that it has."""
    matched, fits = comparison.profile == table.profile, regime == table.regime
    rows = []
    for entry in table.entries:
        theirs = (number(entry.mauve, 3), number(entry.gen_ppl))
        ours = _own_generation(comparison, entry) if fits else ()
        rows.append((_sampler(entry.sampler), entry.model, *ours, *(theirs if matched else (_scale_note(theirs),))))
    columns: tuple[str, ...] = ("sampler", "model, as in the paper")
    if fits:
        columns += ("this run: NFE", "this run: MAUVE", "this run: gen. perplexity")
    if matched:
        columns += (f"paper: MAUVE, {paper.SECOND_HAND}", f"paper: gen. perplexity, {paper.SECOND_HAND}")
    else:
        columns += (f"note: paper's, {paper.SECOND_HAND}",)
    note = _match_note(comparison.profile, table.profile) if fits else _other_regime(regime)
    return Table(table.title, columns, rows, 2, note)


def _own_generation(comparison: Comparison, entry: paper.GenerationEntry) -> tuple[str, str, str]:
    """NFE, MAUVE and generative perplexity of the longest sampling that stands for the paper's row."""
    point = _longest(comparison, entry.arm, entry.sampler)
    if point is None:
        return "", "", ""
    return cite(point, "nfe"), _mauve(point), plus_minus(point, "gen_ppl", "gen_ppl_sd")


def _other_regime(regime: str) -> str:
    return f"This run's setting is '{regime}', so it has no numbers for this table."


def _sampler(sampler: str | None) -> str:
    return {None: "", paper.STANDARD: "standard", paper.REMDM: "ReMDM"}.get(sampler, sampler or "")


def _longest(comparison: Comparison, arm: str | None, sampler: str | None) -> CurvePoint | None:
    points = [point for point in comparison.curves if point.arm == arm and point.sampler == sampler]
    return max(points, key=lambda point: point.nfe) if points else None


def _scale_note(values: Sequence[str]) -> str:
    named = zip(("MAUVE", "gen. perplexity"), values, strict=True)
    return ", ".join(f"{name} {value}" for name, value in named if value)


def _match_note(profile: str, wanted: str) -> str:
    if profile == wanted:
        return (
            f"This run's profile is '{wanted}', which has the paper's settings. Paper values are {paper.SECOND_HAND}; "
            "blank ones are not known. The paper has one seed."
        )
    return (
        f"This run's profile is '{profile}': another model size, corpus and judge than the paper's, so its numbers are "
        f"not comparable with the paper's, which the profile '{wanted}' would be."
    )


def paper_perplexity(comparison: Comparison, regime: str) -> Table:
    """Table 4 with intervals."""
    arms = {arm.arm: arm for arm in comparison.arm_rows}
    matched = comparison.profile == paper.TABLE_4_PROFILE
    fits = regime == "continuation"
    rows = []
    for entry in paper.TABLE_4:
        ours = _own_perplexity(arms.get(entry.arm), entry) if fits else ""
        if ours or entry.ppl is not None:
            rows.append((entry.model, ours, number(entry.ppl)))
    theirs = f"paper, {paper.SECOND_HAND}" if matched else f"note: paper's, {paper.SECOND_HAND}"
    if fits:
        note = f"{_match_note(comparison.profile, paper.TABLE_4_PROFILE)} {paper.TABLE_4_NOTE}"
    else:
        note = _other_regime(regime)
    return Table(paper.TABLE_4_TITLE, ("model, as in the paper", "this run", theirs), rows, 1, note)


def _own_perplexity(arm: ArmRow | None, entry: paper.PerplexityEntry) -> str:
    if arm is None or (entry.path == "binary" and arm.own_path is NllPath.BINARY):
        return ""
    return span(arm.perplexity[arm.own_path if entry.path == "own" else NllPath.BINARY].ppl, 3)


def paper_entropy(comparison: Comparison) -> Table:
    """Tables 5 and 7: entropy beside generative perplexity at this run's largest NFE."""
    rows = []
    for arm in (BASE, *comparison.arms):
        for sampler in dict.fromkeys(point.sampler for point in comparison.curves if point.arm == arm):
            point = _longest(comparison, arm, sampler)
            if point is not None:
                values = (plus_minus(point, "gen_ppl", "gen_ppl_sd"), plus_minus(point, "entropy", "entropy_sd", 3))
                rows.append((arm_label(arm), sampler, cite(point, "nfe"), *values, ""))
    columns = ("model", "sampler", "NFE", "this run: gen. perplexity", "this run: entropy", "paper: entropy")
    return Table(paper.TABLES_5_7_TITLE, columns, rows, 2, paper.TABLES_5_7_NOTE)
