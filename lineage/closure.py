"""Every file of a closure with its bytes hashed anew: what attestations, exports and cards share. Writes nothing.

A file's bytes are the workspace's where it is asked and has the file, else git's, else those of DVC's cache.
"""

import hashlib
import io
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from lineage.changes import is_data_file
from lineage.contents import Contents, parsed, whole_hash
from lineage.errors import AuditError, Missing, Wrong
from lineage.hashing import BLOCK, LEGACY, Progress, folder_hash, stream_hash
from lineage.model import File, Run
from lineage.repository import Repository
from lineage.states import Kept, State, Workspace, open_state
from lineage.trace import Input, Parameter, Role, Step, Trace
from lineage.values import same, shown, value_at

NAMED = 5
"""Files that a message names."""


class Part(StrEnum):
    """What a file is to a closure."""

    ARTIFACT = "artifact"
    """A run made it."""
    CODE = "code"
    """Git keeps it: code, or data."""
    UNPINNED = "unpinned"
    """Neither a run made it nor git keeps it."""
    PARAMETERS = "parameters"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a closure."""

    path: str
    part: Part
    hash: str | None = None
    """DVC's, as the record has it; None where it has none."""
    algorithm: str = "md5"
    run: str | None = None
    """Who made it."""
    commit: str | None = None
    """Of a former run's file: the commit where it is as that run had it; else it is where the target was traced."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What bytes hash to, in hex."""

    size: int
    """Bytes."""
    md5: str
    sha256: str
    blob: str
    """Git's id of a file with these bytes."""


class Places:
    """Where a state's files are, and what their bytes hash to; each is read once.

    Args:
        state: a commit, an experiment, or the workspace.
        progress: is told how many bytes were read.
    """

    def __init__(self, state: State, progress: Progress | None = None) -> None:
        self.state = state
        self.contents = Contents(state)
        self._progress = progress
        self._known: dict[tuple[int, int], Digests] = {}

    def find(self, path: str, digest: str | None, algorithm: str = "md5") -> Path | bytes | None:
        """A file or a blob's bytes; None where it is nowhere.

        Args:
            path: relative to the repository's root.
            digest: DVC's hash, by which the cache has it.
        """
        here = self.state.place(path) if isinstance(self.state, Workspace) else None
        if here is not None and here.is_file():
            return here
        if (blob := self.state.committed(path)) is not None:
            found = (data for data in self.state.forms(path) if stream_hash(io.BytesIO(data), algorithm) == digest)
            return next(found, blob) if digest is not None else blob
        kept = self.contents.object(digest, algorithm) if digest is not None else None
        return kept.path if kept is not None and kept.exists else None

    def laid_out(self, file: File) -> dict[str, str]:
        """(Path below a folder that git keeps) -> hash of the form that makes the folder's hash; empty for none."""
        found = {} if self.state.is_workspace else self.contents.committed(file)
        return found if whole_hash(found) == file.hash else {}

    def digests(self, places: Iterable[Path | bytes]) -> list[Digests]:
        """What files and bytes hash to, several at a time."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [*pool.map(self._one, places)]

    def _one(self, place: Path | bytes) -> Digests:
        if isinstance(place, bytes):
            return digests(io.BytesIO(place), len(place), self._progress)
        found = place.stat()
        key = (found.st_dev, found.st_ino)
        if key not in self._known:
            with place.open("rb") as stream:
                self._known[key] = digests(stream, found.st_size, self._progress)
        return self._known[key]


def digests(stream: BinaryIO, size: int, progress: Progress | None = None) -> Digests:
    """Every hash of a stream in one pass.

    Args:
        size: its length in bytes, which git's id begins with.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while block := stream.read(BLOCK):
        for hashing in (md5, sha256, git):
            hashing.update(block)
        if progress is not None:
            progress(len(block))
    return Digests(size, md5.hexdigest(), sha256.hexdigest(), git.hexdigest())


