"""Findings of the code study: plain sentences that rules make from the numbers, whichever way these went.

"More" and "fewer" without a qualifier are claims: the interval over problems excludes zero and all seeds agree.
"""

from collections.abc import Iterable, Sequence

from reporting.code_labels import (
    code_arm_label,
    code_model_label,
    family_label,
    measure,
    points,
    points_span,
    rate,
)
from reporting.code_schema import (
    NEAREST,
    CellInfo,
    CodeDifference,
    CodeFinding,
    CodeModelRow,
    CodePoint,
    CodeTopic,
    CodeVerdict,
    Part,
)
from reporting.labels import listing, number
from reporting.params.code_compare import CodeCompareParams
from reporting.schema import BASE, REFERENCE_ARM

SEVERAL_SEEDS = 2
SOLVES = {
    CodeVerdict.HIGHER: "solves more problems than {other}",
    CodeVerdict.LOWER: "solves fewer problems than {other}",
    CodeVerdict.UNDECIDED: "can't be told apart from {other}",
    CodeVerdict.TOO_FEW: "has too few problems to be compared with {other}",
}
CACHE = {
    CodeVerdict.HIGHER: "solves more problems than without",
    CodeVerdict.LOWER: "solves fewer problems than without",
    CodeVerdict.UNDECIDED: "can't be told apart from none",
    CodeVerdict.TOO_FEW: "has too few problems to be compared with none",
}

Group = Sequence[CodeDifference]


def code_findings(
    models: Sequence[CodeModelRow],
    points_found: Sequence[CodePoint],
    differences: Sequence[CodeDifference],
    cells: Sequence[CellInfo],
    params: CodeCompareParams,
) -> list[CodeFinding]:
    """Everything that was found, in the report's order: gates, pass@1, caches, limits."""
    plain = {cell.name for cell in cells if cell.plain}
    headline = _headlines(points_found)
    shown = [d for d in differences if d.part is headline[d.set]]
    return [
        *_gates(models),
        *_against_binary([d for d in shown if d.cell in plain], params.level),
        *_finetuning_alone([d for d in shown if d.cell in plain]),
        *_against_nearest([d for d in shown if d.reference == NEAREST and d.cell in plain]),
        *_caches([d for d in shown if d.arm == d.reference]),
        *_limits(models, [p for p in points_found if p.part is headline[p.set]], differences, params),
    ]


def _headlines(found: Sequence[CodePoint]) -> dict[str, Part]:
    kinds: dict[str, Part] = {}
    for point in found:
        kinds[point.set] = Part.PLUS if Part.PLUS in (point.part, kinds.get(point.set)) else Part.BASE
    return kinds


def _gates(models: Sequence[CodeModelRow]) -> list[CodeFinding]:
    """One finding a soft-masked arm of a family: open in which seeds, and why not in the others."""
    groups: dict[tuple[str, str], list[CodeModelRow]] = {}
    for model in models:
        if model.gate is not None:
            groups.setdefault((model.family, model.arm), []).append(model)
    found = []
    for (family, arm), rows in groups.items():
        name = f"{code_arm_label(arm)} ({family_label(family)})"
        closed = [row for row in rows if row.gate and not row.gate.open]
        if closed:
            text = (
                f"The gate of {name} is closed in {listing([f'seed {row.seed}' for row in closed])}: a comparison "
                "with binary masking would not test soft-masking, so none is made."
            )
            evidence = " ".join(f"Seed {row.seed}: {row.gate.reason}." for row in closed if row.gate)
        else:
            text = f"The gate of {name} is open in {_every(len(rows))}."
            lam = listing([number(row.gate.lam_mean, 2) for row in rows if row.gate])
            caps = listing([number(row.gate.omegas.omega_s, 2) for row in rows if row.gate])
            evidence = f"Mean lambda {lam}, omega_s {caps} in the weights that were kept."
        found.append(CodeFinding(topic=CodeTopic.GATE, text=text, evidence=evidence))
    return found


def _every(seeds: int) -> str:
    return {1: "its one seed", 2: "both seeds"}.get(seeds, f"all {seeds} seeds")


def _grouped(differences: Iterable[CodeDifference]) -> list[Group]:
    groups: dict[tuple[str, str, str, str], list[CodeDifference]] = {}
    for item in differences:
        if item.verdict is not CodeVerdict.GATE_CLOSED:
            groups.setdefault((item.family, item.set, item.arm, item.reference), []).append(item)
    return list(groups.values())


def _against_binary(differences: Group, level: float) -> list[CodeFinding]:
    """One finding a (family, set, soft-masked arm), over the steps of the paper's tables."""
    groups = _grouped(d for d in differences if d.reference == REFERENCE_ARM and d.arm != d.reference)
    return [
        CodeFinding(
            topic=CodeTopic.PASS,
            text=f"{_where(group[0])}: {code_arm_label(group[0].arm)} {_said(group, SOLVES)}.",
            evidence=_evidence(group, level),
        )
        for group in groups
    ]


