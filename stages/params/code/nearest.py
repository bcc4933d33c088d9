"""`code.nearest`: the baseline that answers with the solution of the training example whose request is nearest."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section


class NearestParams(Section):
    """How near two requests are: the cosine of their TF-IDF vectors of word n-grams."""

    shortest: int = Field(ge=1, le=5)
    """Words of the shortest n-grams."""
    longest: int = Field(ge=1, le=5)
    """Words of the longest n-grams."""
    sublinear: bool
    """Count an n-gram that occurs n times as 1 + log n."""
    hide_names: bool
    """Replace the function's name in requests before they are compared: a name is a rare word that says nothing, and
    would decide. The answer takes the name that is asked for in any case."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.longest < self.shortest:
            yield f"shortest {self.shortest} with longest {self.longest} is impossible; expected at most that"
