"""Writes a kept record: a finished run's lock, parameters and small outputs in one archive, for git to keep.

The record is made aside and verified as an auditor will, and only one that holds is put in place. Nothing else that
lineage does writes into a project, and this only below the folder that it is told.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from lineage.checks.case import Case
from lineage.checks.outputs import Hashes, check_outputs
from lineage.contents import Contents
from lineage.errors import AuditError, Missing, Wrong
from lineage.graph import Graph
from lineage.hashing import Progress, bytes_hash
from lineage.model import File, Finding, Frozen
from lineage.records import ARCHIVE, NAME, LeftOut, Record, files_of, is_record, packed, read_record
from lineage.repository import Repository, relative
from lineage.states import Kept, State, Workspace, open_state
from lineage.verify import findings_of

LARGEST = 1_000_000
"""Bytes of an output that is kept."""
NAMED = 8
"""Findings that a refusal names."""
PARAMETERS = "params.yaml"


class Keeping(Frozen):
    """What was written."""

    revision: str
    """What was kept."""
    commit: str
    """Whose code made it."""
    files: int
    bytes: int
    left_out: int
    """Outputs of which the record has only the hash."""
    left_out_bytes: int


def keep(
    repository: Repository,
    folder: Path,
    revision: str | None = None,
    largest: int = LARGEST,
    progress: Progress | None = None,
) -> Keeping:
    """Write a kept record, in place of a former one.

    Args:
        folder: of the record's archive. A former record there is replaced; other files stay.
        revision: what to keep: a commit, branch, tag, experiment or kept record; None for the workspace.
        largest: bytes of an output that is kept.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: a file that is no record's is in the way, or git ignores the folder.
        Wrong: the record doesn't hold, or the code that its stages ran isn't committed.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise AuditError("it is no folder", where=str(folder))
    state = open_state(repository, revision)
    graph, hashes = Graph(state), Hashes(progress)
    _check_graph(graph)
    _refuse(state, check_outputs(Case(graph, (*graph.runs,)), hashes))
    with tempfile.TemporaryDirectory(prefix="lineage-keep-") as name:
        made = Path(name)
        record = _write(repository, graph, _commit(repository, state), made, largest)
        _check_places(folder)
        _check_ignored(repository, folder)
        kept = Graph(Kept(repository, state.name, made))
        _refuse(state, findings_of(Case(kept, (*kept.runs,), whole=True), hashes))
        archive = packed(made, [NAME, *record.files])
    _replace(folder, archive)
    return Keeping(
        revision=state.name,
        commit=record.commit,
        files=len(record.files),
        bytes=len(archive),
        left_out=len(record.left_out),
        left_out_bytes=sum(out.size or 0 for out in record.left_out),
    )


def _former(folder: Path) -> set[str]:
    """The files of a record that is there already; records were once kept as they are, without an archive."""
    files = read_record(files_of(folder)).files if is_record(folder) else {}
    return {ARCHIVE} if (folder / ARCHIVE).is_file() else {NAME, *files} if files else set()


def _check_places(folder: Path) -> None:
    """That nothing is overwritten or removed that no record put there, behind links neither."""
    former = _former(folder)
    places = sorted({*former, ARCHIVE})
    others = [path for path in places if _is_taken(folder, path, former)]
    if others:
        raise AuditError(
            f"files are in the way that are no former record's: {', '.join(others[:NAMED])}",
            where=str(folder),
            expected="a folder without, or that of a former record, which is replaced",
        )


def _is_taken(folder: Path, path: str, former: set[str]) -> bool:
    """Whether a place, or what should be a folder above it, is something else than a former record's file."""
    there = folder / path
    above = [place for place in there.parents if place.is_relative_to(folder) and place != folder]
    if any(place.is_symlink() for place in (there, *above)):
        return True
    inside = [p for p in there.rglob("*") if p.is_symlink() or not p.is_dir()] if there.is_dir() else [there]
    files = [*inside, *(place for place in above if not place.is_dir())]
    return not inside or any(place.exists() and relative(place, folder) not in former for place in files)


def _check_graph(graph: Graph) -> None:
    if graph.gaps:
        raise Missing(graph.gaps[0].what, where=graph.gaps[0].where, expected="a record that can be read")
    if not graph.stages():
        raise AuditError("no stage has run", where=graph.state.name, todo="Run the pipeline first: dvc repro")


