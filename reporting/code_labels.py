"""How families, problem sets, cells and pass rates are written in sentences and tables of the code study."""

from reporting.cited import cite, joined
from reporting.code_schema import NEAREST, CodePoint, Part
from reporting.labels import DASH, arm_label, number
from reporting.schema import Span

FAMILY_LABELS = {"dream": "Dream", "dream_coder": "Dream-Coder"}
ARM_LABELS = {
    NEAREST: "nearest example",
    "sm": "SM",
    "sm_iso_compute": "SM iso-compute",
    "sm_equal_compute": "SM at equal compute",
}
MEASURES = {
    ("humaneval", Part.BASE): "HumanEval",
    ("humaneval_plus", Part.BASE): "HumanEval",
    ("humaneval_plus", Part.PLUS): "HumanEval+",
    ("mbpp_full", Part.BASE): "MBPP",
    ("mbpp_plus", Part.BASE): "mbpp_evalplus_base",
    ("mbpp_plus", Part.PLUS): "MBPP+",
    ("gsm8k", Part.BASE): "GSM8K",
    ("math500", Part.BASE): "MATH-500",
}
"""The paper's MBPP is the original test split; EvalPlus's base subset of it has no paper value (method, section 9)."""


def family_label(family: str) -> str:
    """A family's name for people; one that has none keeps its own."""
    return FAMILY_LABELS.get(family, family)


def code_arm_label(arm: str) -> str:
    """An arm's name for people."""
    return ARM_LABELS.get(arm) or arm_label(arm)


def code_model_label(arm: str, seed: int | None) -> str:
    """A model's name for people: its arm, and its seed if it has one."""
    return code_arm_label(arm) if seed is None else f"{code_arm_label(arm)}, seed {seed}"


def measure(name: str, part: Part) -> str:
    """What a set's part measures: the benchmark's name, or the set's own with + for the further tests."""
    return MEASURES.get((name, part)) or (f"{name}+" if part is Part.PLUS else name)


def rate(value: float) -> str:
    """A share as a percentage."""
    return f"{per_cent(value)} %"


def points(value: float) -> str:
    """A difference of shares in points, signed."""
    return number(round(100 * value, 9) + 0.0, 1, sign=True)  # a mean's rounding error is no difference, nor is -0


def points_span(value: Span) -> str:
    """`difference (low to high)` in points."""
    estimate, low, high = (cite(value, name, points) for name in Span.model_fields)
    return joined(estimate, " (", low, " to ", high, ")")


def per_cent(value: float) -> str:
    """A share in per cent, for columns that say so."""
    return number(100 * value, 1)


def rate_and_spread(point: CodePoint) -> str:
    """pass@1, `mean ± deviation` over seeds in per cent, or the mean alone."""
    spread = cite(point, "pass1_sd", lambda deviation: f"{100 * deviation:.1f}")
    return joined(cite(point.pass1, "estimate", per_cent), *((" ± ", spread) if spread else ()))


def interval(value: Span) -> str:
    """The bounds of a rate, in per cent."""
    return joined(cite(value, "low", per_cent), DASH, cite(value, "high", per_cent))
