"""`retrain`: what a scheduled retrain takes in, which model it promotes, and what a candidate has to show.

Read by `pipelines/retrain.py` and by the commands that it runs, `commands/snapshot.py` and `commands/promotion.py`.
"""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Section, Seed


class Metric(StrEnum):
    """What is measured of both models on the champion's validation text, in nats a token."""

    NLL = "nll"
    """The arm's own NLL: a soft-masked arm's is that of its second pass."""
    NLL_WITHOUT_FEEDBACK = "nll_without_feedback"
    """A soft-masked arm's NLL in one pass."""


class Direction(StrEnum):
    """Which values of a metric are better."""

    LOWER = "lower"
    HIGHER = "higher"


class GuardParams(Section):
    """A metric, lower values of which are better, that must not get much worse."""

    metric: Metric
    """nll or nll_without_feedback (soft-masked arms only)."""
    tolerance: float = Field(ge=0)
    """The candidate may be worse by this much, in nats a token."""


class PromotionParams(Section):
    """What a candidate has to show."""

    metric: Metric
    """What has to improve: nll or nll_without_feedback (soft-masked arms only)."""
    direction: Direction
    """Which values of `metric` are better. An NLL's better values are the lower ones."""
    minimum_improvement: float = Field(ge=0)
    """Smallest mean improvement that counts, in nats a token; its interval must lie above zero in any case."""
    guards: list[GuardParams]
    """Other metrics, and by how much they may get worse."""

    @property
    def metrics(self) -> list[Metric]:
        """All metrics that the decision needs."""
        return [self.metric, *(guard.metric for guard in self.guards)]

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        guarded = [guard.metric for guard in self.guards]
        if self.metric in guarded:
            yield f"guards has {self.metric.value!r}, which is what has to improve; expected another metric"
        if len(set(guarded)) < len(guarded):
            yield f"guards {[metric.value for metric in guarded]} has a repeated metric; expected each once"


class IncomingSource(StrEnum):
    """Where new documents come from."""

    FOLDER = "folder"
    HUB = "hub"


class IncomingHubParams(Section):
    """The newest revision of a dataset of the hub; what is new in it is what the champion's corpus doesn't have."""

    path: str = Field(min_length=1)
    """The dataset's repository."""
    revision: str = Field(min_length=1)
    """The branch or tag to follow."""
    files: tuple[str, ...] = Field(min_length=1)
    """Globs of its .txt, .jsonl and .parquet files."""


class IncomingParams(Section):
    """New documents; the field that holds the text is `corpus.files.text_field`."""

    source: IncomingSource
    """Which of the two is looked into."""
    folder: str = Field(min_length=1)
    """A folder of .txt, .jsonl and .parquet files, relative to the repository's root or absolute. Nothing in it is
    changed or deleted. Names that begin with a dot are passed over: copying programs give them to unfinished files."""
    hub: IncomingHubParams


class SnapshotParams(Section):
    """Which of the new documents are fit to be taken in."""

    longest: int = Field(ge=1)
    """Characters of the longest text; a longer one goes into quarantine."""
    most_control: float = Field(ge=0, le=1)
    """Largest share of control characters in a text; one with more goes into quarantine."""


class RetrainParams(Section):
    """The model that is promoted, the new documents that it learns from, and what a candidate has to show."""

    arm: str
    """The arm, one of arms.names."""
    seed: Seed
    """The training seed, one of seeds."""
    incoming: IncomingParams
    promotion: PromotionParams
    snapshot: SnapshotParams
