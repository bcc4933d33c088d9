"""The code study's pictures: pass@1 against real forward passes and FLOPs, and the soft masks during finetuning."""

from collections.abc import Callable, Mapping, Sequence

from reporting.code_labels import code_arm_label, family_label, measure
from reporting.code_schema import NEAREST, CodeComparison, CodePoint
from reporting.content import Figure, Figures, Table
from reporting.plots import Line, Panel, draw
from reporting.schema import BASE
from reporting.series import ReadRow

Rows = Sequence[ReadRow]
CACHES = ("none", "prefix", "dual")
"""By the lines' dashes: solid, dashed, dotted."""


def by_steps(comparison: CodeComparison, numbers: Sequence[Table]) -> Figures:
    """pass@1 against real forward passes at the paper's steps, a picture a family and benchmark; with `numbers`."""
    plain = {cell.name for cell in comparison.cells if cell.plain}
    figures = []
    for family in comparison.families:
        for name in comparison.sets:
            points = [point for point in _headline(comparison, family, name) if point.cell in plain]
            if points:
                title = f"{family_label(family)}, {measure(name, points[0].part)}"
                figures.append(_picture(comparison, title, f"steps-{family}-{name}", points, _forwards))
    return Figures(figures, numbers)


def by_cost(comparison: CodeComparison) -> Figures:
    """pass@1 against forwards and against FLOPs, a line an arm and cache, for sets that have more than plain cells."""
    plain = {cell.name for cell in comparison.cells if cell.plain}
    figures = []
    for family in comparison.families:
        for name in comparison.sets:
            points = _headline(comparison, family, name)
            if all(point.cell in plain for point in points):
                continue
            title = f"{family_label(family)}, {measure(name, points[0].part)}: "
            figures.append(_picture(comparison, title + "forwards", f"forwards-{family}-{name}", points, _forwards))
            if all(point.flops for point in points):
                figures.append(_picture(comparison, title + "FLOPs", f"flops-{family}-{name}", points, _flops))
    return Figures(figures, [])


def _headline(comparison: CodeComparison, family: str, name: str) -> list[CodePoint]:
    part = comparison.headline(name)
    return [p for p in comparison.points if (p.family, p.set, p.part) == (family, name, part)]


def _forwards(point: CodePoint) -> tuple[str, float]:
    return "real forward passes a problem", point.forwards


def _flops(point: CodePoint) -> tuple[str, float]:
    return "GFLOPs a problem", (point.flops or 0.0) / 1e9


def _picture(
    comparison: CodeComparison,
    title: str,
    name: str,
    points: Sequence[CodePoint],
    cost: Callable[[CodePoint], tuple[str, float]],
) -> Figure:
    caches = {cell.name: cell.cache for cell in comparison.cells}
    groups: dict[tuple[str, str], list[CodePoint]] = {}
    for point in points:
        groups.setdefault((point.arm, caches[point.cell]), []).append(point)
    labelled: list[str] = []
    lines = []
    for (arm, cache), own in groups.items():
        own = sorted(own, key=lambda point: cost(point)[1])
        label = "" if arm in labelled else code_arm_label(arm)
        labelled.append(arm)
        known = all(point.pass1_sd is not None for point in own)
        lines.append(
            Line(
                label=label,
                x=[cost(point)[1] for point in own],
                y=[100 * point.pass1.estimate for point in own],
                colour=[BASE, *comparison.arms].index(arm),
                dash=CACHES.index(cache),
                markers=True,
                error=[100 * (point.pass1_sd or 0.0) for point in own] if known else None,
            )
        )
    nearest = [p for p in comparison.points if (p.arm, p.set, p.part) == (NEAREST, points[0].set, points[0].part)]
    level = ("nearest example", 100 * nearest[0].pass1.estimate) if nearest else None
    label = cost(points[0])[0]
    alt = f"{title}: pass@1 against {label}, a line an arm and cache, bars for the spread over seeds. Numbers: tables."
    return Figure(title, draw(Panel(name.replace("_", "-"), label, "pass@1, %", lines, log_x=True, level=level)), alt)


def training(comparison: CodeComparison, plots: Mapping[str, Rows]) -> Figures:
    """Losses, omegas and lambda while finetuning, a line a seed.

    Args:
        plots: `loss`, `validation` and `gate`, the rows of the comparison's CSV files.
    """
    columns = {
        "omega_s": "omega_s (cap)",
        "omega_a": "omega_a (slope)",
        "omega_b": "omega_b (centre), nats",
        "lam_mean": "mean lambda",
    }
    figures = []
    for family in comparison.families:
        figures.append(_history(comparison, family, "training loss", plots["loss"], "loss", "loss"))
        figures.append(_history(comparison, family, "validation loss", plots["validation"], "eval_loss", "loss"))
        figures += [
            _history(comparison, family, label.split(",")[0], plots["gate"], name, label)
            for name, label in columns.items()
        ]
    return Figures([figure for figure in figures if figure is not None], [])


def _history(comparison: CodeComparison, family: str, title: str, rows: Rows, column: str, label: str) -> Figure | None:
    lines = []
    for model in comparison.models:
        key = f"{model.family}/{model.model}"
        own = [row for row in rows if row["model"] == key and row[column]]
        if model.family == family and model.arm != BASE and own and model.seed is not None:
            place = comparison.seeds.index(model.seed)
            lines.append(
                Line(
                    label=code_arm_label(model.arm) if place == 0 else "",
                    x=[float(row["step"]) for row in own],
                    y=[float(row[column]) for row in own],
                    colour=[BASE, *comparison.arms].index(model.arm),
                    dash=place,
                )
            )
    if not lines:
        return None
    title = f"{family_label(family)}: {title}"
    name = f"code-{family}-{column}".replace("_", "-")
    return Figure(title, draw(Panel(name, "step", label, lines)), f"{title} against step, a line a seed.")
