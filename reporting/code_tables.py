"""The tables of the code study, drawn from its comparison. Numbers are formatted here and nowhere computed."""

from collections.abc import Sequence

from reporting import code_paper
from reporting.cited import cite, joined
from reporting.code_labels import (
    code_arm_label,
    code_model_label,
    family_label,
    interval,
    measure,
    per_cent,
    points,
    points_span,
    rate_and_spread,
)
from reporting.code_schema import (
    NEAREST,
    CellInfo,
    CodeComparison,
    CodeDifference,
    CodePoint,
    Disagreements,
    Part,
)
from reporting.content import Table
from reporting.labels import add_costs, count, flops, number, plus_minus
from reporting.paper import SECOND_HAND
from reporting.schema import BASE, REFERENCE_ARM
from reporting.tables import cost

Measure = tuple[str, Part]


def measures(comparison: CodeComparison) -> list[Measure]:
    """What the main table has columns for: each set's headline, in the order of params."""
    return [(name, comparison.headline(name)) for name in comparison.sets]


def at_equal_steps(comparison: CodeComparison) -> Table:
    """pass@1 in the order of the paper's Table 3: family, steps, model; a column a benchmark."""
    columns = measures(comparison)
    rows: list[Sequence[str]] = []
    for family in comparison.families:
        rows += _nearest_row(comparison, family, columns)
        for cell in comparison.cells:
            rows += _cell_rows(comparison, family, cell, columns) if cell.plain else []
    problems = [f"{measure(*item)} {_problems(comparison, item[0])}" for item in columns]
    note = (
        "Per cent, mean over seeds ± their standard deviation; every model at the same number of steps. + marks all "
        f"tests of a set, EvalPlus's further ones included. Differences are in points, with {comparison.level:.0%} "
        f"intervals from {comparison.resamples:,} resamples of the problems, the same ones for all models; * marks a "
        f"claim: the interval excludes zero and all seeds agree. Problems: {', '.join(problems)}."
    )
    if comparison.profile == code_paper.PROFILE:
        note += f" Paper values are {SECOND_HAND}; blank ones are not known."
    names = ("family", "steps", "model", *(measure(*item) for item in columns))
    return Table("pass@1 at equal steps", names, rows, 3, note)


def _problems(comparison: CodeComparison, name: str) -> str:
    return count(next((point.problems for point in comparison.points if point.set == name), None))


def _nearest_row(comparison: CodeComparison, family: str, columns: Sequence[Measure]) -> list[Sequence[str]]:
    found = {(point.set, point.part): point for point in comparison.points if point.arm == NEAREST}
    if not found:
        return []
    values = [_rate(found.get(item)) for item in columns]
    return [(family_label(family), "none", "nearest training example", *values)]


def _cell_rows(
    comparison: CodeComparison, family: str, cell: CellInfo, columns: Sequence[Measure]
) -> list[Sequence[str]]:
    """The rows of one family at one number of steps: models, differences, the paper's if they are comparable."""
    found = {(p.arm, p.set, p.part): p for p in comparison.points if (p.family, p.cell) == (family, cell.name)}
    differences = {
        (d.arm, d.set, d.part): d
        for d in comparison.differences
        if (d.family, d.cell, d.reference_cell, d.reference) == (family, cell.name, cell.name, REFERENCE_ARM)
    }
    head = (family_label(family), cell.name)
    rows: list[Sequence[str]] = []
    for arm in (BASE, *comparison.arms):
        rows.append((*head, code_arm_label(arm), *(_rate(found.get((arm, *item))) for item in columns)))
    for arm in comparison.arms:
        values = [_gain(differences.get((arm, *item))) for item in columns]
        if any(values):
            rows.append((*head, f"{code_arm_label(arm)} against {code_arm_label(REFERENCE_ARM)}", *values))
    if comparison.profile == code_paper.PROFILE:
        rows += _paper_rows(head, family, cell.name, columns)
    return [row for row in rows if any(row[3:])]


def _rate(point: CodePoint | None) -> str:
    return "" if point is None else rate_and_spread(point)


def _gain(difference: CodeDifference | None) -> str:
    if difference is None:
        return ""
    claimed = str(difference.verdict) in ("higher", "lower")
    return joined(points_span(difference.difference), "*" if claimed else "")


