"""Signed statements of where an artifact came from: in-toto Statement v1 with SLSA's provenance v1. Needs no network.

A statement names every file of the closure with its hashes, so that whoever has the public key can tell later whether
any of them has changed. The same record, bytes and key give the same statement.
"""

import hashlib
import io
import json
import math
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dvc
import in_toto_attestation.v1.statement_pb2 as statement_pb2
from google.protobuf.json_format import MessageToDict, Parse, ParseError
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from lineage.closure import (
    NAMED,
    Closure,
    Digests,
    Member,
    Part,
    Places,
    digests,
    parameter_tree,
    recorded_hash,
    target_steps,
    trace_id,
)
from lineage.errors import AuditError
from lineage.graph import Graph, folders_above
from lineage.hashing import LEGACY, Progress, file_hash, folder_hash, stream_hash
from lineage.model import File, Frozen, Pin
from lineage.repository import Repository
from lineage.signing import opened, sign
from lineage.states import open_state
from lineage.trace import Input, Role, Step, Trace, trace

BUILDER = "urn:lineage:builder:1"
"""Who says so: this tool."""
LEFT_OUT = "artifact, by its recorded hash"
"""Of a statement's file: what a kept record left out, whose bytes the signer didn't have."""
BUILD_TYPE = "urn:lineage:dvc-closure:1"
"""What the parameters of a statement mean; raised when they change."""
PREDICATE = "https://slsa.dev/provenance/v1"
EXACT = 1 << 53
"""Larger integers are written as text: the statement's numbers are doubles."""
_Signed = tuple[str, str, str | None, str | None]
"""A file's path, SHA-256, hash of DVC before 3.0 where it has one, and commit where a former run had it."""
DIGEST_NAMES = {32: "md5", 40: "gitCommit", 64: "sha256"}
"""Of a pin, by the length of its revision in hex."""


class Differing(Frozen):
    """A file that isn't what was signed."""

    path: str
    what: str


class Checked(Frozen):
    """An attestation whose signature holds, and what its files are now."""

    target: str
    """What was attested, as it was asked for."""
    revision: str
    """Where the files were looked for."""
    commit: str | None
    """The commit that the statement names."""
    signer: str
    """The key's id."""
    files: int
    differing: tuple[Differing, ...]
    missing: tuple[str, ...]
    by_hash: int = 0
    """Outputs that were signed by their recorded hash, which is the record's still; their bytes are not here either."""

    @property
    def holds(self) -> bool:
        """Whether no file differs."""
        return not self.differing

    @property
    def complete(self) -> bool:
        """Whether every file was there."""
        return not self.missing


def attest(
    repository: Repository, target: str, key: Path, revision: str | None = None, progress: Progress | None = None
) -> bytes:
    """A signed statement of where a target came from: a DSSE envelope as JSON.

    Args:
        repository: the repository.
        target: an artifact's path, a number (`PATH:KEY`), a stage, or (part of) a hash.
        key: the file of a private Ed25519 key.
        revision: a commit, branch, tag, experiment; None for the workspace.
        progress: is told how many bytes were hashed.

    Raises:
        AuditError: the revision, the target or the key isn't there.
        Missing: a file's bytes are missing.
        Wrong: they aren't those that the record names.
    """
    traced = trace(repository, target, revision)
    return sign(statement(Closure(repository, traced, progress)), key)


