"""How arms, paths and numbers are written in sentences and tables; those of records that were read cite them."""

from collections.abc import Sequence

from reporting.cited import cite, joined
from reporting.schema import BASE, Cost, NllPath, Record, Span

ARM_LABELS = {
    BASE: "base",
    "binary": "binary",
    "sm_iso_update": "SM iso-update",
    "sm_iso_compute": "SM iso-compute",
    "sm_iso_flops": "SM iso-FLOPs",
}
PATH_LABELS = {NllPath.BINARY: "one pass, no feedback", NllPath.TWO_PASS: "two passes"}
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def arm_label(arm: str) -> str:
    """An arm's name for people; an arm that has none keeps its own."""
    return ARM_LABELS.get(arm, arm)


def model_label(arm: str, seed: int | None) -> str:
    """A model's name for people: its arm, and its seed if it has one."""
    return arm_label(arm) if seed is None else f"{arm_label(arm)}, seed {seed}"


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with so many decimals and a true minus; empty for None, and scientific where decimals would hide it."""
    if value is None:
        return ""
    if value != 0 and (abs(value) < 0.5 * 10**-digits or abs(value) >= 1e6):
        text = f"{value:+.1e}" if sign else f"{value:.1e}"
    else:
        text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def span(value: Span, digits: int = 2, sign: bool = False) -> str:
    """`estimate (low to high)`."""
    estimate, low, high = (cite(value, name, number, digits, sign) for name in Span.model_fields)
    return joined(estimate, " (", low, " to ", high, ")")


def plus_minus(record: Record, mean: str, deviation: str, digits: int = 2) -> str:
    """`mean ± deviation`, or the mean alone, of two fields of a record."""
    spread = cite(record, deviation, f"{{:,.{digits}f}}".format)
    return joined(cite(record, mean, number, digits), *((" ± ", spread) if spread else ()))


def count(value: float | None) -> str:
    """A whole number with thousands separators; empty for None."""
    return "" if value is None else f"{round(value):,}"


def flops(value: float | None) -> str:
    """FLOPs in scientific notation; empty for None."""
    return "" if value is None else f"{value:.3e}".replace("e+", "e")


def percent(change: float) -> str:
    """A relative change as a signed percentage."""
    return number(100 * change, 1, sign=True) + "%"


def listing(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def add_costs(costs: Sequence[Cost]) -> Cost:
    """The sum, field by field; a field that no cost states stays None."""

    def total(values: Sequence[float | None]) -> float | None:
        stated = [value for value in values if value is not None]
        return sum(stated) if stated else None

    return Cost.model_validate({name: total([getattr(cost, name) for cost in costs]) for name in Cost.model_fields})