def _commit(repository: Repository, state: State) -> str:
    """The commit whose code ran; of an experiment the one that it was started from, which others have, too."""
    if isinstance(state, Workspace | Kept):
        commit = state.commit
    else:
        named = repository.resolve(state.name)
        commit = named.baseline or named.commit
    if commit is None:
        raise AuditError("no commit has the code", where=state.name, todo="Commit it first")
    return commit


def _write(repository: Repository, graph: Graph, commit: str, folder: Path, largest: int) -> Record:
    """Writes a record into an empty folder."""
    contents = Contents(graph.state)
    files = dict(_described(repository, graph))
    left_out = []
    for _, file in Case(graph, (*graph.runs,)).outputs():
        if file.hash is None or file.is_external or _inside(repository, file.path) is None:
            continue
        found = _small(file, contents, largest)
        files.update(found or {})
        if not found:
            left_out.append(_left_out(repository, file, contents, largest))
    inside = {path: data for p, data in files.items() if (path := _inside(repository, p)) is not None}
    record = Record(
        commit=commit,
        kept=datetime.now(UTC).isoformat(timespec="seconds"),
        files={path: bytes_hash(inside[path]) for path in sorted(inside)},
        left_out=tuple(sorted(left_out, key=lambda out: out.path)),
    )
    for path, data in {**inside, NAME: record.text()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return record


def _described(repository: Repository, graph: Graph) -> Iterator[tuple[str, bytes]]:
    """DVC's files and parameter files."""
    defaults = f"{repository.folder}/{PARAMETERS}".lstrip("/")
    paths = {defaults, *graph.state.dvc_files(), *(file for run in graph.runs.values() for file in run.parameters)}
    for path in sorted(paths):
        if (data := graph.state.read(path)) is not None:
            yield path, data


def _small(file: File, contents: Contents, largest: int) -> dict[str, bytes] | None:
    """Path -> bytes of an output; None where it is too large, or not here."""
    if (file.size or 0) > largest:
        return None
    listing = contents.listing(file) if file.is_folder else {"": file.hash}
    found: dict[str, bytes] = {}
    for path, digest in (listing or {}).items():
        name = f"{file.path}/{path}" if path else file.path
        data = contents.read(File(name, digest, file.algorithm))
        if data is None:
            return None
        found[name] = data
    return found if sum(map(len, found.values())) <= largest else None


def _left_out(repository: Repository, file: File, contents: Contents, largest: int) -> LeftOut:
    listing = contents.listing(file) if file.is_folder else None
    short = listing is not None and len(json.dumps(listing)) <= largest
    path = _inside(repository, file.path)
    assert path is not None and file.hash is not None
    return LeftOut(path=path, hash=file.hash, size=file.size, files=listing if short else None)


def _inside(repository: Repository, path: str) -> str | None:
    """A path from the project's folder; None where it lies outside."""
    if not repository.folder:
        return path
    return path[len(repository.folder) + 1 :] if path.startswith(repository.folder + "/") else None


def _check_ignored(repository: Repository, folder: Path) -> None:
    if not folder.is_relative_to(repository.root):
        return
    inside, place = (relative(path, repository.root) for path in (folder, folder / ARCHIVE))
    if repository.git.path_is_ignored(place):
        raise AuditError(
            f"git ignores {place}",
            where=str(folder),
            expected="a folder that git keeps",
            todo=f"Add the lines !/{inside}/ and !/{place} to .gitignore, after what ignores it",
        )


def _refuse(state: State, findings: Iterable[Finding]) -> None:
    wrong = [finding for finding in findings if finding.proves_wrong]
    if wrong:
        named = [f"{f.fault}: {f.path}{f' ({f.run})' if f.run else ''}: {f.what}" for f in wrong[:NAMED]]
        more = [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
        raise Wrong(
            "the record doesn't hold, so it isn't kept:\n    " + "\n    ".join([*named, *more]),
            where=state.name,
            todo="Commit the code that the stages ran, or run them again; see also: dvc-lineage verify",
        )


def _replace(folder: Path, archive: bytes) -> None:
    """Puts a record in place of a former one; cut short, one of the two is there."""
    former = _former(folder) - {ARCHIVE}
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{ARCHIVE}"
    draft.write_bytes(archive)
    draft.replace(folder / ARCHIVE)
    for path in sorted(former):
        if (folder / path).is_file():  # one that was edited by hand may name files in files
            (folder / path).unlink()
        for inner in (folder / path).parents:
            if inner == folder or not inner.is_dir() or any(inner.iterdir()):
                break
            inner.rmdir()
