"""The typed shape of what the code comparison reads and writes, `reports/code_comparison.json` above all.

Knows no rule and no sentence.
"""

from enum import StrEnum
from typing import Any

from artifacts.manifest import Environment
from reporting.schema import Cost, Omegas, Record, Span

NEAREST = "nearest"
"""Family and arm of the baseline that answers with the nearest training example; its one model is `train`."""
NEAREST_MODEL = "train"


class Part(StrEnum):
    """Which part of a set's tests an answer passes."""

    BASE = "base"
    """The tests that a set came with."""
    PLUS = "plus"
    """All of them, EvalPlus's further tests included."""


class Status(StrEnum):
    """How an answer fared."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    TIMEOUT = "timeout"
    LIMIT = "limit"


class VerdictRow(Record):
    """A line of `verdicts.jsonl`."""

    set: str
    task_id: str
    cell: str
    solution: str
    base: Status | None
    plus: Status | None
    detail: Any = None

    def passes(self, part: Part) -> bool | None:
        """Whether it passes; the plus tests take the base ones in (EvalPlus's rule). None where the set has none."""
        if part is Part.BASE:
            return None if self.base is None else self.base is Status.PASS
        return None if self.plus is None else self.plus is Status.PASS and self.base in (None, Status.PASS)


class ScoredCell(Record):
    """One set at one cell in a model's metrics.json; shares from 0 to 1, means over problems."""

    set: str
    cell: str
    problems: int
    pass_base: float | None
    pass_plus: float | None
    empty_share: float
    forwards_mean: float
    positions_mean: float
    tokens_mean: float

    def rate(self, part: Part) -> float | None:
        """pass@1 on these tests."""
        return self.pass_base if part is Part.BASE else self.pass_plus


class CodeMetrics(Record):
    """`data/code/scores/{family}/{model}/metrics.json`."""

    family: str
    model: str
    arm: str | None
    seed: int | None
    cells: list[ScoredCell]


class DecodeCost(Record):
    """What decoding one set at one cell cost, summed over its problems."""

    set: str
    cell: str
    problems: int
    forwards: int
    positions: int
    head_rows: int
    flops: int


class GenerationCosts(Record):
    """`data/code/samples/{family}/{model}/costs.json`."""

    family: str
    model: str
    cells: list[DecodeCost]


class CellInfo(Record):
    """A cell of `code.generation.cells`, as far as it is shown."""

    name: str
    budget: str
    """In words, such as `1/4 of the response length`."""
    cache: str
    block_length: int | None
    sets: list[str] | None

    @property
    def plain(self) -> bool:
        """Whether it is the paper's way: no cache, no blocks."""
        return self.cache == "none" and self.block_length is None


class CodeGate(Record):
    """Whether a soft-masked model's gate is open, as measured with the weights that its training kept, and why."""

    open: bool
    reason: str
    step: int
    """Where it was measured."""
    lam_mean: float
    lam_std: float
    omegas: Omegas
    initial_omegas: Omegas
    loss: float
    """Validation loss with feedback (two passes)."""
    loss_without: float
    """Validation loss of the same model on one pass."""


class CodeModelRow(Record):
    """One model."""

    family: str
    model: str
    arm: str
    seed: int | None
    gate: CodeGate | None
    training: Cost | None
    generation: Cost | None


class CodePoint(Record):
    """An arm on one set's tests at one cell: means over seeds, intervals over problems, spread over seeds."""

    family: str
    arm: str
    set: str
    part: Part
    cell: str
    seeds: int
    problems: int
    pass1: Span
    pass1_sd: float | None
    empty_share: float
    forwards: float
    """Real forward passes a problem."""
    positions: float
    """Positions a problem that went through the layers: what a cache saves."""
    tokens: float
    """Response tokens before the first end token."""
    flops: float | None
    """A problem; None where nothing was decoded."""


class CodeVerdict(StrEnum):
    """What may be said about a difference in pass@1."""

    HIGHER = "higher"
    """The interval excludes zero and all seeds agree."""
    LOWER = "lower"
    """As HIGHER, the other way."""
    UNDECIDED = "can't be told apart"
    """The interval holds zero, or seeds disagree."""
    TOO_FEW = "too few problems, no claim"
    """Fewer problems than `code.compare.min_problems`."""
    GATE_CLOSED = "gate closed"
    """A soft-masked model whose gate is closed computes (nearly) what a binary one does: nothing to compare."""


class SeedRate(Record):
    """One seed's paired difference in pass@1; the seed is None for the base."""

    seed: int | None
    difference: Span


class CostShares(Record):
    """What decoding a problem costs, as shares of what it costs at the reference's cell; None where it is unknown."""

    forwards: float | None = None
    positions: float | None = None
    flops: float | None = None


class CodeDifference(Record):
    """pass@1 of an arm at a cell minus that of a reference, paired by problem and by training seed."""

    family: str
    set: str
    part: Part
    arm: str
    cell: str
    reference: str
    reference_cell: str
    problems: int
    seeds: list[SeedRate]
    difference: Span
    """Of the mean over seeds."""
    seeds_sd: float | None
    seeds_agree: bool
    verdict: CodeVerdict
    costs: CostShares | None = None
    """Of the same model at two cells."""


class CodeTopic(StrEnum):
    """What a finding is about, in the report's order."""

    GATE = "gate"
    PASS = "pass"
    CACHE = "cache"
    LIMITS = "limits"


class CodeFinding(Record):
    """One plain sentence, made from the numbers by rule, and the numbers that it rests on."""

    topic: CodeTopic
    text: str
    evidence: str = ""


class Answer(Record):
    """What one model answered to a problem."""

    arm: str
    seed: int | None
    passes: bool
    status: str
    text: str
    """Generated: untrusted."""
    cut: int
    """Characters that were left out."""


class Disagreement(Record):
    """A problem that one arm solves and the binary arm doesn't, or the other way, at one seed and cell."""

    family: str
    set: str
    part: Part
    cell: str
    task_id: str
    request: str
    arm: Answer
    reference: Answer


class DisagreementCount(Record):
    """How many such problems there are, of which some are listed."""

    family: str
    set: str
    part: Part
    cell: str
    arm: str
    seed: int
    problems: int
    only_arm: int
    only_reference: int


class Disagreements(Record):
    """`reports/code_disagreements.json`."""

    counts: list[DisagreementCount]
    listed: list[Disagreement]


class CodeComparison(Record):
    """`reports/code_comparison.json`: everything that the report says in numbers about the code study."""

    profile: str
    families: list[str]
    seeds: list[int]
    arms: list[str]
    sets: list[str]
    cells: list[CellInfo]
    resamples: int
    level: float
    min_problems: int
    gate_lam: float
    findings: list[CodeFinding]
    models: list[CodeModelRow]
    points: list[CodePoint]
    differences: list[CodeDifference]
    environments: list[Environment]
    """The distinct environments that answers were generated in."""
    inputs: dict[str, str]
    """MD5 of every file that was read."""

    def headline(self, name: str) -> Part:
        """The tests of a set that its pass@1 without a word more is about: all that it has."""
        kinds = {point.part for point in self.points if point.set == name}
        return Part.PLUS if Part.PLUS in kinds else Part.BASE
