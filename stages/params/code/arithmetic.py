"""`code.arithmetic`: the small arithmetic problems that the local profile has in place of GSM8K."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section, Seed
from scoring.micro.arithmetic import Operation, Ranges, Recipe, capacity


class ArithmeticParams(Section):
    """Which arithmetic problems are made; training and test share no operands."""

    seed: Seed
    """Of the split, the choice and the order."""
    train: int = Field(ge=1)
    """Problems to train on."""
    test: int = Field(ge=1)
    """Problems to evaluate with."""
    operations: tuple[Operation, ...] = Field(min_length=1)
    """What is asked for, in equal parts."""
    largest: int = Field(ge=3, le=1000)
    """Largest operand of sums and differences."""
    largest_factor: int = Field(ge=3, le=1000)
    """Largest factor of products."""
    largest_step: int = Field(ge=3, le=60)
    """Largest number in a problem of two steps."""
    held_out: float = Field(gt=0, lt=1)
    """Share of each operation's operands that only the test asks for."""
    plain: float = Field(ge=0, le=1)
    """Share of problems worded as a formula, as far as there are so many; the others are small stories."""

    def recipe(self) -> Recipe:
        """What the generator takes."""
        ranges = Ranges(self.largest, self.largest_factor, self.largest_step)
        return Recipe(self.seed, self.operations, ranges, self.held_out, self.plain)

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if len(set(self.operations)) < len(self.operations):
            yield f"operations {[str(name) for name in self.operations]} names one twice; expected each once"
            return
        for name, count, most in zip(("train", "test"), (self.train, self.test), capacity(self.recipe()), strict=True):
            if count > most:
                yield f"{name} {count} is more than the {most} distinct problems that the ranges and held_out give"