def _finetuning_alone(differences: Group) -> list[CodeFinding]:
    """What finetuning does without soft-masking, a finding a family."""
    found = []
    for family in dict.fromkeys(item.family for item in differences):
        groups = _grouped(d for d in differences if (d.family, d.arm, d.reference) == (family, REFERENCE_ARM, BASE))
        parts = []
        for verdict, phrase in SOLVES.items():
            at = [
                (measure(group[0].set, group[0].part), [d.cell for d in group if d.verdict is verdict])
                for group in groups
            ]
            places = [f"{name} (at {listing(cells)})" for name, cells in at if cells]
            if places:
                parts.append(f"{phrase.format(other='the base')} on {listing(places)}")
        if parts:
            text = f"{family_label(family)}: {code_arm_label(REFERENCE_ARM)} {'; it '.join(parts)}."
            found.append(CodeFinding(topic=CodeTopic.PASS, text=text))
    return found


def _where(item: CodeDifference) -> str:
    return f"{family_label(item.family)}, {measure(item.set, item.part)}"


def _said(group: Group, phrases: dict[CodeVerdict, str]) -> str:
    """Each verdict with the cells that it was reached at."""
    other = "the base" if group[0].reference == BASE else code_arm_label(group[0].reference)
    parts = []
    for verdict, phrase in phrases.items():
        at = [item.cell for item in group if item.verdict is verdict]
        if at:
            parts.append(f"{phrase.format(other=other)} at {listing(at)}")
    return "; it ".join(parts)


def _evidence(group: Group, level: float) -> str:
    first = group[0]
    parts = [f"{points_span(item.difference)} at {item.cell}" for item in group]
    seeds = len(first.seeds)
    over = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
    basis = f"{over}, {level:.0%} intervals over {first.problems:,} problems"
    text = f"pass@1 differs, in points, by {listing(parts)} ({basis})"
    disagreeing = [item for item in group if _seeds_disagree(item)]
    if disagreeing:
        values = "; ".join(
            f"at {item.cell} {listing([points(seed.difference.estimate) for seed in item.seeds])}"
            for item in disagreeing
        )
        text += f"; seeds disagree {values}"
    return text + "."


def _seeds_disagree(item: CodeDifference) -> bool:
    """Seeds without any difference don't."""
    several = len(item.seeds) >= SEVERAL_SEEDS and not item.seeds_agree
    return several and any(seed.difference.estimate for seed in item.seeds)


def _against_nearest(differences: Group) -> list[CodeFinding]:
    """Whether the base does more than recall, at its best cell of the paper's kind."""
    found = []
    for group in _grouped(differences):
        best = max(group, key=lambda item: item.difference.estimate)
        verb = SOLVES[best.verdict].format(other="answering with the nearest training example")
        text = f"{_where(best)}: the base, at its best ({best.cell}), {verb}."
        evidence = f"pass@1 differs by {points_span(best.difference)} points over {best.problems:,} problems."
        found.append(CodeFinding(topic=CodeTopic.PASS, text=text, evidence=evidence))
    return found


def _caches(differences: Group) -> list[CodeFinding]:
    """What a cache costs in quality, a finding an arm and set."""
    found = []
    for group in _grouped(differences):
        name = (
            f"{_where(group[0])}: {'the base' if group[0].arm == BASE else code_arm_label(group[0].arm)} with a cache"
        )
        evidence = "; ".join(
            f"{item.cell} against {item.reference_cell}: {points_span(item.difference)} points" for item in group
        )
        found.append(CodeFinding(topic=CodeTopic.CACHE, text=f"{name} {_said(group, CACHE)}.", evidence=evidence + "."))
    return found


def _limits(
    models: Sequence[CodeModelRow], shown: Sequence[CodePoint], differences: Group, params: CodeCompareParams
) -> list[CodeFinding]:
    """What the reader must keep in mind about this run's size and its answers."""
    texts = []
    counts = {item.set: item.problems for item in shown}
    few = [f"{name} ({count})" for name, count in counts.items() if count < params.min_problems]
    if few:
        texts.append(f"Sets of few problems: {listing(few)}; below {params.min_problems} no difference is claimed.")
    seeds = {len(item.seeds) for item in differences if item.reference == REFERENCE_ARM != item.arm}
    if seeds == {1}:
        texts.append("One seed of finetuning was run: how far pass@1 spreads over seeds is unknown.")
    if not any(model.arm == REFERENCE_ARM for model in models) and any(model.arm != BASE for model in models):
        texts.append("There is no binary arm in this run, so soft-masking is compared with the base only.")
    empty = max(shown, key=lambda item: item.empty_share, default=None)
    if empty is not None and empty.empty_share >= params.empty_share:
        texts.append(
            f"Answers that are only end tokens count as wrong: up to {rate(empty.empty_share)} "
            f"({family_label(empty.family)}, {code_model_label(empty.arm, None)}, {empty.set} at {empty.cell})."
        )
    return [CodeFinding(topic=CodeTopic.LIMITS, text=text) for text in texts]
