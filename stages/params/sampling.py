"""`sampling`: which samples are generated, and how."""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import Field

from runner.section import Section, Seed
from runner.wording import NAME
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.transitions import RemdmSettings, highest_unmask
from softmask.feedback_kinds import OmegaSchedule

Temperature = Annotated[float, Field(ge=0.001, le=1000)]
"""Beyond these there is nothing left to draw, or nothing of the model."""
ROUNDING = 1e-9
"""A probability may exceed 1 by this much."""


class Cell(Section):
    """One (sampler, NFE) at which every model generates."""

    sampler: Sampler
    """The reverse process."""
    nfe: int = Field(ge=1, le=100_000)
    """Nominal steps."""
    eta: float | None = Field(ge=0, le=1)
    """ReMDM's eta; null for the ancestral samplers."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.sampler.remasks and self.eta is None:
            yield f"eta null with sampler '{self.sampler}' is impossible; expected a number from 0 to 1"
        if not self.sampler.remasks and self.eta is not None:
            yield f"eta {self.eta} with sampler '{self.sampler}' has no effect; expected null"


class VariantParams(Section):
    """Another way of decoding some of the cells, which every model that it makes a difference for generates, too."""

    name: str = Field(pattern=NAME)
    """Its name in files and in the report, after the sampler's."""
    cells: list[int] = Field(min_length=1)
    """Which entries of `cells`."""
    temperature: Temperature
    """Of the sampling distribution, in place of sampling.temperature."""
    omega_schedule: OmegaSchedule
    """In place of sampling.omega_schedule."""
    feedback_from: float = Field(ge=0, le=1)
    """The fraction of the steps at which feedback begins; the steps before are binary."""
    feedback_until: float = Field(ge=0, le=1)
    """The fraction of the steps at which it ends; the steps from there on are binary."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.feedback_until <= self.feedback_from:
            yield (
                f"feedback_until {self.feedback_until} with feedback_from {self.feedback_from} leaves no step; "
                "expected feedback_from < feedback_until"
            )


class Decoding(NamedTuple):
    """A cell and how it is decoded; `label` is the sampler's name in files and in the report."""

    cell: Cell
    label: str
    temperature: float
    omega_schedule: OmegaSchedule
    feedback_from: float
    feedback_until: float


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
    temperature: Temperature
    """Of the sampling distribution, before the nucleus; feedback sees it at temperature 1."""
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
    variants: list[VariantParams]
    """Further ways of decoding them."""
    trace: TraceParams
    """The denoising shown in the report."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        pairs = [(cell.sampler, cell.nfe) for cell in self.cells]
        for sampler, nfe in dict.fromkeys(pair for pair in pairs if pairs.count(pair) > 1):
            yield f"cells has sampler '{sampler}' with nfe {nfe} twice; expected each sampler and nfe once"
        names = [variant.name for variant in self.variants]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield f"variants has {name!r} twice; expected each name once"
        for variant in self.variants:
            for index in variant.cells:
                if not 0 <= index < len(self.cells):
                    yield f"variants has {variant.name!r} with cell {index}; expected 0 to {len(self.cells) - 1}"
        if self.trace.cell >= len(self.cells):
            yield f"trace.cell {self.trace.cell} is no entry of cells; expected 0 to {len(self.cells) - 1}"
        if self.loop.t_off <= self.final_t and any(cell.sampler is Sampler.REMDM_LOOP for cell in self.cells):
            yield f"loop.t_off {self.loop.t_off} with final_t {self.final_t} leaves no last phase; expected it above"
        for cell in self.cells:
            highest = highest_unmask(cell.sampler, cell.nfe, self.final_t, self.remdm(cell))
            if highest > 1 + ROUNDING:
                yield (
                    f"cells has sampler '{cell.sampler}' with nfe {cell.nfe} and eta {cell.eta}, which needs a "
                    f"probability of {highest:.3f} to unmask; expected more steps, or a smaller eta or loop.alpha_on"
                )

    def decodings(self, soft_masked: bool) -> Iterator[Decoding]:
        """Every cell as `sampling` says, then the variants; those in feedback alone are nothing to a binary model."""
        yield from map(self.plain, self.cells)
        for variant in self.variants:
            if not soft_masked and variant.temperature == self.temperature:
                continue
            how = variant.model_dump(exclude={"name", "cells"})
            for cell in (self.cells[index] for index in variant.cells):
                yield Decoding(cell, f"{cell.sampler} {variant.name}", **how)

    def plain(self, cell: Cell) -> Decoding:
        """A cell as `sampling` says."""
        return Decoding(cell, cell.sampler.value, self.temperature, self.omega_schedule, 0.0, 1.0)

    def remdm(self, cell: Cell) -> RemdmSettings:
        """A cell's ReMDM settings; the ancestral samplers don't use them."""
        return RemdmSettings(eta=cell.eta or 0.0, **self.loop.model_dump())
