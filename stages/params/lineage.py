"""`lineage`: when a run that is made again counts as the same. Read by `lineage/`; changes no number."""

from pydantic import Field

from runner.section import Section


class ToleranceParams(Section):
    """How far a metric may be from the recorded one on another machine, whose rounding differs."""

    relative: float = Field(ge=0, lt=1)
    """Of the larger of the two values; 0 asks for the same bytes."""


class LineageParams(Section):
    """What audits of this project go by."""

    tolerance: ToleranceParams
