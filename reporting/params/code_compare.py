"""`code.compare`: how the code study's models are compared, when a difference counts, and which answers are listed."""

from pydantic import Field

from runner.section import Section, Seed


class CodeCompareParams(Section):
    """Resampling, the gate's threshold, and the list of problems where arms differ."""

    resamples: int = Field(ge=100, le=1_000_000)
    """Bootstrap resamples of a set's problems, drawn once and shared by all models."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of every interval."""
    seed: Seed
    """Seed of the resampling."""
    min_problems: int = Field(ge=2)
    """With fewer problems than this no difference is claimed, whatever its interval: too few to resample."""
    gate_lam: float = Field(gt=0, lt=1)
    """A soft mask's gate is open from this mean lambda at masked positions of validation answers on."""
    empty_share: float = Field(ge=0, le=1)
    """Shares of answers that are only end tokens are a finding from here on; the report's tables have all of them."""
    plot_points: int = Field(ge=2)
    """At most this many records of each training history go into the plots, evenly spaced, ends included."""
    listed: int = Field(ge=1)
    """Problems listed that only an arm solves, and as many that only the binary arm does, of each set, cell and arm."""
    answer_characters: int = Field(ge=1)
    """Characters of a listed answer; the rest is cut, and said to be."""
