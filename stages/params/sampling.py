"""`sampling`: which samples are generated, and how."""

from collections.abc import Iterator

from pydantic import Field

from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.transitions import RemdmSettings, times, transition
from softmask.feedback_kinds import OmegaSchedule
from stages.params.section import Section, Seed

ROUNDING = 1e-9
"""A probability may exceed 1 by this much."""


class Cell(Section):
    """One (sampler, NFE) at which every model generates."""

    sampler: Sampler
    """The reverse process."""
    nfe: int = Field(ge=1)
    """Nominal steps."""
    eta: float | None = Field(ge=0, le=1)
    """ReMDM's eta; null for the ancestral samplers."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.sampler.remasks and self.eta is None:
            yield f"eta null with sampler '{self.sampler}' is impossible; expected a number from 0 to 1"
        if not self.sampler.remasks and self.eta is not None:
            yield f"eta {self.eta} with sampler '{self.sampler}' has no effect; expected null"


class LoopParams(Section):
    """ReMDM-loop's phases."""

    t_on: float = Field(gt=0, lt=1)
    """Time at which remasking begins."""
    t_off: float = Field(gt=0, lt=1)
    """Time at which it ends."""
    alpha_on: float = Field(gt=0, lt=1)
    """Unmasked fraction that it holds meanwhile."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.t_off >= self.t_on:
            yield f"t_off {self.t_off} with t_on {self.t_on} is impossible; expected t_off < t_on"


class TraceParams(Section):
    """The one sample whose denoising the report shows step by step."""

    cell: int = Field(ge=0)
    """Which entry of `cells`."""
    guesses: int = Field(ge=1)
    """Guesses shown a position."""


class SamplingParams(Section):
    """Unconditional generation."""

    seed: Seed
    """Seed of all samples; the same for every model."""
    samples: int = Field(ge=1)
    """Samples a cell."""
    batch_size: int = Field(ge=1)
    """Samples generated at once."""
    nucleus_p: float = Field(gt=0, le=1)
    """Nucleus of the sampling distribution; feedback sees the unfiltered one."""
    refresh: Refresh
    """When forwards are made: on_change (paper) or always."""
    remask_feedback: RemaskFeedback
    """What feeds a position that ReMDM has just masked again."""
    omega_schedule: OmegaSchedule
    """Schedule of omega_s over the masked fraction."""
    final_t: float = Field(gt=0, lt=1)
    """Time of the last step."""
    final_argmax: bool
    """Fill what is still masked after it with the likeliest tokens."""
    loop: LoopParams
    """ReMDM-loop's phases."""
    cells: list[Cell] = Field(min_length=1)
    """What is generated."""
    trace: TraceParams
    """The denoising shown in the report."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        pairs = [(cell.sampler, cell.nfe) for cell in self.cells]
        for sampler, nfe in dict.fromkeys(pair for pair in pairs if pairs.count(pair) > 1):
            yield f"cells has sampler '{sampler}' with nfe {nfe} twice; expected each sampler and nfe once"
        if self.trace.cell >= len(self.cells):
            yield f"trace.cell {self.trace.cell} is no entry of cells; expected 0 to {len(self.cells) - 1}"
        for cell in self.cells:
            highest = max(
                transition(cell.sampler, t, dt, self.remdm(cell)).unmask for t, dt in times(cell.nfe, self.final_t)
            )
            if highest > 1 + ROUNDING:
                yield (
                    f"cells has sampler '{cell.sampler}' with nfe {cell.nfe} and eta {cell.eta}, which needs a "
                    f"probability of {highest:.3f} to unmask; expected more steps, or a smaller eta or loop.alpha_on"
                )

    def remdm(self, cell: Cell) -> RemdmSettings:
        """A cell's ReMDM settings; the ancestral samplers don't use them."""
        return RemdmSettings(eta=cell.eta or 0.0, **self.loop.model_dump())
