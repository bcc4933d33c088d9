"""Is dvc.lock the record of what dvc.yaml says now?"""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.declared import Declared, pipeline_file
from lineage.model import Fault, File, Finding, Run


def check_declarations(case: Case) -> Iterator[Finding]:
    """Commands, files and parameters of dvc.yaml against those of dvc.lock; stages that only one of them has."""
    for path, why in case.declared.unread.items():
        yield Finding(fault=Fault.UNCHECKED, run=None, path=path, what=why)
    for name, stage in case.declared.stages.items():
        run = case.graph.runs.get(name)
        if run is None:
            if case.whole:
                yield Finding(fault=Fault.NEVER_RUN, run=name, path="dvc.yaml", what="dvc.lock has no record of it")
        elif name in case.names and not stage.frozen:
            yield from _differences(run, stage)
    for name in sorted(case.left_over):
        what = "by dvc.yaml there is no such stage now: only its outputs are checked; remove it from dvc.lock"
        yield Finding(fault=Fault.LEFT_OVER, run=name, path=case.graph.runs[name].file, what=what)


def _differences(run: Run, stage: Declared) -> Iterator[Finding]:
    file = pipeline_file(run.file)
    if stage.command != run.command:
        what = f"dvc.yaml says {' && '.join(stage.command)!r}, the stage ran {' && '.join(run.command)!r}"
        yield Finding(fault=Fault.COMMAND, run=run.name, path=file, what=what)
    whole = {f for f, keys in stage.parameters.items() if not keys}
    said = {f"{f}: {key}" for f, keys in stage.parameters.items() for key in keys}
    then = {f"{f}: {key}" for f, key, _ in run.settings() if f not in whole}
    for role, now, recorded in (
        ("reads", stage.inputs, {f.path for f in run.inputs if not f.is_external}),
        ("makes", stage.outputs, {f.path for f in run.outputs if not f.is_external}),
        ("is set by", said, then),
    ):
        for name in sorted(now - recorded):
            if not File(name).is_external:  # which dvc.lock may write otherwise
                what = f"by dvc.yaml it {role} {name}, by dvc.lock it doesn't"
                yield Finding(fault=Fault.DECLARATION, run=run.name, path=file, what=what)
        for name in sorted(recorded - now):
            what = f"by dvc.lock it {role} {name}, by dvc.yaml it doesn't"
            yield Finding(fault=Fault.DECLARATION, run=run.name, path=file, what=what)