class Closure:
    """The files of a traced target.

    Args:
        repository: where it was traced.
        traced: the target's closure.
        progress: is told how many bytes were hashed.
        past: take the former runs of this commit only.
    """

    def __init__(
        self, repository: Repository, traced: Trace, progress: Progress | None = None, past: str | None = None
    ) -> None:
        self.trace = traced
        self.places = Places(open_state(repository, past or traced.revision), progress)
        self._past = past
        self._steps = [step for step in traced.steps if step.past == past]
        former = dict.fromkeys(step.past for step in traced.steps if step.past is not None and past is None)
        self._former = {commit: Closure(repository, traced, progress, commit) for commit in former}
        self._made = {file.path for step in traced.steps for file in step.outputs}
        self._hashed: dict[str, Digests] = {}

    @property
    def state(self) -> State:
        """The commit, experiment or workspace."""
        return self.places.state

    def members(self) -> list[Member]:
        """Every file, in the order of the runs, each path once; then what former runs had that is no more as it was.

        Raises:
            AuditError: the list of a folder's files isn't here.
        """
        found = self._own()
        for member in self._asked(found):
            found.setdefault(member.path, member)
        for name in self.trace.environment:
            found.setdefault(name, Member(name, Part.ENVIRONMENT))
        known = {(member.path, member.hash) for member in found.values() if member.hash is not None}
        former = [member for closure in self._former.values() for member in closure._own().values()]
        return [*found.values(), *(member for member in former if (member.path, member.hash) not in known)]

    def _own(self) -> dict[str, Member]:
        """Path -> each file of the runs of one state."""
        found: dict[str, Member] = {}
        for step in self._steps:
            for member in self._of_step(step):
                found.setdefault(member.path, replace(member, commit=self._past))
        return found

    def subjects(self) -> list[Member]:
        """The files of the target itself.

        Raises:
            AuditError: it has none, or the list of a folder's files isn't here.
        """
        target, members = self.trace.target, self.members()
        if target.path is None:
            found = [m for m in members if m.part is Part.ARTIFACT and m.run in target.runs]
        else:
            commits = {step.past for step in target_steps(self.trace)} or {None}
            inside = (m for m in members if m.path == target.path or m.path.startswith(target.path + "/"))
            found = [m for m in inside if m.commit in commits]
        if not found:
            raise AuditError("it has no files", where=target.asked, expected="an artifact, or a stage with outputs")
        return found

    def hashed(self, members: Iterable[Member]) -> dict[Member, Digests]:
        """What the bytes hash to, which the record has to agree with.

        Raises:
            Missing: bytes are missing.
            Wrong: they aren't those that the record names.
        """
        asked = [*members]
        found = {m: d for past, part in self._former.items() for m, d in part.hashed(_of(asked, past)).items()}
        return {**self._hash(_of(asked, self._past)), **found}

    def _hash(self, members: list[Member]) -> dict[Member, Digests]:
        """What the bytes of one state hash to."""
        todo = [m for m in members if m.path not in self._hashed]
        places = {m: self.places.find(m.path, m.hash, m.algorithm) for m in todo}
        missing = [m.path for m, place in places.items() if place is None]
        if missing:
            where = {"commit": "git", "record": "the record", "workspace": "workspace, git"}[self.state.kind]
            raise Missing(f"neither in {where} nor in the cache", where=_listed(missing), todo="Fetch: dvc pull")
        found = [place for place in places.values() if place is not None]
        self._hashed.update(zip((m.path for m in todo), self.places.digests(found), strict=True))
        wrong = [*self._wrong(places)]
        if wrong:
            raise Wrong("\n  ".join(wrong[:NAMED]), where=self.state.name, todo="See: dvc-lineage verify")
        return {m: self._hashed[m.path] for m in members}

    def left_out(self, members: Iterable[Member]) -> frozenset[Member]:
        """What a kept record left out and is nowhere here: of that, the recorded hash is all that is known."""
        state = self.state
        if not isinstance(state, Kept):
            return frozenset()
        known = (m for m in members if m.part is Part.ARTIFACT and m.hash is not None and m.commit is None)
        outputs = (m for m in known if state.leaves_out(m.path))
        return frozenset(m for m in outputs if self.places.find(m.path, m.hash, m.algorithm) is None)

    def check_record(self) -> None:
        """Hold parameter files and folders against what the runs read, and what one run read against what others did.

        Raises:
            Missing: it isn't known who made something.
            Wrong: they differ.
        """
        lost = [read.file.path for step in self._steps for read in step.inputs if read.role is Role.LOST]
        if lost:
            raise Missing("no run of history that is here made it as it was read", where=_listed(lost))
        names = {step.name for step in self._steps}
        known = {(f.path, f.algorithm): (f.hash, step.name) for step in self._steps for f in step.outputs}
        for step in (step for step in self._steps if not step.frozen):
            own = (read.file for read in step.inputs if names.issuperset(read.producers))
            for file in (file for file in own if file.hash is not None):
                first, other = known.setdefault((file.path, file.algorithm), (file.hash, step.name))
                if first != file.hash:
                    what = f"{step.name} read {file.hash}, the record of {other} says {first}"
                    raise Wrong(what, where=file.path)
            for name, parameters in _by_file(step.parameters).items():
                self._check_parameters(step, name, parameters)
            for read in step.inputs:
                if read.file.is_folder and read.role in (Role.CODE, Role.UNPINNED):
                    self._check_folder(step, read)
        for closure in self._former.values():
            closure.check_record()

    def _of_step(self, step: Step) -> Iterator[Member]:
        """What a run made and read; of a frozen one what it made, since what it read may not be here any more."""
        for file in step.outputs:
            if not file.is_external:
                yield from self._output(step, file)
        if step.frozen:
            return
        for read in step.inputs:
            yield from self._input(read)
        for file_name in _by_file(step.parameters):
            yield Member(file_name, Part.PARAMETERS)

    def _output(self, step: Step, file: File) -> Iterator[Member]:
        if not file.is_folder:
            yield Member(file.path, Part.ARTIFACT, file.hash, file.algorithm, step.name)
            return
        listing = self.places.contents.listing(file)
        if listing is None and isinstance(self.state, Kept) and self.state.leaves_out(file.path):
            yield Member(file.path, Part.ARTIFACT, file.hash, file.algorithm, step.name)
            return
        if listing is None:
            raise Missing(
                "the list of what the stage wrote into this folder is not here, or isn't what its hash says",
                where=file.path,
                todo="Fetch it: dvc pull; or see: dvc-lineage verify",
            )
        for path, digest in listing.items():
            yield Member(f"{file.path}/{path}", Part.ARTIFACT, digest, file.algorithm, step.name)

    def _input(self, read: Input) -> Iterator[Member]:
        if read.role is Role.EXTERNAL:
            return
        file = read.file
        part = Part.UNPINNED if read.role is Role.UNPINNED else Part.CODE
        if read.role is Role.ARTIFACT:
            yield from (Member(f"{file.path}/{p}", part) for p in self._kept_beside(file.path))
        elif file.is_folder:
            yield from self._folder(file, part)
        else:
            yield Member(file.path, part, file.hash, file.algorithm)

    def _folder(self, file: File, part: Part) -> Iterator[Member]:
        """What a run read in a folder that no run made, each with its hash where that is known."""
        inside = self.places.laid_out(file)
        for path in self._under(file.path):
            yield Member(f"{file.path}/{path}", part, inside.get(path), file.algorithm)

    def _asked(self, found: Mapping[str, Member]) -> Iterator[Member]:
        """The target, where no run made it."""
        target = self.trace.target
        if target.path is None or target.runs or target.path in found:
            return
        file = File(target.path, target.hash)
        blob = self.state.blob(file.path)
        role = Role.CODE if blob or self.state.committed_under(file.path) else Role.UNPINNED
        yield from self._input(Input(file=file, role=Role.EXTERNAL if file.is_external else role))

    def _under(self, path: str) -> list[str]:
        """Files of a folder that no run made."""
        if isinstance(self.state, Workspace) and (self.state.repository.root / path).is_dir():
            return [*self.state.files_under(path)]
        return [*self.state.committed_under(path)]

    def _kept_beside(self, path: str) -> Iterator[str]:
        """What git keeps in a folder beside the outputs of runs."""
        for below in self.state.committed_under(path):
            parents = [f"{path}/{below}"]
            while parents[-1]:
                parents.append(posixpath.dirname(parents[-1]))
            if not self._made.intersection(parents):
                yield below

    def _wrong(self, places: Mapping[Member, Path | bytes | None]) -> Iterator[str]:
        for member, place in places.items():
            if member.hash is None:
                continue
            found = self._hashed[member.path].md5
            if member.algorithm == LEGACY and place is not None:
                found = _legacy(place)
            if found != member.hash:
                yield f"{member.path}: its bytes hash to {found}, the record says {member.hash}"

    def _check_parameters(self, step: Step, file: str, parameters: Iterable[Parameter]) -> None:
        if self.state.leads_out(file):
            raise Missing("it lies outside the repository, where nothing is read", where=file)
        content = parsed(self.state.read(file), file)
        for parameter in parameters:
            now = value_at(content, parameter.key)
            if not same(now, parameter.value):
                raise Wrong(
                    f"{parameter.key} is {shown(now)}, {step.name} ran with {shown(parameter.value)}",
                    where=file,
                    todo="Run it again (dvc repro), or name a revision that has both",
                )

    def _check_folder(self, step: Step, read: Input) -> None:
        file = read.file
        members = [*self._folder(file, Part.CODE)]
        entries = {m.path[len(file.path) + 1 :]: d.md5 for m, d in self._hash(members).items()}
        if file.algorithm != LEGACY and folder_hash(entries.items()) != file.hash:
            raise Wrong(f"it has other files than those that {step.name} read", where=file.path)


