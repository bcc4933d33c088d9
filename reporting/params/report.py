"""`report`: what the report shows. Nothing here changes a number."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Section


class Regime(StrEnum):
    """How the arms of a profile relate to the paper's two settings."""

    CONTINUATION = "continuation"
    """Arms go on from a trained base (the paper's Tables 2 and 4)."""
    SCRATCH = "scratch"
    """Arms train from the start (the paper's Table 1)."""


class ReportParams(Section):
    """The samples, the denoising view and the paper's tables in the report."""

    regime: Regime
    """Which of the paper's settings the arms stand for; decides which of its tables get this run's numbers."""
    samples: int = Field(ge=1)
    """Samples of each arm to show side by side."""
    sampler: str = Field(min_length=1)
    """The sampler whose samples are shown."""
    nfe: int = Field(ge=1)
    """The nominal number of steps whose samples are shown."""
    sample_characters: int = Field(ge=1)
    """Characters of a sample to show; the rest is cut, and said to be."""
    trace_steps: int = Field(ge=2)
    """Steps of the denoising view; a longer trace is thinned to these, steps in between are merged."""
    trace_guesses: int = Field(ge=1)
    """Guesses shown for a position that is still masked."""
    trace_snapshots: int = Field(ge=2)
    """Steps of the denoising that are also printed as text, evenly spaced, ends included."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.trace_snapshots > self.trace_steps:
            yield (
                f"trace_snapshots {self.trace_snapshots} with trace_steps {self.trace_steps} is impossible; "
                "expected at most trace_steps"
            )