def _paper_rows(head: tuple[str, str], family: str, cell: str, columns: Sequence[Measure]) -> list[Sequence[str]]:
    entries = [code_paper.TABLE_3.get((family, cell, measure(*item))) for item in columns]
    binary = [number(entry.binary, 1) if entry else "" for entry in entries]
    soft = [number(entry.sm, 1) if entry else "" for entry in entries]
    gain = [number(entry.sm - entry.binary, 1, sign=True) if entry else "" for entry in entries]
    names = ("paper: binary", "paper: SM", "paper: SM against binary")
    return [(*head, name, *values) for name, values in zip(names, (binary, soft, gain), strict=True)]


def paper_notes(comparison: CodeComparison) -> Table:
    """Table 3 as far as it is known, for a run whose scale is not the paper's."""
    rows = [
        (family_label(family), cell, benchmark, number(entry.binary, 1), number(entry.sm, 1), _signed(entry))
        for (family, cell, benchmark), entry in code_paper.TABLE_3.items()
    ]
    columns = ("family", "steps", "benchmark", "binary", "SM", "gain")
    note = (
        f"Notes for orientation, {SECOND_HAND}: 7B models on HumanEval and MBPP, means of 5 seeds. This run's profile "
        f"is '{comparison.profile}', so its numbers are not comparable with them. The paper's MBPP is the original "
        f"test split (mbpp_full); EvalPlus's base subset has no paper value. {code_paper.REFERENCE_POINTS}"
    )
    return Table(code_paper.TITLE, columns, rows, 3, note)


def _signed(entry: code_paper.CodeEntry) -> str:
    return number(entry.sm - entry.binary, 1, sign=True)


def differences(comparison: CodeComparison) -> Table:
    """Paired differences at equal cells."""
    rows = [
        (
            family_label(item.family),
            measure(item.set, item.part),
            item.cell,
            code_arm_label(item.arm),
            code_arm_label(item.reference),
            cite(item, "verdict"),
            points_span(item.difference),
            _by_seed(item),
            cite(item, "seeds_sd", per_cent),
        )
        for item in comparison.differences
        if item.arm != item.reference
    ]
    columns = ("family", "benchmark", "cell", "model", "against", "verdict", "points", "by seed", "seed spread")
    note = (
        "Above zero is better than the reference. A verdict of higher or lower needs an interval that excludes zero, "
        f"all seeds agreeing, an open gate and at least {comparison.min_problems} problems."
    )
    return Table("Paired differences in pass@1", columns, rows, 6, note)


def _by_seed(item: CodeDifference) -> str:
    found = [cite(seed.difference, "estimate", points) for seed in item.seeds if seed.seed is not None]
    return joined(*found[:1], *(joined(", ", text) for text in found[1:]))


def everything(comparison: CodeComparison) -> Table:
    """Every arm on every part of every set at every cell, with what decoding cost."""
    rows = [
        (
            "" if point.arm == NEAREST else family_label(point.family),
            measure(point.set, point.part),
            point.cell,
            code_arm_label(point.arm),
            rate_and_spread(point),
            interval(point.pass1),
            cite(point, "empty_share", per_cent),
            cite(point, "forwards", number, 1),
            cite(point, "positions", number, 0),
            cite(point, "flops", flops),
            cite(point, "tokens", number, 1),
        )
        for point in comparison.points
    ]
    columns = (
        *("family", "benchmark", "cell", "model", "pass@1, %", "interval, %", "empty, %"),
        *("forwards", "positions", "FLOPs", "tokens"),
    )
    note = (
        "A problem, on average: real forward passes until its answer was finished; positions that went through the "
        "layers, which is what a cache saves; FLOPs by formula; response tokens before the first end token. Empty: "
        "answers that are only end tokens, counted as wrong."
    )
    return Table("Every cell", columns, rows, 4, note)


def cells(comparison: CodeComparison) -> Table:
    """What the cells' names stand for."""
    rows = [
        (
            cell.name,
            cell.budget,
            cell.cache,
            "whole response" if cell.block_length is None else f"blocks of {cell.block_length}",
            "all" if cell.sets is None else ", ".join(cell.sets),
        )
        for cell in comparison.cells
    ]
    return Table("Cells: how answers were decoded", ("cell", "steps", "cache", "order", "problem sets"), rows, 5)


