"""Have code and parameters of frozen stages changed since? DVC keeps their outputs, which proves nothing wrong.

That what they read from other stages moves on is what stages are frozen for.
"""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.checks.inputs import check_inputs
from lineage.checks.parameters import check_parameters
from lineage.model import Fault, Finding


class _Thawed(Case):
    """Frozen stages, asked as if they were not."""

    frozen = frozenset()


def check_frozen(case: Case) -> Iterator[Finding]:
    """What frozen stages ran with and isn't so any more."""
    thawed = _Thawed(case.graph, tuple(name for name in case.names if name in case.frozen))
    for check in (check_inputs, check_parameters):
        for finding in check(thawed):
            if finding.proves_wrong:
                what = f"dvc.yaml keeps the stage frozen since: {finding.what}"
                yield finding.model_copy(update={"fault": Fault.STALE, "what": what})
