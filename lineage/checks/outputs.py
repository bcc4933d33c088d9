"""Are the bytes those of dvc.lock? In workspace, git, kept record, cache and, if asked, a remote; hashed anew."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineage.checkout import NOT_HERE, is_pointer
from lineage.checks.case import Case
from lineage.contents import listed, whole_hash
from lineage.graph import folders_above
from lineage.hashing import Progress, file_hash, stream_hash
from lineage.model import Fault, File, Finding, Kind, Run
from lineage.states import Kept, Workspace


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that has to have a hash."""

    run: str
    path: str
    """As a person knows it."""
    place: Path
    expected: str
    algorithm: str
    in_cache: bool = False
    """Whether it is an object of DVC's cache; else it lies at the output's own place."""


class Hashes:
    """Files' hashes, each computed once, several at a time; hard links of one file are one."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._known: dict[tuple[int, int, str], str] = {}
        self._progress = progress
        self.bytes = 0

    def all(self, claims: Iterable[Claim]) -> dict[Claim, str]:
        """The hash of every claim's file."""
        identity = {claim: self._identity(claim) for claim in claims}
        todo = {key: claim for claim, key in identity.items() if key not in self._known}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda c: file_hash(c.place, c.algorithm, self._count), todo.values())
            self._known.update(zip(todo, made, strict=True))
        return {claim: self._known[key] for claim, key in identity.items()}

    def _identity(self, claim: Claim) -> tuple[int, int, str]:
        found = claim.place.stat()
        return found.st_dev, found.st_ino, claim.algorithm

    def _count(self, amount: int) -> None:
        self.bytes += amount
        if self._progress is not None:
            self._progress(amount)


def check_outputs(case: Case, hashes: Hashes) -> Iterator[Finding]:
    """Every output's bytes, wherever they are kept here."""
    claims: list[Claim] = []
    for run, file in case.outputs():
        if file.hash is None:
            yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what="the lock has no hash of it")
        elif case.state.leads_out(file.path):
            yield Finding(fault=Fault.UNCHECKED, run=run.name, path=file.path, what="it lies outside the project")
        else:
            yield from _places(case, run, file, claims)
    found = hashes.all(claims)
    for claim in claims:
        if found[claim] != claim.expected:
            yield _corrupt(case, claim, found[claim])


def _places(case: Case, run: Run, file: File, claims: list[Claim]) -> Iterator[Finding]:
    """Adds what has to be hashed to `claims`; yields what can be said without."""
    kept = case.contents.object(file.hash or "", file.algorithm)
    here = case.state.repository.root / file.path
    in_workspace = isinstance(case.state, Workspace) and here.exists()
    in_commit = case.state.keeps(file.path)
    if kept.exists:
        claims.append(Claim(run.name, file.path, kept.path, _name(file), file.algorithm, in_cache=True))
        if file.is_folder:
            yield from _cached_folder(case, run, file, claims)
    if isinstance(case.state, Kept):
        claims += _in_record(case.state, run, file)
        return  # what it hasn't, `kept` tells
    if in_workspace:
        yield from _in_workspace(case, run, file, here, claims)
    elif in_commit:
        yield from _in_commit(case, run, file)
    if not kept.exists and not in_workspace and not in_commit:
        what = f"{file.hash} is neither in the cache nor in the {case.state.kind}"
        yield Finding(fault=Fault.MISSING, run=run.name, path=file.path, what=what)


def _cached_folder(case: Case, run: Run, file: File, claims: list[Claim]) -> Iterator[Finding]:
    listing = case.contents.listing(file)
    if listing is None and file_hash(case.contents.object(file.hash or "").path) == _name(file):
        yield Finding(fault=Fault.FORGED, run=run.name, path=file.path, what="its hash names no list of files")
    for path, digest in (listing or {}).items():
        inner = case.contents.object(digest, file.algorithm)
        name = f"{file.path}/{path}"
        if inner.exists:
            claims.append(Claim(run.name, name, inner.path, digest, file.algorithm, in_cache=True))
        elif not (isinstance(case.state, Kept) or case.state.keeps(name)) and not (
            case.state.is_workspace and (case.state.repository.root / name).is_file()
        ):
            what = f"{digest} is not in the cache"
            yield Finding(fault=Fault.MISSING, run=run.name, path=name, what=what)


def _in_commit(case: Case, run: Run, file: File) -> Iterator[Finding]:
    """What git keeps of an output, which may be the whole of it."""
    committed = case.contents.committed(file)
    found, listing = whole_hash(committed), case.contents.listing(file) if file.is_folder else None
    if found == file.hash:
        return
    if listing is not None:
        whole = listing.keys() <= committed.keys()  # else what else git has there may be no part of it
        for path, digest in committed.items():
            if digest != listing.get(path) and (whole or path in listing):
                what = f"the commit has {digest}, the stage wrote {listing.get(path, 'no such file')}"
                yield _edited(case, run, f"{file.path}/{path}", what)
    elif file.is_folder and len(committed) < (file.files or 0):
        what = f"the commit has {len(committed)} of the {file.files} files that the stage wrote"
        yield Finding(fault=Fault.MISSING, run=run.name, path=file.path, what=what)
    else:
        yield _edited(case, run, file.path, f"the commit has {found}, the stage wrote {file.hash}")