def caches(comparison: CodeComparison) -> Table:
    """What each cache costs in quality, and what it saves."""
    rows = [
        (
            family_label(item.family),
            measure(item.set, item.part),
            code_arm_label(item.arm),
            item.cell,
            item.reference_cell,
            cite(item, "verdict"),
            points_span(item.difference),
            *(cite(item.costs, name, "{:.0%}".format) for name in ("forwards", "positions", "flops")),
        )
        for item in comparison.differences
        if item.costs is not None
    ]
    columns = (
        *("family", "benchmark", "model", "cell", "against", "verdict", "pass@1, points"),
        *("forwards", "positions", "FLOPs"),
    )
    note = (
        "The same model with and without a cache, paired by problem and seed. Forwards, positions and FLOPs are per "
        "cent of those without; times are on the page of the speed stage."
    )
    return Table("What a cache costs and saves", columns, rows, 6, note)


def gates(comparison: CodeComparison) -> Table:
    """Initial and final omegas, lambda, and whether the gate is open."""
    rows: list[Sequence[str]] = []
    for model in comparison.models:
        if model.gate is None:
            continue
        gate, name = model.gate, code_model_label(model.arm, model.seed)
        last = joined("final, step ", cite(gate, "step"))
        for title, omegas in (("initial", gate.initial_omegas), (last, gate.omegas)):
            final = omegas is gate.omegas
            values = (cite(omegas, name, number, 3) for name in ("omega_s", "omega_a", "omega_b"))
            lam = plus_minus(gate, "lam_mean", "lam_std", 3) if final else ""
            losses = [cite(gate, name, number, 4) if final else "" for name in ("loss", "loss_without")]
            state = ("open" if gate.open else "closed") if final else ""
            rows.append((family_label(model.family), name, title, *values, lam, *losses, state))
    columns = (
        *("family", "model", "", "omega_s", "omega_a", "omega_b", "lambda"),
        *("loss, two passes", "loss, one pass", "gate"),
    )
    note = (
        f"The gate is open if mean lambda at masked positions of validation answers is at least "
        f"{comparison.gate_lam:g}. lambda ± is its spread over positions. Final are the weights that were kept, those "
        "with the lowest validation loss."
    )
    return Table("Soft masks of the code study: omegas and gate", columns, rows, 3, note)


def costs(comparison: CodeComparison) -> Table:
    """Forwards, FLOPs and tokens of each training and of each model's answers, with their sum."""
    lines = [("training", model, model.training) for model in comparison.models if model.training]
    lines += [("answers", model, model.generation) for model in comparison.models if model.generation]
    lines = [line for line in lines if not line[2].is_empty]
    rows: list[Sequence[str]] = [
        (work, family_label(model.family), code_model_label(model.arm, model.seed), *cost(spent))
        for work, model, spent in lines
    ]
    rows.append(("all of these", "", "", *cost(add_costs([spent for _, _, spent in lines]))))
    columns = ("work", "family", "model", "updates", "forwards", "backwards", "FLOPs", "tokens")
    note = "Counted, not timed; FLOPs by formula. A forward of an answer is one pass over one sequence."
    return Table("What the code study cost", columns, rows, 3, note)


def disagreements(differing: Disagreements) -> Table:
    """How many problems only one of two arms solves."""
    rows = [
        (
            family_label(item.family),
            measure(item.set, item.part),
            item.cell,
            code_arm_label(item.arm),
            cite(item, "seed"),
            cite(item, "problems", count),
            cite(item, "only_arm", count),
            cite(item, "only_reference", count),
        )
        for item in differing.counts
    ]
    columns = ("family", "benchmark", "cell", "model", "seed", "problems", "only it solves", "only binary solves")
    return Table("Problems that only one of both arms solves", columns, rows, 5)


def has_caches(comparison: CodeComparison) -> bool:
    """Whether something was scored at a cell that is more than the paper's plain steps."""
    plain = {cell.name for cell in comparison.cells if cell.plain}
    return any(point.cell not in plain for point in comparison.points if point.arm != NEAREST)