def _of(members: Iterable[Member], commit: str | None) -> list[Member]:
    return [member for member in members if member.commit == commit]


def recorded_hash(places: Places, producers: Iterable[tuple[Run, File]], path: str) -> tuple[str, str] | None:
    """DVC's hash of an output, or of a file in one, and its algorithm; None where the record has none.

    Args:
        producers: the outputs that the path is or lies in.
    """
    for _, output in producers:
        if output.path == path and output.hash is not None and not output.is_folder:
            return output.hash, output.algorithm
        if output.is_folder and path.startswith(output.path + "/"):
            digest = (places.contents.listing(output) or {}).get(path[len(output.path) + 1 :])
            return None if digest is None else (digest, output.algorithm)
    return None


def is_data(read: Input) -> bool:
    """Whether an input is data and no code, by who made it and by its name."""
    return read.role is not Role.CODE or read.file.is_folder or is_data_file(read.file.path)


def step_id(step: Step) -> str:
    """A hash of what a run is: its command, parameters, inputs and outputs, not when it was recorded; hex."""
    said = step.model_dump_json(include={"name", "kind", "folder", "command", "parameters", "inputs", "outputs"})
    return hashlib.sha256(said.encode()).hexdigest()


def trace_id(traced: Trace) -> str:
    """A hash of a target's whole record; hex."""
    parts: list[Any] = [traced.target.asked, traced.target.hash, traced.commit and traced.commit.id]
    text = repr([*parts, *(step_id(step) for step in traced.steps)])
    return hashlib.sha256(text.encode()).hexdigest()


def target_steps(traced: Trace) -> list[Step]:
    """The runs that made the target."""
    return [step for step in traced.steps if step.name in traced.target.runs]


def parameter_tree(step: Step) -> dict[str, dict[str, Any]]:
    """Parameter file -> dotted key -> value."""
    return {file: {p.key: p.value for p in found} for file, found in _by_file(step.parameters).items()}


def _by_file(parameters: Iterable[Parameter]) -> dict[str, list[Parameter]]:
    found: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        found.setdefault(parameter.file, []).append(parameter)
    return found


def _legacy(place: Path | bytes) -> str:
    if isinstance(place, bytes):
        return stream_hash(io.BytesIO(place), LEGACY)
    with place.open("rb") as stream:
        return stream_hash(stream, LEGACY)


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(paths[:NAMED]) + more