def check(
    repository: Repository,
    attestation: bytes,
    key: Path,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Verify a statement's signature, then hash every file that it names.

    Args:
        repository: the repository.
        attestation: what `attest` gave.
        key: the file of the public key.
        revision: where to look for the files: a commit, branch, tag, experiment, from git and the cache; None for the
            workspace, and git and the cache for what it doesn't have.
        progress: is told how many bytes were hashed.

    Raises:
        Forged: the envelope was edited or cut, or another key has signed it.
        AuditError: the key or the revision isn't there, or the statement is of a kind that isn't known.
    """
    payload, signer = opened(attestation, key)
    target, commit, files = _said(payload)
    graph = Graph(open_state(repository, revision))
    places = Places(graph.state, progress)
    states = {former: _at(repository, former, progress) for _, _, _, former in files if former is not None}
    found = {file: _find(*states.get(file[3] or "", (places, graph)), file[0], file[2]) for file in files}
    here = {file: place for file, place in found.items() if place is not None}
    hashes = dict(zip(here, places.digests(here.values()), strict=True))
    differing = [
        Differing(path=file[0], what=f"its SHA-256 is {made.sha256}, {file[1]} was signed")
        for file, made in hashes.items()
        if made.sha256 != file[1] and not _is_laid_out(states.get(file[3] or "", (places, graph))[0], file[0], file[1])
    ]
    known = {file: _known(places, graph, file) for file in _said_by_hash(payload)}
    differing += [
        Differing(path=file.path, what=f"its hash is {now}, {file.hash} was signed")
        for file, (now, _) in known.items()
        if now not in (None, file.hash)
    ]
    return Checked(
        target=target,
        revision=graph.state.name,
        commit=commit,
        signer=signer,
        files=len(files) + len(known),
        differing=tuple(differing),
        missing=(
            *(file[0] for file, place in found.items() if place is None),
            *(file.path for file, (now, _) in known.items() if now is None),
        ),
        by_hash=sum(now == file.hash and not is_here for file, (now, is_here) in known.items()),
    )


def check_file(place: Path, attestation: bytes, key: Path, progress: Progress | None = None) -> Checked:
    """Verify a statement's signature, then hold one file or folder against it. Needs no repository.

    A file may be any that the statement names, under any name; a folder is held against what was attested.

    Args:
        place: the file or folder.
        attestation: what `attest` gave.
        key: the file of the public key.
        progress: is told how many bytes were hashed.

    Raises:
        Forged: the envelope was edited or cut, or another key has signed it.
        AuditError: the place or the key isn't there, or the statement is of a kind that isn't known.
    """
    payload, signer = opened(attestation, key)
    target, commit, files = _said(payload)
    if not place.is_dir() and not place.is_file():
        raise AuditError("there is no such file or folder", where=str(place))
    subjects = {each["name"] for each in json.loads(payload)["subject"]}
    named = _named_by_hash(place, _said_by_hash(payload), progress)
    differing: list[Differing] = []
    missing: list[str] = []
    count = 1
    if not named and place.is_dir():
        signed = {path: digest for path, digest, _, former in files if path in subjects and former is None}
        differing, missing, count = _check_folder(place, signed, progress)
    elif not named:
        digest = _sha256(place, progress)
        named = [path for path, signed_digest, *_ in files if signed_digest == digest]
        what = f"its SHA-256 is {digest}, and the statement names no such file"
        differing = [] if named else [Differing(path=str(place), what=what)]
    is_target = named == [target] or (place.is_dir() and not named)
    return Checked(
        target=target if is_target else f"{', '.join(named[:NAMED]) or place}, of {target}",
        revision=str(place),
        commit=commit,
        signer=signer,
        files=count,
        differing=tuple(differing),
        missing=tuple(missing),
    )


def _named_by_hash(place: Path, signed: Sequence[File], progress: Progress | None) -> list[str]:
    """The paths of what was signed by its recorded hash and is what lies at a place."""
    known = [file for file in signed if file.is_folder == place.is_dir()]
    made = {algorithm: _recorded_as(place, algorithm, progress) for algorithm in {file.algorithm for file in known}}
    return [file.path for file in known if made[file.algorithm] == file.hash]


def _recorded_as(place: Path, algorithm: str, progress: Progress | None) -> str:
    """The hash that DVC records of a file or folder."""
    if place.is_file():
        return file_hash(place, algorithm, progress)
    return folder_hash((path, file_hash(file, algorithm, progress)) for path, file in _files_in(place).items())


def _files_in(folder: Path) -> dict[str, Path]:
    """Path below a folder -> each file in it."""
    return {place.relative_to(folder).as_posix(): place for place in sorted(folder.rglob("*")) if place.is_file()}


def _check_folder(
    place: Path, signed: Mapping[str, str], progress: Progress | None
) -> tuple[list[Differing], list[str], int]:
    """What differs from the files that were attested, what is missing of them, and how many there are here."""
    here = _files_in(place)
    if not signed:
        what = "its files don't make the hash that was signed"
        return [Differing(path=str(place), what=what)], [], len(here)
    common = posixpath.commonpath([f"/{posixpath.dirname(path)}" for path in signed])[1:]
    base = max(
        (common, *folders_above(common), ""),
        key=lambda folder: sum(posixpath.join(folder, path) in signed for path in here),
    )
    expected = {posixpath.relpath(path, base or "."): digest for path, digest in signed.items()}
    found = {path: _sha256(file, progress) for path, file in here.items()}
    differing = [
        Differing(path=path, what=f"its SHA-256 is {digest}, {expected.get(path, 'no such file')} was signed")
        for path, digest in found.items()
        if expected.get(path) != digest
    ]
    return differing, [path for path in expected if path not in found], len(found)


def _sha256(place: Path, progress: Progress | None) -> str:
    with place.open("rb") as stream:
        return digests(stream, place.stat().st_size, progress).sha256


def _is_laid_out(places: Places | None, path: str, digest: str) -> bool:
    """Whether git lays out what it keeps at a path with a SHA-256, such as with other line ends."""
    forms = () if places is None else places.state.forms(path)
    return any(hashlib.sha256(data).hexdigest() == digest for data in forms)


def statement(closure: Closure) -> bytes:
    """The statement about a closure, as JSON.

    Raises:
        Missing: a file's bytes are missing.
        Wrong: they aren't those that the record names.
    """
    closure.check_record()
    members, subjects = closure.members(), closure.subjects()
    left_out = closure.left_out(members)
    hashes = closure.hashed([m for m in members if m not in left_out])

    def described(member: Member, subject: bool = False) -> ResourceDescriptor:
        return _by_hash(member) if member in left_out else _file(member, hashes[member], subject)

    upstream = [member for member in members if member not in subjects]
    traced = closure.trace
    made = Statement([described(m, subject=True).pb for m in subjects], PREDICATE, {})
    made.pb.predicate.update(_plain(_predicate(traced, [described(m) for m in upstream])))
    made.validate()
    return json.dumps(MessageToDict(made.pb), sort_keys=True, ensure_ascii=False).encode()


def _predicate(traced: Trace, files: Iterable[ResourceDescriptor]) -> dict[str, Any]:
    steps = {step.name: step for step in traced.steps}
    dependencies = [*_commit(traced), *files, *_externals(traced.steps), *map(_pin, traced.pins)]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "target": traced.target.asked,
                "command": [line for step in target_steps(traced) for line in step.command],
                "runs": {
                    name: {"command": step.command, "parameters": parameter_tree(step)} for name, step in steps.items()
                },
            },
            "internalParameters": {
                "dvc": dvc.__version__,
                "runs": {name: _inner(step) for name, step in steps.items()},
            },
            "resolvedDependencies": [MessageToDict(each.pb) for each in dependencies],
        },
        "runDetails": {"builder": {"id": BUILDER}, "metadata": _metadata(traced)},
    }


def _inner(step: Step) -> dict[str, Any]:
    environment = step.environment.model_dump() if step.environment is not None else None
    return {"environment": environment, "seeds": step.seeds}


def _metadata(traced: Trace) -> dict[str, Any]:
    """Of the target's newest record: when it came into git. When its runs ran is not known."""
    recorded = [step.recorded for step in target_steps(traced) if step.recorded is not None]
    newest = max(recorded, key=lambda commit: commit.time, default=None)
    found: dict[str, Any] = {"invocationId": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, trace_id(traced))}"}
    if traced.commit is not None:
        found["lineage_commit"] = traced.commit.id
    if traced.target.key is not None:
        found["lineage_value"] = traced.target.value
    if newest is not None:
        found |= {"lineage_recordedIn": newest.id, "lineage_recordedAt": newest.time}
    return found


