"""Signed statements of where an artifact came from: in-toto Statement v1 with SLSA's provenance v1. Needs no network.

A statement names every file of the closure with its hashes, so that whoever has the public key can tell later whether
any of them has changed. The same record, bytes and key give the same statement.
"""

import hashlib
import json
import math
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dvc
import in_toto_attestation.v1.statement_pb2 as statement_pb2
from google.protobuf.json_format import MessageToDict, Parse, ParseError
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from lineage.closure import (
    Closure,
    Digests,
    Member,
    Part,
    Places,
    parameter_tree,
    recorded_hash,
    target_steps,
    trace_id,
)
from lineage.errors import AuditError
from lineage.graph import Graph
from lineage.hashing import LEGACY, Progress
from lineage.model import Frozen, Pin
from lineage.repository import Repository
from lineage.signing import opened, sign
from lineage.states import State, open_state
from lineage.trace import Input, Role, Step, Trace, trace

BUILDER = "urn:lineage:builder:1"
"""Who says so: this tool."""
BUILD_TYPE = "urn:lineage:dvc-closure:1"
"""What the parameters of a statement mean; raised when they change."""
PREDICATE = "https://slsa.dev/provenance/v1"
EXACT = 1 << 53
"""Larger integers are written as text: the statement's numbers are doubles."""
_Signed = tuple[str, str, str | None]
"""A file's path, SHA-256, and hash of DVC before 3.0 where it has one."""
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
        AuditError: the revision, the target or the key isn't there, a file's bytes are missing, or they aren't those
            that the record names.
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
    found = {path: _find(places, graph, path, legacy) for path, _, legacy in files}
    here = {path: place for path, place in found.items() if place is not None}
    hashes = dict(zip(here, places.digests(here.values()), strict=True))
    differing = [
        Differing(path=path, what=f"its SHA-256 is {hashes[path].sha256}, {digest} was signed")
        for path, digest, _ in files
        if path in hashes and hashes[path].sha256 != digest and not _is_laid_out(graph.state, path, digest)
    ]
    return Checked(
        target=target,
        revision=graph.state.name,
        commit=commit,
        signer=signer,
        files=len(files),
        differing=tuple(differing),
        missing=tuple(path for path, place in found.items() if place is None),
    )


def _is_laid_out(state: State, path: str, digest: str) -> bool:
    """Whether git lays out what it keeps at a path with a SHA-256, such as with other line ends."""
    return any(hashlib.sha256(data).hexdigest() == digest for data in state.forms(path))


def statement(closure: Closure) -> bytes:
    """The statement about a closure, as JSON.

    Raises:
        AuditError: a file's bytes are missing, or aren't those that the record names.
    """
    closure.check_record()
    members, subjects = closure.members(), closure.subjects()
    hashes = closure.hashed(members)
    upstream = [member for member in members if member not in subjects]
    traced = closure.trace
    made = Statement([_file(m, hashes[m], subject=True).pb for m in subjects], PREDICATE, {})
    made.pb.predicate.update(_plain(_predicate(traced, [_file(m, hashes[m]) for m in upstream])))
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
    digest = {"md5": found.md5, "sha256": found.sha256}
    if not subject:
        digest["gitBlob"] = found.blob
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


def _files(descriptors: Iterable[Mapping[str, Any]]) -> Iterator[_Signed]:
    parts = {part.value for part in Part}
    for each in descriptors:
        notes = each.get("annotations", {})
        if notes.get("part") not in parts:
            continue
        path = each["name"]
        if path.startswith("/") or posixpath.normpath(path) != path or path.split("/")[0] == "..":
            raise AuditError(f"the statement names {path!r}", expected="paths in the repository")
        yield path, each["digest"]["sha256"], notes.get(LEGACY)


def _find(places: Places, graph: Graph, path: str, legacy: str | None) -> Path | bytes | None:
    recorded = recorded_hash(places, graph.producers(path), path)
    if recorded is None:
        recorded = (legacy, LEGACY) if legacy is not None else None
    return places.find(path, *recorded) if recorded is not None else places.find(path, None)
