"""Is what the stages read, and no stage made, what git has? Code, tracked data, folders, parameter files."""

from collections.abc import Iterator

from lineage.checkout import NOT_HERE, is_pointer
from lineage.checks.case import Case
from lineage.hashing import file_hash, folder_hash
from lineage.model import Fault, File, Finding, Kind, Run
from lineage.states import Workspace

EMPTY = folder_hash([])
"""The hash of a folder in which DVC finds nothing."""


def check_inputs(case: Case) -> Iterator[Finding]:
    """Inputs that no run makes, against the commit and, in the workspace, against the files."""
    if case.state.commit is None and not case.state.is_workspace:  # a kept record's, which its gaps tell
        return
    seen: dict[tuple[str, str | None], list[Finding]] = {}
    for run in case.live.values():
        if run.kind is not Kind.STAGE:
            continue
        for file in case.graph.own_inputs(run):
            if file.hash is None:
                yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what="the lock has no hash of it")
                continue
            key = (file.path, file.hash)
            if key not in seen:
                seen[key] = [*_check(case, run, file)]
            yield from (finding.model_copy(update={"run": run.name}) for finding in seen[key])


def _check(case: Case, run: Run, file: File) -> Iterator[Finding]:
    if case.state.leads_out(file.path):
        yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what="it lies outside the project")
    elif isinstance(case.state, Workspace):
        yield from _in_workspace(case, case.state, run, file)
    else:
        yield from _in_commit(case, run, file)


def _in_commit(case: Case, run: Run, file: File) -> Iterator[Finding]:
    found = case.committed_hash(file)
    if file.hash in (found, EMPTY if found is None else None):  # git keeps no empty folder
        return
    if (why := case.state.absent(file.path)) is not None:
        yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what=why)
    elif found is None:
        yield _unpinned(run, file, "neither in git nor made by a stage")
    elif file.is_folder:
        yield _unpinned(run, file, "the stage read other files in it than this commit has")
    else:
        what = f"the commit has {found}, the stage ran with {file.hash}"
        yield Finding(fault=Fault.CODE, run=run.name, path=file.path, what=what)


def _in_workspace(case: Case, state: Workspace, run: Run, file: File) -> Iterator[Finding]:
    files = state.files_under(file.path)
    if not files and file.hash == EMPTY:
        return
    if not files:
        yield Finding(fault=Fault.CODE, run=run.name, path=file.path, what="it is gone; the stage read it")
        return
    if any(is_pointer(place) for place in files.values()):
        yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what=NOT_HERE)
        return
    here = {path: file_hash(place, file.algorithm) for path, place in files.items()}
    found = folder_hash(here.items()) if file.is_folder else here.get("", "a folder")
    if found != file.hash:
        what = f"here it is {found}, the stage ran with {file.hash}"
        yield Finding(fault=Fault.CODE, run=run.name, path=file.path, what=what)
    for path, digest in here.items():
        name = f"{file.path}/{path}" if path else file.path
        yield from _against_commit(case, run, name, digest, file.algorithm)


def _against_commit(case: Case, run: Run, path: str, digest: str, algorithm: str) -> Iterator[Finding]:
    committed = case.committed_hash(File(path, digest, algorithm))
    if committed == digest:
        return
    if (why := case.state.absent(path)) is not None:
        yield Finding(fault=Fault.UNCHECKED, run=run.name, path=path, what=why)
        return
    if committed is not None:
        what = "what lies here isn't what the commit has"
    elif case.state.repository.git.path_is_ignored(path):
        yield Finding(
            fault=Fault.UNPINNED, run=run.name, path=path, what="neither in git (which ignores it) nor made by a stage"
        )
        return
    else:
        what = "no commit has it"
    yield Finding(fault=Fault.UNCOMMITTED, run=run.name, path=path, what=what)


def _unpinned(run: Run, file: File, what: str) -> Finding:
    return Finding(fault=Fault.UNPINNED, run=run.name, path=file.path, what=what)