def _file(member: Member, found: Digests, subject: bool = False) -> ResourceDescriptor:
    annotations: dict[str, Any] = {"part": member.part.value, "size": found.size}
    if member.run is not None:
        annotations["run"] = member.run
    if member.algorithm == LEGACY:
        annotations[LEGACY] = member.hash
    if member.commit is not None:
        annotations["commit"] = member.commit
    digest = {"md5": found.md5, "sha256": found.sha256}
    if not subject:
        digest["gitBlob"] = found.blob
    return ResourceDescriptor(name=member.path, digest=digest, annotations=annotations)


def _by_hash(member: Member) -> ResourceDescriptor:
    """A file or folder that a kept record left out; its hash is the MD5 of its bytes, or of its list of files."""
    annotations = {"part": LEFT_OUT, "run": member.run, "algorithm": member.algorithm, "hash": member.hash}
    digest = {"md5": (member.hash or "").removesuffix(".dir")}
    return ResourceDescriptor(name=member.path, digest=digest, annotations=annotations)


def _commit(traced: Trace) -> Iterator[ResourceDescriptor]:
    if traced.commit is not None:
        yield ResourceDescriptor(
            name="git", digest={"gitCommit": traced.commit.id}, annotations={"part": "commit", "of": traced.revision}
        )


def _externals(steps: Iterable[Step]) -> Iterator[ResourceDescriptor]:
    seen: dict[str, Input] = {i.file.path: i for step in steps for i in step.inputs if i.role is Role.EXTERNAL}
    for path, read in seen.items():
        annotations = {"part": "external", "algorithm": read.file.algorithm, "hash": read.file.hash}
        yield ResourceDescriptor(name=path, annotations={k: v for k, v in annotations.items() if v is not None})


