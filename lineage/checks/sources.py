"""Is every source outside the repository pinned to something that can't change?"""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.model import Fault, Finding
from lineage.pins import own_pins


def check_sources(case: Case) -> Iterator[Finding]:
    """Hub revisions, packages and imports that a run names without a hash, commit or version."""
    for run in case.runs:
        for pin in own_pins(run, case.manifest(run), case.graph.runs.values()):
            if not pin.fixed:
                what = f"{pin.source} is read at {pin.revision or 'no revision'!r}, which can change"
                yield Finding(fault=Fault.UNPINNED, run=run.name, path=pin.where, what=what)
