"""A target as a CycloneDX 1.6 bill of materials for machine learning: the model, its data, the packages. Sends nothing.

The library knows no `modelCard`: it is added to the document, which is then validated.
"""

import json
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from lineage.changes import PACKAGE
from lineage.closure import Closure, Digests, Member, is_data, target_steps, trace_id
from lineage.export.validation import validate_cyclonedx
from lineage.model import File, Kind, Pin
from lineage.results import Measured
from lineage.trace import Trace

MODEL = "model"
"""The target's reference in the document."""


def cyclonedx(closure: Closure, results: Iterable[Measured]) -> bytes:
    """The document. The target's files are hashed anew; of data, the record's hashes are taken.

    Args:
        closure: the target's.
        results: what was measured on it.

    Raises:
        Missing: the target's bytes are missing.
        Wrong: they aren't those that the record names.
        InvalidExport: the document isn't what CycloneDX's schema says.
    """
    traced = closure.trace
    subjects = closure.subjects()
    model = _model(traced, closure.hashed(subjects))
    data = [*_data(traced), *map(_pinned, traced.pins)]
    packages = [*_packages(closure)]
    bom = Bom(components=[*data, *packages], serial_number=uuid.uuid5(uuid.NAMESPACE_URL, trace_id(traced)))
    bom.metadata.component = model
    bom.register_dependency(model, [*data, *packages])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    _set_time(document["metadata"], traced)
    document["metadata"]["component"]["modelCard"] = _card(traced, data, results)
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    validate_cyclonedx(text)
    return text.encode()


def _model(traced: Trace, files: Mapping[Member, Digests]) -> Component:
    target = traced.target
    single = len(files) == 1 and next(iter(files)).path == target.path
    parts = [] if single else [_file(member, found) for member, found in files.items()]
    hashes = _hashes(next(iter(files.values()))) if single else []
    runs = ", ".join(step.name for step in target_steps(traced))
    said = {
        "lineage:revision": traced.revision,
        "lineage:commit": traced.commit.id if traced.commit is not None else None,
        "lineage:runs": runs or None,
        "lineage:dvc": target.hash,
    }
    return Component(
        name=target.path or target.asked,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=target.hash,
        bom_ref=MODEL,
        hashes=hashes,
        components=parts,
        properties=_properties(said),
    )


def _file(member: Member, found: Digests) -> Component:
    return Component(
        name=member.path, type=ComponentType.FILE, bom_ref=f"file:{member.path}", hashes=_hashes(found), properties=[]
    )


def _hashes(found: Digests) -> list[HashType]:
    return [
        HashType(alg=HashAlgorithm.MD5, content=found.md5),
        HashType(alg=HashAlgorithm.SHA_256, content=found.sha256),
    ]


def _data(traced: Trace) -> Iterator[Component]:
    """Raw data and imports of the whole closure, and what the target's own runs read."""
    files: dict[tuple[str, str | None], tuple[File, str]] = {}
    for step in traced.steps:
        if step.kind is not Kind.STAGE:
            files.update({(file.path, file.hash): (file, step.name) for file in step.outputs})
        for read in step.inputs:
            if is_data(read) and (not read.producers or step.name in traced.target.runs):
                made_by = ", ".join(read.producers) or read.role.value
                files.setdefault((read.file.path, read.file.hash), (read.file, made_by))
    versions = Counter(path for path, _ in files)
    for (path, digest), (file, made_by) in files.items():
        plain = file.algorithm == "md5" and file.hash is not None and not file.is_folder
        hashes = [HashType(alg=HashAlgorithm.MD5, content=file.hash or "")] if plain else []
        said = {"lineage:from": made_by, f"lineage:{file.algorithm}": file.hash}
        yield Component(
            name=path,
            type=ComponentType.DATA,
            version=digest if versions[path] > 1 else None,
            bom_ref=f"data:{path}@{digest}" if versions[path] > 1 else f"data:{path}",
            hashes=hashes,
            properties=_properties(said),
        )


def _pinned(pin: Pin) -> Component:
    said = {"lineage:where": pin.where, "lineage:runs": ", ".join(pin.runs), "lineage:fixed": str(pin.fixed).lower()}
    return Component(
        name=pin.source,
        type=ComponentType.DATA,
        version=pin.revision,
        bom_ref=f"pin:{pin.where}:{pin.source}:{pin.revision}",
        properties=_properties(said),
    )


def _packages(closure: Closure) -> Iterator[Component]:
    found: dict[tuple[str, str], list[str]] = {}
    for lock in closure.trace.environment:
        for package in _locked(lock, closure.state.read(lock) or closure.state.committed(lock) or b""):
            found.setdefault(package, []).append(lock)
    for (name, version), locks in sorted(found.items()):
        url = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=url.to_string(),
            purl=url,
            properties=_properties({"lineage:lock": ", ".join(locks)}),
        )


def _locked(name: str, data: bytes) -> set[tuple[str, str]]:
    """(Package, version) of a lock of pip's format, or of uv's or poetry's."""
    text = data.decode(errors="replace")
    try:
        packages = tomllib.loads(text).get("package", []) if name.endswith((".lock", ".toml")) else []
    except tomllib.TOMLDecodeError:
        packages = []
    found = {(p["name"], p["version"]) for p in packages if isinstance(p, dict) and {"name", "version"} <= p.keys()}
    return found or {(package.partition("[")[0], version) for package, version in PACKAGE.findall(text)}


def _properties(said: Mapping[str, str | None]) -> list[Property]:
    return [Property(name=name, value=value) for name, value in said.items() if value is not None]


def _set_time(metadata: dict[str, Any], traced: Trace) -> None:
    """When the record came into git; the library would say now."""
    recorded = (step.recorded for step in target_steps(traced))
    times = [commit.time for commit in recorded if commit is not None and commit.time]
    if times:
        metadata["timestamp"] = max(times, key=datetime.fromisoformat)
    else:
        metadata.pop("timestamp", None)


def _card(traced: Trace, data: Iterable[Component], results: Iterable[Measured]) -> dict[str, Any]:
    metrics = [
        {"type": f"{each.path}:{key}", "value": str(value), "slice": each.run}
        for each in results
        for key, value in each.numbers
    ]
    limits = [f"{gap.where}: {gap.what}" for gap in traced.gaps]
    limits += [f"{pin.source} ({pin.where}) is not pinned" for pin in traced.pins if not pin.fixed]
    said = [
        {"name": f"{step.name}: {p.file}: {p.key}", "value": json.dumps(p.value, ensure_ascii=False)}
        for step in target_steps(traced)
        for p in step.parameters
    ]
    card: dict[str, Any] = {"modelParameters": {"datasets": [{"ref": str(each.bom_ref.value)} for each in data]}}
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    if limits:
        card["considerations"] = {"technicalLimitations": limits}
    return {**card, "properties": said} if said else card
