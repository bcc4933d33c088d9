"""The report's pictures: training curves, omegas, and quality against real forward passes."""

from collections.abc import Callable, Sequence

from reporting.cited import cited
from reporting.content import Figure, Figures, Table
from reporting.labels import arm_label, model_label, number
from reporting.plots import Line, Panel, draw
from reporting.schema import BASE, REFERENCE_ARM, Comparison, CurvePoint, GenerationMetrics
from reporting.series import ReadRow

Rows = Sequence[ReadRow]


def training(comparison: Comparison, loss: Rows) -> Figures:
    """The arms' loss and the base's, each on its own steps."""
    arms = [row for row in loss if row["model"] != BASE]
    base = [row for row in loss if row["model"] == BASE]
    panels = [("Loss of the arms", "loss-arms", arms), ("Loss of the base", "loss-base", base)]
    figures = [
        _history(comparison, title, name, rows, "loss", "loss, nats a token") for title, name, rows in panels if rows
    ]
    return Figures(figures, [_ends(comparison, loss, ("loss",), "Training loss")])


def gates(comparison: Comparison, gate: Rows) -> Figures:
    """Omegas and lambda during training."""
    columns = {
        "omega_s": "omega_s (cap)",
        "omega_a": "omega_a (slope)",
        "omega_b": "omega_b (centre), nats",
        "lam_mean": "mean lambda",
    }
    figures = [
        _history(comparison, label.split(",")[0], column.replace("_", "-"), gate, column, label)
        for column, label in columns.items()
    ]
    return Figures(figures, [_ends(comparison, gate, tuple(columns), "Omegas and lambda during training")])


def _history(comparison: Comparison, title: str, name: str, rows: Rows, column: str, label: str) -> Figure:
    lines = []
    for model in comparison.models:
        own = [row for row in rows if row["model"] == model.model and row[column]]
        if own:
            seeds = comparison.seeds
            first = model.seed in (None, seeds[0])
            lines.append(
                Line(
                    label=arm_label(model.arm) if first else "",
                    x=[float(row["step"]) for row in own],
                    y=[float(row[column]) for row in own],
                    colour=_colour(comparison, model.arm),
                    dash=0 if model.seed is None else seeds.index(model.seed),
                )
            )
    names = ", ".join(dict.fromkeys(line.label for line in lines if line.label))
    alt = f"{title} against step, for {names}; a line a seed. The table below has first and last values."
    return Figure(title, draw(Panel(name, "step", label, lines)), alt)


def _ends(comparison: Comparison, rows: Rows, columns: Sequence[str], caption: str) -> Table:
    """First and last record of each model."""
    table = []
    for model in comparison.models:
        own = [row for row in rows if row["model"] == model.model]
        for row in own[:1] + own[1:][-1:]:
            step, *values = (_read(row, column, digits) for column, digits in (("step", 0), *((c, 4) for c in columns)))
            table.append((model_label(model.arm, model.seed), step, *values))
    return Table(f"{caption}: first and last record", ("model", "step", *columns), table)


def _read(row: ReadRow, column: str, digits: int) -> str:
    value = row[column]
    return cited(number(float(value), digits), f"{row.place}.{column}", value) if value else ""


def generation(comparison: Comparison) -> Figures:
    """Generative perplexity, entropy and (where printed) MAUVE against real passes, a row of pictures a sampler."""
    figures = []
    for sampler in dict.fromkeys(point.sampler for point in comparison.curves):
        points = [point for point in comparison.curves if point.sampler == sampler] + _stand_ins(comparison, sampler)
        figures += [
            _quality(
                comparison,
                f"{sampler}: generative perplexity",
                points,
                lambda p: (p.gen_ppl, p.gen_ppl_sd),
                lambda real: real.gen_ppl,
                log_y=True,
            ),
            _quality(
                comparison,
                f"{sampler}: entropy, nats",
                points,
                lambda p: (p.entropy, p.entropy_sd),
                lambda real: real.entropy,
            ),
        ]
        scored = [point for point in points if point.mauve is not None]
        if scored:
            figures.append(
                _quality(
                    comparison,
                    f"{sampler}: MAUVE",
                    scored,
                    lambda p: (p.mauve or 0.0, p.mauve_sd),
                    lambda real: real.mauve.mean if real.mauve else None,
                )
            )
    return Figures(figures, [])


def _stand_ins(comparison: Comparison, sampler: str) -> list[CurvePoint]:
    """The curves that the pairs compare this sampler with, where the binary arm lacks it."""
    others = {p.reference_sampler for p in comparison.pairs if p.sampler == sampler and p.reference_sampler != sampler}
    return [point for point in comparison.curves if point.arm == REFERENCE_ARM and point.sampler in others]


def _quality(
    comparison: Comparison,
    title: str,
    points: Sequence[CurvePoint],
    value: Callable[[CurvePoint], tuple[float, float | None]],
    real: Callable[[GenerationMetrics], float | None],
    log_y: bool = False,
) -> Figure:
    lines = []
    for arm in dict.fromkeys(point.arm for point in points):
        own = sorted((point for point in points if point.arm == arm), key=lambda point: point.real_nfe)
        values = [value(point) for point in own]
        known = all(deviation is not None for _, deviation in values)
        lines.append(
            Line(
                label=arm_label(arm) + ("" if own[0].sampler == points[0].sampler else f" ({own[0].sampler})"),
                x=[point.real_nfe for point in own],
                y=[mean for mean, _ in values],
                colour=_colour(comparison, arm),
                markers=True,
                error=[deviation or 0.0 for _, deviation in values] if known else None,
            )
        )
    level = real(comparison.real_text)
    name = "".join(c if c.isalnum() else "-" for c in title.lower())
    panel = Panel(
        name,
        "real forward passes",
        title.split(": ")[1],
        lines,
        log_x=True,
        log_y=log_y,
        level=None if level is None else ("real text", level),
    )
    alt = f"{title} against real forward passes, a line an arm, bars for the spread over seeds. Numbers: next table."
    return Figure(title, draw(panel), alt)


def _colour(comparison: Comparison, arm: str) -> int:
    return [BASE, *comparison.arms].index(arm)
