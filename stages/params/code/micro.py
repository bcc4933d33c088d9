"""`code.micro`: the small Python problems that are made here: how many, of which structures, and what is held out."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section, Seed
from scoring.micro.generate import HeldOut, Recipe
from scoring.micro.operations import OPERATIONS
from scoring.micro.structures import candidates


class HeldOutParams(Section):
    """Shares of what problems are made from that training never shows; at least one of each kind, and never all. What
    is held out is put together from words and constants that training has: a model made here can't write others."""

    constants: float = Field(gt=0, lt=1)
    """Share of each structure's choices of constants: the structure and the constants are known, not together."""
    names: float = Field(gt=0, lt=1)
    """Share of the functions' names."""
    wordings: float = Field(gt=0, lt=1)
    """Share of each operation's phrases, and of the sentences around them."""
    drawn: float = Field(gt=0, le=1)
    """Probability that a problem of micro_iid takes held-out names or wordings, each for itself. One with constants
    takes a held-out choice of them in any case, one without takes names or wordings."""


class MicroParams(Section):
    """Which micro problems are made. Tests are chosen so that they tell a reference from programs close to it."""

    seed: Seed
    """Of every split and draw."""
    train: int = Field(ge=1)
    """Problems to train on."""
    iid: int = Field(ge=1)
    """Problems of known structures, with constants that training doesn't show with them, and held-out names and
    wordings."""
    new: int = Field(ge=1)
    """Problems of structures that training hasn't."""
    known_pairs: int = Field(ge=0)
    """Structures of two operations in training, beside those of one operation."""
    new_pairs: int = Field(ge=0)
    """New structures of two operations that training knows one by one, never together."""
    new_singles: int = Field(ge=0)
    """New structures of one operation that training doesn't know."""
    held_out: HeldOutParams
    max_words: int = Field(ge=16)
    """Words of the longest request."""
    base_inputs: int = Field(ge=1, le=30)
    """Inputs that a problem is tested with: EvalPlus's base."""
    plus_inputs: int = Field(ge=0, le=30)
    """Further inputs, EvalPlus's plus; more where telling wrong programs apart takes them."""

    def recipe(self) -> Recipe:
        """What the generator takes."""
        return Recipe(
            seed=self.seed,
            known_pairs=self.known_pairs,
            new_pairs=self.new_pairs,
            new_singles=self.new_singles,
            held_out=HeldOut(**self.held_out.model_dump()),
            max_words=self.max_words,
            base_inputs=self.base_inputs,
            plus_inputs=self.plus_inputs,
        )

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.new_pairs + self.new_singles == 0:
            yield "new_pairs 0 with new_singles 0 leaves no new structure; expected at least one of either"
            return
        if self.new_singles > len(OPERATIONS) // 2:
            yield f"new_singles {self.new_singles} is too many; expected at most half of {len(OPERATIONS)} operations"
        most = len(candidates(OPERATIONS))
        if self.known_pairs + self.new_pairs > most:
            yield f"known_pairs {self.known_pairs} with new_pairs {self.new_pairs} is too many; expected at most {most}"
