"""The typed shape of what the comparison reads and writes: one model's metrics, and `reports/comparison.json`.

Knows no rule and no sentence. Metrics may carry further keys, which are not looked at.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from artifacts.manifest import Environment
from softmask.evaluation.intervals import Interval

BASE = "base"
REFERENCE_ARM = "binary"
"""The arm that soft-masked arms are compared with."""


class Record(BaseModel):
    """A record in a file between stages."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    _place: str = ""

    @property
    def place(self) -> str:
        """Where it was read, as `PATH:KEY` (`PATH:` for the whole file); empty for one that was made here."""
        return self._place

    def key(self, field: str) -> str:
        """`PATH:KEY` of a field."""
        return _below(self.place, field)

    def read_from(self, place: str) -> Self:
        """This record, told where it was read; all records in it are told, too."""
        _tell(self, place)
        return self


def _tell(value: Any, place: str) -> None:
    inner: Iterable[tuple[object, Any]] = ()
    if isinstance(value, Record):
        value._place = place
        inner = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, below in inner:
        _tell(below, _below(place, key))


def _below(place: str, key: object) -> str:
    return f"{place}{'' if place.endswith(':') else '.'}{key}"


class NllPath(StrEnum):
    """Which process a perplexity bounds: one pass a step, or both passes at every step (soft-masked models only)."""

    BINARY = "binary"
    TWO_PASS = "two_pass"


class Omegas(Record):
    """The soft mask's parameters."""

    omega_s: float
    omega_a: float
    omega_b: float
    temperature: float | None = None


class EntropyBin(Record):
    """Masked positions whose entropy is below a bound (and not below the previous one): their share and lambda."""

    below: float | None
    share: float
    lam_mean: float | None


class GateMetrics(Record):
    """Lambda at masked positions of validation text."""

    lam_mean: float
    lam_std: float
    by_entropy: list[EntropyBin]
    omegas: Omegas
    initial_omegas: Omegas


class PerplexityMetrics(Record):
    """The evaluator's perplexity on one path."""

    nll: float
    ppl: float
    bits_per_byte: float
    monte_carlo_se: float | None


class MauveMetrics(Record):
    """MAUVE over its k-means seeds."""

    mean: float
    std: float | None
    seeds: dict[str, float]
    references: int


class GenerationMetrics(Record):
    """Samples of one (sampler, nominal NFE); both are None for real text."""

    sampler: str | None
    nfe: int | None
    real_nfe_mean: float | None
    samples: int
    tokens: int
    gen_ppl: float
    entropy: float
    mauve: MauveMetrics | None
    mauve_note: str | None = None


class Cost(Record):
    """Deterministic cost: what was computed, not how long it took."""

    updates: int | None = None
    forwards: int | None = None
    backwards: int | None = None
    flops: float | None = None
    tokens: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it states nothing."""
        return all(getattr(self, name) is None for name in Cost.model_fields)


class EvaluationCost(Cost):
    """Of measuring perplexity, and of the judge's work on the samples."""

    judge: Cost | None = None


class CostLine(Record):
    """What one piece of work cost."""

    work: str
    model: str
    cost: Cost


class Evaluated(Record):
    """What perplexity was measured on."""

    tokens: int
    bytes: int
    draws: int
    documents: int | None = None


class ModelMetrics(Record):
    """`data/evaluation/{model}/metrics.json`."""

    model: str
    arm: str | None
    seed: int | None
    perplexity: dict[NllPath, PerplexityMetrics | None]
    evaluated: Evaluated
    gate: GateMetrics | None = None
    generation: list[GenerationMetrics]
    training: Cost | None = None
    evaluation_cost: EvaluationCost | None = None

    @property
    def paths(self) -> list[NllPath]:
        """The paths that it has a perplexity for."""
        return [path for path in NllPath if self.perplexity.get(path) is not None]

    @property
    def own_path(self) -> NllPath:
        """The path that it was trained for: two passes with a soft mask, else one."""
        return self.paths[-1]


class JudgeMetrics(Record):
    """The judge's own perplexity on validation text."""

    ppl: float
    nll: float
    tokens: int


class ReferenceMetrics(Record):
    """`data/references/metrics.json`."""

    model: str
    generation_row: GenerationMetrics
    judge: JudgeMetrics
    note: str | None = None


class Span(Record):
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> "Span":
        """From a computed interval."""
        return cls(**interval._asdict())


class Verdict(StrEnum):
    """What may be said about a difference (lower is better for NLL and perplexity)."""

    LOWER = "lower"
    """The interval excludes zero and all seeds agree."""
    HIGHER = "higher"
    """As LOWER, the other way."""
    LOWER_IN_EVERY_SEED = "lower in every seed"
    """All seeds agree, but no interval over them excludes zero (two seeds seldom give one)."""
    HIGHER_IN_EVERY_SEED = "higher in every seed"
    """As LOWER_IN_EVERY_SEED, the other way."""
    UNDECIDED = "can't be told apart"
    """The interval holds zero, or seeds disagree."""
    ONE_SEED = "one seed, no claim"
    """Generation has no interval within a seed, so one seed can't tell a difference from chance."""
    GATE_CLOSED = "gate closed"
    """A soft-masked model whose gate is closed computes (nearly) what a binary one does: nothing to compare."""


