"""`compare`: how models are compared and when a difference counts. Read by the stages that compare models."""

from pydantic import Field

from runner.section import Section, Seed


class CompareParams(Section):
    """Resampling, the gate's threshold, and the rules for comparing generation at equal real forward passes."""

    resamples: int = Field(ge=100, le=1_000_000)
    """Bootstrap resamples of the units (documents or passages), drawn once and shared by all models."""
    level: float = Field(gt=0.5, lt=1)
    """Confidence level of every interval."""
    seed: Seed
    """Seed of the resampling."""
    min_units: int = Field(ge=2)
    """With fewer units than this no difference is claimed, whatever its interval: too few to resample."""
    gate_lam: float = Field(gt=0, lt=1)
    """A soft mask's gate can be open only from this mean lambda at masked positions on."""
    nfe_tolerance: float = Field(ge=0, lt=1)
    """Two points count as equal in real forward passes within this relative distance; else one is interpolated."""
    entropy_margin: float = Field(ge=0)
    """Nats of unigram entropy: a lower generative perplexity whose entropy is lower by more than this gets a caveat."""
    baseline_sampler: str = Field(min_length=1)
    """The binary arm's sampler to compare with where it lacks the soft-masked arm's (such as the two-pass one)."""
    plot_points: int = Field(ge=2)
    """At most this many records of each training history go into the plots, evenly spaced, ends included."""