def _edited(case: Case, run: Run, path: str, what: str, here: Iterable[Path] | None = None) -> Finding:
    """That a path hasn't the bytes that its stage wrote, or only pointers to them.

    Args:
        here: the files that lie there; without, it is the commit that hasn't.
    """
    absent = case.state.absent(path) if here is None else NOT_HERE if any(map(is_pointer, here)) else None
    fault = Fault.UNCHECKED if absent else _fault(case, run, path)
    return Finding(fault=fault, run=run.name, path=path, what=absent or what)


def _fault(case: Case, run: Run, path: str) -> Fault:
    """What it is when an output's path hasn't the bytes that its stage wrote; a metric is one by name or dvc.yaml."""
    if not case.state.keeps(path):
        return Fault.OUTPUT
    declared = case.declared.stages.get(run.name)
    metrics = declared.metrics if declared is not None else frozenset[str]()
    names = [path, *(f"{path}/{name}" for name in case.state.committed_under(path))]
    is_metric = any("metrics" in posixpath.basename(n) or metrics & {n, *folders_above(n)} for n in names)
    return Fault.METRIC if is_metric else Fault.OUTPUT


def _in_workspace(case: Case, run: Run, file: File, here: Path, claims: list[Claim]) -> Iterator[Finding]:
    assert isinstance(case.state, Workspace)
    if not (here.is_dir() if file.is_folder else here.is_file()):  # a pipe is neither
        kind = "a folder" if here.is_dir() else "a file" if here.is_file() else "no file"
        what = f"it is {kind}, the stage wrote {'a folder' if file.is_folder else 'a file'}"
        yield _edited(case, run, file.path, what, ())
    elif not file.is_folder:
        claims.append(_claim(run, file, "", here, file.hash or ""))
    else:
        files = case.state.files_under(file.path)
        listing = case.contents.listing(file)
        if listing is None:
            what = "its files don't make the hash that the stage recorded, and the list of what it wrote is not here"
            yield _edited(case, run, file.path, what, files.values())
            return
        for name in sorted(set(files) ^ set(listing)):
            what = "the stage wrote no such file" if name in files else "it is gone; the stage wrote it"
            yield _edited(case, run, f"{file.path}/{name}", what, ())
        both = sorted(set(files) & set(listing))
        claims += [_claim(run, file, name, files[name], listing[name]) for name in both]


def _in_record(state: Kept, run: Run, file: File) -> Iterator[Claim]:
    """What a kept record has of an output."""
    listing = state.listing(file.path)
    for path, place in state.files_under(file.path).items():
        yield _claim(run, file, path, place, listing[path] if path else file.hash or "")


def _claim(run: Run, file: File, path: str, place: Path, expected: str) -> Claim:
    """That a file of an output, or at a path inside it, has a hash."""
    name = f"{file.path}/{path}" if path else file.path
    return Claim(run.name, name, place, expected, file.algorithm)


def _name(file: File) -> str:
    """What a cache object's bytes hash to: its name, without what marks folders."""
    return (file.hash or "").removesuffix(".dir")


def _corrupt(case: Case, claim: Claim, found: str) -> Finding:
    run = case.graph.runs[claim.run]
    if claim.in_cache:
        what = f"the cache has {found}, the stage wrote {claim.expected}"
        return Finding(fault=Fault.CACHE, run=run.name, path=claim.path, what=what)
    return _edited(case, run, claim.path, f"here it is {found}, the stage wrote {claim.expected}", [claim.place])


def check_remote(case: Case, remote: Any, name: str) -> Iterator[Finding]:
    """Every cached output in a remote, streamed and hashed; DVC pushes no imports.

    Args:
        remote: DVC's object store of it.
        name: what the remote is called.
    """
    seen: set[str] = set()
    for run, file in case.outputs():
        if file.hash is None or file.is_external or file.hash in seen or not _is_pushed(case, run, file):
            continue
        seen.add(file.hash)
        yield from _remote_object(remote, name, run, file.path, file.hash, file.algorithm)
        if file.is_folder:
            for path, digest in (_remote_listing(remote, file.hash) or {}).items():
                if digest not in seen:
                    seen.add(digest)
                    yield from _remote_object(remote, name, run, f"{file.path}/{path}", digest, file.algorithm)


def _is_pushed(case: Case, run: Run, file: File) -> bool:
    in_git = len(case.contents.committed(file)) >= (file.files or 1)
    return run.kind is not Kind.IMPORT and not in_git


def _remote_object(remote: Any, name: str, run: Run, path: str, digest: str, algorithm: str) -> Iterator[Finding]:
    if not remote.exists(digest):
        yield Finding(fault=Fault.MISSING, run=run.name, path=path, what=f"{digest} is not in the remote {name}")
        return
    with remote.fs.open(remote.oid_to_path(digest), "rb") as stream:
        found = stream_hash(stream, algorithm)
    if found != digest.removesuffix(".dir"):
        what = f"the remote {name} has {found}, the stage wrote {digest}"
        yield Finding(fault=Fault.REMOTE, run=run.name, path=path, what=what)


def _remote_listing(remote: Any, digest: str) -> dict[str, str] | None:
    if not remote.exists(digest):
        return None
    with remote.fs.open(remote.oid_to_path(digest), "rb") as stream:
        return listed(stream.read(), digest)