class PathPerplexity(Record):
    """Perplexity of one model, or of an arm over its seeds, on one path."""

    nll: Span
    ppl: Span
    bits_per_byte: Span
    monte_carlo_se: float | None = None
    seeds_sd: float | None = None
    """Spread of the NLL over seeds; None for one model or one seed."""


class Gate(Record):
    """Whether a soft-masked model's gate is open, and why."""

    open: bool
    reason: str
    effect: Span
    """NLL with lambda forced to 0 minus NLL with feedback, nats a token: above zero where feedback helps."""
    metrics: GateMetrics


class ModelRow(Record):
    """One trained model."""

    model: str
    arm: str
    """`base` for the base."""
    seed: int | None
    perplexity: dict[NllPath, PathPerplexity]
    gate: Gate | None
    training: Cost | None
    evaluation_cost: EvaluationCost | None


class ArmRow(Record):
    """An arm over its seeds."""

    arm: str
    seeds: list[int]
    perplexity: dict[NllPath, PathPerplexity]
    own_path: NllPath
    gate_open: list[int] | None
    """Seeds whose gate is open; None without a soft mask."""


class SeedDifference(Record):
    """One seed's paired difference in NLL, nats a token."""

    seed: int
    nll: Span
    monte_carlo_se: float | None


class Difference(Record):
    """An arm against a reference on the same documents, masks and (for the binary arm) the same training seed."""

    arm: str
    path: NllPath
    reference: str
    reference_path: NllPath
    seeds: list[SeedDifference]
    nll: Span
    """Of the mean over seeds."""
    seeds_sd: float | None
    seeds_agree: bool
    verdict: Verdict


class GenerationRow(Record):
    """Generation metrics of one model at one (sampler, nominal NFE)."""

    model: str
    arm: str
    seed: int | None
    metrics: GenerationMetrics


class CurvePoint(Record):
    """An arm's generation at one (sampler, nominal NFE), mean and spread over seeds."""

    arm: str
    sampler: str
    nfe: int
    seeds: int
    samples: int
    real_nfe: float
    gen_ppl: float
    gen_ppl_sd: float | None
    entropy: float
    entropy_sd: float | None
    mauve: float | None
    mauve_sd: float | None
    """Over seeds of training; over k-means seeds where there is one training seed."""
    mauve_note: str | None


class How(StrEnum):
    """How a value at a given number of real forward passes was had."""

    MEASURED = "measured"
    INTERPOLATED = "interpolated"


class SeedPair(Record):
    """One seed's generation at equal real forward passes."""

    seed: int
    real_nfe: float
    """The reference's."""
    arm_real_nfe: float
    """Of the arm's point that was used, or `real_nfe` where the value is interpolated."""
    how: How
    gen_ppl: float
    reference_gen_ppl: float
    entropy: float
    reference_entropy: float


class GenerationPair(Record):
    """An arm against the binary arm at equal real forward passes."""

    arm: str
    sampler: str
    reference_sampler: str
    nfe: int
    """Nominal, of the reference."""
    seeds: list[SeedPair]
    real_nfe: float
    """The reference's, mean over seeds, as the next two."""
    gen_ppl: float
    reference_gen_ppl: float
    log_ratio: float
    """Mean over seeds of log(gen PPL of the arm / gen PPL of the reference)."""
    interval: Span | None
    """Student's t over seeds; None for one seed."""
    change: float
    """exp(log_ratio) - 1: by which share generative perplexity differs."""
    change_interval: Span | None
    """`interval` as such shares."""
    seeds_sd: float | None
    entropy_difference: float
    verdict: Verdict
    sharper: bool
    """Lower generative perplexity that comes with clearly lower entropy."""


class Topic(StrEnum):
    """What a finding is about, in the report's order."""

    GATE = "gate"
    PERPLEXITY = "perplexity"
    GENERATION = "generation"
    LIMITS = "limits"


class Finding(Record):
    """One plain sentence, made from the numbers by rule, and the numbers that it rests on."""

    topic: Topic
    text: str
    evidence: str = ""


class Resampling(Record):
    """What the intervals were made from."""

    unit_kind: str
    units: int
    tokens: int
    bytes: int
    draws: int
    resamples: int
    level: float
    seed: int


class Comparison(Record):
    """`reports/comparison.json`: everything that the report says in numbers."""

    profile: str
    seeds: list[int]
    arms: list[str]
    resampling: Resampling
    findings: list[Finding]
    models: list[ModelRow]
    arm_rows: list[ArmRow]
    """The base first."""
    differences: list[Difference]
    generation: list[GenerationRow]
    curves: list[CurvePoint]
    pairs: list[GenerationPair]
    nfe_tolerance: float
    gate_lam: float
    real_text: GenerationMetrics
    real_text_note: str | None
    judge: JudgeMetrics
    environments: list[Environment]
    """The distinct environments that the evaluations ran in."""
    inputs: dict[str, str]
    """MD5 of every file that was read."""