def _pin(pin: Pin) -> ResourceDescriptor:
    annotations: dict[str, Any] = {
        "part": "pin",
        "where": pin.where,
        "revision": pin.revision,
        "fixed": pin.fixed,
        "runs": [*pin.runs],
    }
    kind = DIGEST_NAMES.get(len(pin.revision or "")) if re.fullmatch(r"[0-9a-f]+", pin.revision or "") else None
    digest = {kind: pin.revision} if kind is not None else None
    return ResourceDescriptor(name=pin.source, digest=digest, annotations=annotations)


def _plain(value: Any) -> Any:
    """A value as the statement can hold it exactly."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < EXACT else str(value)
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _said(payload: bytes) -> tuple[str, str | None, list[_Signed]]:
    """Target, commit and files of what was signed.

    Raises:
        AuditError: it is of a kind that this tool doesn't know.
    """
    message = statement_pb2.Statement()
    try:
        Parse(payload, message)
        Statement.copy_from_pb(message).validate()
    except (ParseError, ValueError) as error:
        raise AuditError(f"what was signed is no in-toto statement: {error}") from None
    if message.predicate_type != PREDICATE:
        raise AuditError(f"the predicate {message.predicate_type!r} is not known", expected=PREDICATE)
    said = MessageToDict(message)
    build_type = said["predicate"].get("buildDefinition", {}).get("buildType")
    if build_type != BUILD_TYPE:
        raise AuditError(f"the build type {build_type!r} is not known", expected=BUILD_TYPE)
    try:
        definition, details = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
        files = [*_files([*said["subject"], *definition["resolvedDependencies"]])]
        return definition["externalParameters"]["target"], details["metadata"].get("lineage_commit"), files
    except (AttributeError, KeyError, TypeError) as error:
        raise AuditError(f"the statement is not as attest writes it ({error})") from None


def _said_by_hash(payload: bytes) -> list[File]:
    """What was signed by its recorded hash alone, of a statement that is as `_said` reads it."""
    said = json.loads(payload)
    every = [*said["subject"], *said["predicate"]["buildDefinition"]["resolvedDependencies"]]
    notes = {each["name"]: each.get("annotations", {}) for each in every}
    return [
        File(_inside(path), str(said["hash"]), str(said["algorithm"]))
        for path, said in notes.items()
        if said.get("part") == LEFT_OUT
    ]


def _known(places: Places, graph: Graph, file: File) -> tuple[str | None, bool]:
    """An output's hash by the record, else by the bytes; and whether its bytes are here."""
    producers = graph.producers(file.path)
    whole = next((output.hash for _, output in producers if output.path == file.path), None)
    recorded = whole or next(iter(recorded_hash(places, producers, file.path) or ()), None)
    place = places.find(file.path, file.hash, file.algorithm)
    if place is None or recorded not in (None, file.hash):
        return recorded, False
    with io.BytesIO(place) if isinstance(place, bytes) else place.open("rb") as stream:
        return stream_hash(stream, file.algorithm) + (".dir" if file.is_folder else ""), True


def _inside(path: str) -> str:
    """A path that a statement names, if it is one in the repository."""
    if path.startswith("/") or posixpath.normpath(path) != path or path.split("/")[0] == "..":
        raise AuditError(f"the statement names {path!r}", expected="paths in the repository")
    return path


def _files(descriptors: Iterable[Mapping[str, Any]]) -> Iterator[_Signed]:
    parts = {part.value for part in Part}
    for each in descriptors:
        notes = each.get("annotations", {})
        if notes.get("part") not in parts:
            continue
        yield _inside(each["name"]), each["digest"]["sha256"], notes.get(LEGACY), notes.get("commit")


def _at(repository: Repository, commit: str, progress: Progress | None) -> tuple[Places | None, Graph | None]:
    """Where the files of a former run are; None where its commit is not here."""
    if not repository.has_commit(commit):
        return None, None
    graph = Graph(open_state(repository, commit))
    return Places(graph.state, progress), graph


def _find(places: Places | None, graph: Graph | None, path: str, legacy: str | None) -> Path | bytes | None:
    if places is None or graph is None:
        return None
    recorded = recorded_hash(places, graph.producers(path), path)
    if recorded is None:
        recorded = (legacy, LEGACY) if legacy is not None else None
    return places.find(path, *recorded) if recorded is not None else places.find(path, None)
