"""A closure as PROV-JSON: files are entities, runs activities; a person and the software are agents. Sends nothing."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import dvc
from prov.identifier import Namespace, QualifiedName
from prov.model import PROV_TYPE, ProvDocument

from lineage.closure import is_data
from lineage.export.validation import validate_prov
from lineage.model import Commit, File
from lineage.trace import Step, Trace


def prov_json(traced: Trace) -> bytes:
    """The document.

    Raises:
        InvalidExport: it isn't what the schema of PROV-JSON says.
    """
    text = _Document(traced).written()
    validate_prov(json.loads(text))
    return text.encode()


class _Document:
    """The document while it grows."""

    def __init__(self, traced: Trace) -> None:
        self._document = ProvDocument()
        self._files, self._runs, self._agents, self._words = (
            self._document.add_namespace(prefix, f"urn:lineage:{prefix}:") for prefix in ("file", "run", "agent", "dvc")
        )
        self._entities: dict[tuple[str, str | None], QualifiedName] = {}
        self._attributed: set[tuple[QualifiedName, QualifiedName]] = set()
        files = [file for step in traced.steps for file in (*(read.file for read in step.inputs), *step.outputs)]
        self._versions = Counter(path for path, _ in {(file.path, file.hash) for file in files})
        self._software = self._document.agent(
            self._agents["dvc"],
            {PROV_TYPE: self._prov("SoftwareAgent"), self._words["version"]: dvc.__version__},
        )
        for step in traced.steps:
            self._step(step)
        self._target(traced)

    def written(self) -> str:
        """The document as JSON."""
        written = json.loads(self._document.serialize() or "")
        return json.dumps(_ordered(written), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def _prov(self, name: str) -> QualifiedName:
        return Namespace("prov", "http://www.w3.org/ns/prov#")[name]

    def _step(self, step: Step) -> None:
        said: list[tuple[Any, Any]] = [(PROV_TYPE, self._words[step.kind.value])]
        said += [(self._words["command"], "\n".join(step.command))] if step.command else []
        said += [
            (self._words["parameter"], json.dumps({"file": p.file, "key": p.key, "value": p.value}, ensure_ascii=False))
            for p in step.parameters
        ]
        said += [(self._words["seed"], seed) for seed in step.seeds]
        if step.recorded is not None:
            said += [(self._words["recordedIn"], step.recorded.id), (self._words["recordedAt"], step.recorded.time)]
        run = self._runs[_local(step.name)]
        self._document.activity(run, other_attributes=said)
        self._document.association(run, self._software)
        if step.recorded is not None:
            self._document.delegation(self._software, self._person(step.recorded), run)
        for read in step.inputs:
            self._document.usage(run, self._entity(read.file, {"role": read.role.value, "gitBlob": read.blob}))
        data = [self._entity(read.file) for read in step.inputs if is_data(read)]
        for output in step.outputs:
            self._output(run, self._entity(output), data, step.recorded)

    def _output(
        self, run: QualifiedName, made: QualifiedName, data: Iterable[QualifiedName], recorded: Commit | None
    ) -> None:
        self._document.generation(made, run)
        for used in data:
            self._document.derivation(made, used, run)
        person = self._person(recorded) if recorded is not None else None
        if person is not None and (made, person) not in self._attributed:  # two runs may have made the same bytes
            self._attributed.add((made, person))
            self._document.attribution(made, person)

    def _entity(self, file: File, more: dict[str, str | None] | None = None) -> QualifiedName:
        """The entity of a version of a file, made where it is first met; of several each is named by its hash, too."""
        key = (file.path, file.hash)
        if key not in self._entities:
            version = f"{file.path}@{file.hash}" if self._versions[file.path] > 1 else file.path
            name = self._entities[key] = self._files[_local(version)]
            said: dict[str, Any] = {"path": file.path, file.algorithm: file.hash, "size": file.size, **(more or {})}
            attributes = {self._words[k]: v for k, v in said.items() if v is not None}
            kind = [(PROV_TYPE, self._prov("Collection"))] if file.is_folder else []
            self._document.entity(name, [*kind, *attributes.items()])
        return self._entities[key]

    def _person(self, commit: Commit) -> QualifiedName:
        name = self._agents[_local(commit.email or commit.author)]
        if not self._document.get_record(name):
            person: dict[Any, Any] = {PROV_TYPE: self._prov("Person"), self._words["name"]: commit.author}
            self._document.agent(name, person)
        return name

    def _target(self, traced: Trace) -> None:
        """Mark what was asked for; a folder that holds outputs, or a raw source, may have no entity yet."""
        target = traced.target
        if target.path is None:
            return
        name = self._entity(File(target.path, target.hash))
        said = {self._words["target"]: target.asked}
        if target.key is not None:
            said[self._words["value"]] = json.dumps(target.value)
        for record in self._document.get_record(name):
            record.add_attributes(said)


def _ordered(written: Any) -> Any:
    """The same with values of one attribute in a fixed order: the library keeps them in sets."""
    if isinstance(written, dict):
        return {key: _ordered(inner) for key, inner in written.items()}
    return sorted(written, key=json.dumps) if isinstance(written, list) else written


def _local(text: str) -> str:
    """A name as PROV can write it."""
    return quote(text, safe="/")
