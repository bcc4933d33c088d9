"""Is a kept record what was kept? Its files that no run made, what it lost, and what it says that it left out."""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.hashing import LEGACY, file_hash, folder_hash
from lineage.model import Fault, File, Finding, Run
from lineage.states import Kept


def check_kept(case: Case) -> Iterator[Finding]:
    """A kept record's folder against its record.json, and that against dvc.lock; nothing in other states.

    Outputs that it has are held against dvc.lock, as everywhere (`outputs`).
    """
    state = case.state
    if not isinstance(state, Kept):
        return
    for path, digest in state.files.items():
        place, makers = state.place(path), case.graph.producers(path)
        if makers and makers[0][0].name not in case.names:
            continue
        if not place.is_file():
            yield _finding(makers[0][0] if makers else None, path, "it is gone; the record had it")
        elif not makers and (found := file_hash(place)) != digest:
            yield _finding(None, path, f"here it is {found}, {digest} was kept")
    for run, file in case.outputs():
        if file.hash is not None and not file.is_external:
            yield from _known(state, run, file)


def _known(state: Kept, run: Run, file: File) -> Iterator[Finding]:
    """Whether record.json says of an output what dvc.lock says."""
    left_out, listing = state.left_out.get(file.path), state.listing(file.path)
    if left_out is None and file.path not in state.files and not listing:
        yield _finding(run, file.path, "the record neither has it nor says that it left it out")
    elif left_out is not None and (left_out.hash, left_out.size) != (file.hash, file.size):
        what = f"dvc.lock has {file.hash} of {file.size} bytes, the record left out {left_out.hash} of {left_out.size}"
        yield _finding(run, file.path, what)
    elif file.path in state.files and file.algorithm != LEGACY and state.files[file.path] != file.hash:
        yield _finding(run, file.path, f"dvc.lock has {file.hash}, the record was kept with {state.files[file.path]}")
    elif listing and folder_hash(listing.items()) != file.hash:
        yield _finding(run, file.path, f"the files that the record names don't make {file.hash}")


def _finding(run: Run | None, path: str, what: str) -> Finding:
    return Finding(fault=Fault.RECORD, run=run.name if run is not None else None, path=path, what=what)
