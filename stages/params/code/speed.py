"""`code.speed`: how decoding is timed. Times are machine-dependent: nothing but the page of the stage shows them."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from runner.section import Section, Seed


class SpeedParams(Section):
    """What is decoded, how often. The base of each family is timed beside the arms."""

    set: str = Field(min_length=1)
    """Problem set whose first problems are decoded."""
    count: int = Field(ge=1)
    """How many of them."""
    batch_size: int = Field(ge=1)
    """Problems decoded at once."""
    arms: tuple[Annotated[str, Field(min_length=1)], ...]
    """Arms that are timed, by their name."""
    seed: Seed
    """The arms' seed: one of code.seeds."""
    cells: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Cells that are timed: names of code.generation.cells."""
    warm_up: int = Field(ge=1)
    """Decodings of every cell before the first that counts."""
    repeats: int = Field(ge=1)
    """Decodings of every cell that count; the page shows their median."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        for name, values in (("arms", self.arms), ("cells", self.cells)):
            if len(set(values)) < len(values):
                yield f"{name} {list(values)} names one twice; expected each once"
