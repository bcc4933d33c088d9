"""Are parameters, and the files that describe the pipeline, those that the stages recorded and git has?"""

from collections.abc import Iterator

from lineage.checkout import Form
from lineage.checks.case import Case
from lineage.model import Fault, Finding
from lineage.values import differing, shown, value_at


def check_parameters(case: Case) -> Iterator[Finding]:
    """Every parameter that a run recorded, against its file."""
    unreadable = {file: case.unreadable(file) for run in case.live.values() for file in run.parameters}
    for file, why in unreadable.items():
        if why is not None:
            yield Finding(fault=Fault.UNREADABLE, run=None, path=file, what=why)
    for run in case.live.values():
        for file, key, value in run.settings():
            if unreadable[file] is not None:
                continue
            for inner, now, then in differing(value_at(case.parameters(file), key), value, key):
                what = f"{inner} is {shown(now)}, the stage ran with {shown(then)}"
                yield Finding(fault=Fault.PARAMETER, run=run.name, path=file, what=what)


def check_committed(case: Case) -> Iterator[Finding]:
    """In the workspace: parameter files, dvc.yaml, dvc.lock and .dvc files against the commit."""
    if not case.state.is_workspace:
        return
    files = {run.file for run in case.runs} | {f for run in case.runs for f in run.parameters}
    files |= {file for file in case.state.dvc_files() if file.endswith("dvc.yaml")}
    for file in sorted(files):
        here, committed = case.state.read(file), [case.state.committed(file, form) for form in Form]
        if here is not None and here not in committed:
            what = "what lies here isn't what the commit has" if any(committed) else "no commit has it"
            yield Finding(fault=Fault.UNCOMMITTED, run=None, path=file, what=what)
