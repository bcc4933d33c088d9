"""Is dvc.lock the record of what dvc.yaml says now?"""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.lockfile import Unreadable
from lineage.model import Fault, Finding


def check_declarations(case: Case) -> Iterator[Finding]:
    """Commands of dvc.yaml against those of dvc.lock; stages that have not run."""
    stages = case.declared
    if isinstance(stages, Unreadable):
        yield Finding(fault=Fault.UNCHECKED, run=None, path="dvc.yaml", what=str(stages))
        return
    for name, stage in stages.items():
        run = case.graph.runs.get(name)
        if run is None:
            if case.whole:
                yield Finding(fault=Fault.NEVER_RUN, run=name, path="dvc.yaml", what="dvc.lock has no record of it")
        elif name in case.names and not stage.frozen and stage.command != run.command:
            what = f"dvc.yaml says {' && '.join(stage.command)!r}, the stage ran {' && '.join(run.command)!r}"
            yield Finding(fault=Fault.COMMAND, run=name, path="dvc.yaml", what=what)
