"""Is every source outside the repository pinned to something that can't change?"""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.model import Fault, Finding
from lineage.pins import Owners


def check_sources(case: Case) -> Iterator[Finding]:
    """Hub revisions, packages and imports that a run names without a hash, commit or version."""
    owners = Owners(case.graph.runs.values())
    for run in case.runs:
        for pin in owners.pins(run, case.manifest(run)):
            if not pin.fixed:
                what = f"{pin.source} is read at {pin.revision or 'no revision'!r}, which can change"
                yield Finding(fault=Fault.UNPINNED, run=run.name, path=pin.where, what=what)
