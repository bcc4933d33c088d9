"""Is dvc.lock the record of what dvc.yaml says now? Read with DVC's own resolver, which knows templates."""

from collections.abc import Iterator
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from lineage.checks.case import Case
from lineage.model import Fault, Finding
from lineage.repository import Repository
from lineage.states import State


def check_declarations(case: Case) -> Iterator[Finding]:
    """Commands and dependencies of dvc.yaml against those of dvc.lock; stages that have not run."""
    try:
        stages = declared_stages(case.state)
    except DvcException as error:
        yield Finding(fault=Fault.UNCHECKED, run=None, path="dvc.yaml", what=f"DVC can't read it: {error}")
        return
    asked = set(case.names)
    for name, stage in stages.items():
        run = case.graph.runs.get(name)
        if run is None:
            if asked == set(case.graph.runs):
                yield Finding(fault=Fault.NEVER_RUN, run=name, path="dvc.yaml", what="dvc.lock has no record of it")
        elif name in asked:
            command = tuple(stage.cmd) if isinstance(stage.cmd, list) else (stage.cmd,)
            if command != run.command:
                what = f"dvc.yaml says {' && '.join(command)!r}, the stage ran {' && '.join(run.command)!r}"
                yield Finding(fault=Fault.COMMAND, run=name, path="dvc.yaml", what=what)


def declared_stages(state: State) -> dict[str, Any]:
    """DVC's address -> its stage, as dvc.yaml of a state says with templates filled in; `.dvc` files are left out.

    Raises:
        DvcException: a file of the state can't be read.
    """
    repository: Repository = state.repository
    dvc = repository.dvc if state.is_workspace else Repo(repository.project, rev=state.commit)
    found = {}
    for stage in dvc.index.stages:
        if getattr(stage, "name", None) and stage.cmd:
            folder = stage.path_in_repo.rpartition("/")[0]
            found[f"{folder}/dvc.yaml:{stage.name}" if folder else stage.name] = stage
    return found
