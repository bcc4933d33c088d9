"""`code.generation`: what the models are asked, and how they decode it: tasks, cells, decoding settings."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from pydantic import Field

from runner.section import Section, Seed
from scoring.prompts import PLACEHOLDERS, fields_of, listed
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.feedback_kinds import OmegaSchedule

RATIO = r"\d{1,6}([./]\d{1,6})?"
"""A fraction or a decimal one; the exponents that `Fraction` takes, too, may take for ever."""


class TaskParams(Section):
    """How the problems of one set are asked."""

    response_length: int = Field(ge=1, le=32768)
    """Tokens of a response, all masked at first."""
    instruction: str = Field(min_length=1)
    """The user's message; {request}, {prompt} and {signature} stand for the problem's."""
    prefill: str
    """How the answer begins, given to the model and not counted as response; with the same placeholders."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if not set(fields_of(self.instruction)) & set(PLACEHOLDERS):
            yield f"instruction has no placeholder; expected {listed()}, or every problem is the same"
        for name, template in (("instruction", self.instruction), ("prefill", self.prefill)):
            for unknown in sorted(set(fields_of(template)) - set(PLACEHOLDERS)):
                yield f"{name} has {{{unknown}}}; expected {listed()}"


class CellParams(Section):
    """One way of decoding that every model is evaluated at: how many steps, and what is cached."""

    name: str = Field(pattern=r"^\w[\w ./+-]*$")
    """Its name in files and in the report, such as 1/4."""
    nfe_ratio: str | None
    """Steps as a fraction of the response length, such as 1/4; null: see the two below, of which one is then given."""
    tokens_per_step: int | None = Field(ge=1)
    """Steps as response length / tokens_per_step."""
    threshold: float | None = Field(gt=0, le=1)
    """No fixed steps: a step unmasks every position whose confidence is above this, and one at least."""
    cache: CacheMode
    """Which keys and values are kept within a block: none, those before it (prefix), or on both sides (dual)."""
    block_length: int | None = Field(ge=1)
    """Responses are decoded block by block from the left; null: the response is one block."""
    refresh_every: int | None = Field(ge=1)
    """Steps after which a cache is made anew, in addition to each block's start; null: only there."""
    sets: list[str] | None = Field(min_length=1)
    """Problem sets that are decoded so; null: all."""

    @property
    def ratio(self) -> Fraction | None:
        """`nfe_ratio` as a number; None if it is null or no fraction."""
        try:
            return Fraction(self.nfe_ratio) if self.nfe_ratio and re.fullmatch(RATIO, self.nfe_ratio) else None
        except (ValueError, ZeroDivisionError):
            return None

    def exact_steps(self, response_length: int) -> Fraction | None:
        """Steps of a response before anybody has made sure that they are whole; None with a threshold."""
        if self.tokens_per_step is not None:
            return Fraction(response_length, self.tokens_per_step)
        return None if self.ratio is None else response_length * self.ratio

    def steps(self, response_length: int) -> int | None:
        """Steps of a response of so many tokens; None with a threshold."""
        steps = self.exact_steps(response_length)
        return None if steps is None else int(steps)

    def applies_to(self, name: str) -> bool:
        """Whether a problem set is decoded so."""
        return self.sets is None or name in self.sets

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        values = {"nfe_ratio": self.nfe_ratio, "tokens_per_step": self.tokens_per_step, "threshold": self.threshold}
        given = [name for name, value in values.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or f"none of {', '.join(values)}"
            yield f"has {found}; expected one of them"
        if self.nfe_ratio is not None and (self.ratio is None or not 0 < self.ratio <= 1):
            yield f"nfe_ratio {self.nfe_ratio!r} is wrong; expected a fraction above 0 and up to 1, such as '1/4'"
        if self.refresh_every is not None and self.cache is CacheMode.NONE:
            yield f"refresh_every {self.refresh_every} with cache 'none' has no effect; expected null"

    def misfits(self, response_length: int) -> Iterator[str]:
        """Why a response of so many tokens can't be decoded so."""
        steps, block = self.exact_steps(response_length), self.block_length or response_length
        if steps is not None and steps.denominator != 1:
            yield f"makes {float(steps):g} steps; expected a whole number"
        if response_length % block:
            yield f"has block_length {block}, which is no divisor of it"
        elif steps is not None and steps % (response_length // block):
            blocks = response_length // block
            yield f"has {float(steps):g} steps for {blocks} blocks; expected as many steps for each of them"


class Decode(NamedTuple):
    """A problem set and the cell that it is decoded at."""

    set_name: str
    task: TaskParams
    cell: CellParams


class GenerationParams(Section):
    """Generation of answers. The same for every model, so that answers can be compared."""

    seed: Seed
    """Seed of all answers; each problem of each cell has a generator of its own, the same for every model."""
    batch_size: int = Field(ge=1)
    """Problems that are decoded at once, and a unit of work that a killed stage doesn't repeat."""
    algorithm: Algorithm
    """What decides where a step unmasks: chance (origin), or a kind of confidence."""
    temperature: float = Field(ge=0, le=1000)
    """Of the tokens; 0 takes the likeliest."""
    top_p: float | None = Field(gt=0, le=1)
    """Nucleus of the tokens' distribution; null: all of it."""
    top_k: int | None = Field(ge=1)
    """Likeliest tokens that are drawn from; null: all."""
    alg_temp: float | None = Field(ge=0, le=1000)
    """Temperature of the choice of positions; null and 0 take the surest ones."""
    omega_schedule: OmegaSchedule
    """Schedule of omega_s over the masked fraction of the response."""
    eos_rule: EosRule
    """Where end tokens may stand: anywhere (free), not first (not_first), or after all else of a block (last)."""
    stop_at_end: bool
    """An answer is finished when all before its first end token is unmasked."""
    eps: float = Field(gt=0, lt=1)
    """Time of the last step."""
    tasks: dict[str, TaskParams] = Field(min_length=1)
    """How each problem set is asked."""
    cells: list[CellParams] = Field(min_length=1)
    """How they are decoded, in the report's order."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        names = [cell.name for cell in self.cells]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield f"cells has {name!r} twice; expected each name once"
        for cell in self.cells:
            yield from self._problems_of(cell)
        for name, value in (("temperature", self.temperature), ("alg_temp", self.alg_temp)):
            if value and value < 0.001:
                yield f"{name} {value} is wrong; expected 0, or at least 0.001"
        if self.algorithm is Algorithm.ORIGIN and self.alg_temp:
            yield f"alg_temp {self.alg_temp} with algorithm 'origin' has no effect; expected null"
        if self.algorithm is Algorithm.ORIGIN and self.eos_rule is EosRule.LAST:
            yield "eos_rule 'last' with algorithm 'origin' is impossible: it has no confidence; expected another one"

    def _problems_of(self, cell: CellParams) -> Iterator[str]:
        if cell.threshold is not None and self.algorithm is Algorithm.ORIGIN:
            yield (
                f"cells has {cell.name!r} with threshold {cell.threshold}, but algorithm 'origin' has no confidence; "
                "expected another algorithm"
            )
        for name in cell.sets or ():
            if name not in self.tasks:
                known = ", ".join(self.tasks)
                yield f"cells has {cell.name!r} for {name!r}, which has no task; expected one of {known}"
        for name, task in self.tasks.items():
            for misfit in cell.misfits(task.response_length) if cell.applies_to(name) else ():
                yield f"cells has {cell.name!r}, which for {name} with response_length {task.response_length} {misfit}"

    def lacking(self, sets: Sequence[str]) -> Iterator[str]:
        """Which of `code.problem_sets.sets` can't be decoded, one line each, for the check of all sections."""
        for name in sets:
            if name not in self.tasks:
                yield f"tasks has none for the problem set {name!r}; expected one, beside {', '.join(self.tasks)}"
            elif not any(cell.applies_to(name) for cell in self.cells):
                yield f"cells has none for the problem set {name!r}; expected one with sets null, or with it among them"

    def decodes(self, sets: Sequence[str]) -> list[Decode]:
        """What is generated: each of these sets at each cell that is for it."""
        return [Decode(name, self.tasks[name], cell) for name in sets for cell in self.cells if cell.applies_to(name)]
