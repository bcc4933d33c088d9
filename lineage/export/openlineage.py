"""A closure as OpenLineage's events: a START and a COMPLETE for each run, one JSON document a line. Sends nothing.

Git doesn't know when a run began or ended: both events have the time of the commit that first held its record. A record
in no commit has the time of the commit that is checked out, and `committed: false`; without any commit, 1970.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import attr
from openlineage.client.event_v2 import Dataset, InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated.base import DatasetFacet, JobFacet, RunFacet
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from openlineage.client.generated.source_code_job import SourceCodeJobFacet
from openlineage.client.generated.source_code_location_job import SourceCodeLocationJobFacet
from openlineage.client.serde import Serde

from lineage.attestation import BUILDER
from lineage.closure import is_data, step_id
from lineage.errors import AuditError
from lineage.export.validation import validate_openlineage
from lineage.model import Commit, File
from lineage.trace import Step, Trace

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
FACETS = "urn:lineage:facets"


@attr.define
class ParametersRunFacet(RunFacet):
    """What a run was made with."""

    parameters: list[dict[str, str]] = attr.field(factory=list)
    """`file`, `key`, and `value` as JSON."""
    seeds: list[str] = attr.field(factory=list)

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:parameters:1"


@attr.define
class RecordRunFacet(RunFacet):
    """Where the record of a run is."""

    target: str
    commit: str | None
    committed: bool
    """Whether that commit holds the record."""

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:record:1"


@attr.define
class CodeJobFacet(JobFacet):
    """The code that a run read."""

    files: dict[str, str] = attr.field(factory=dict)
    """Path -> MD5."""

    @staticmethod
    def _get_schema() -> str:
        return f"{FACETS}:code:1"


def openlineage(traced: Trace, namespace: str) -> bytes:
    """The events, one a line.

    Args:
        traced: the closure.
        namespace: the project's.

    Raises:
        AuditError: no run made the target.
        InvalidExport: an event isn't what OpenLineage's schema says.
    """
    if not traced.steps:
        raise AuditError("no run made it, so that it has no events", where=traced.target.asked)
    lines = []
    for event in _events(traced, namespace):
        written = Serde.to_dict(event)
        validate_openlineage(written)
        lines.append(json.dumps(written, sort_keys=True, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _events(traced: Trace, namespace: str) -> Iterator[RunEvent]:
    for step in traced.steps:
        commit = step.recorded or traced.commit
        for state in (RunState.START, RunState.COMPLETE):
            yield RunEvent(
                eventType=state,
                eventTime=(commit.time if commit is not None else "") or UNKNOWN_TIME,
                producer=BUILDER,
                run=Run(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}#{step_id(step)}")), _run_facets(traced, step)),
                job=Job(namespace, step.address, _job_facets(step, commit)),
                inputs=_inputs(step, namespace),
                outputs=_outputs(step.outputs, namespace) if state is RunState.COMPLETE else [],
            )


def _run_facets(traced: Trace, step: Step) -> dict[str, RunFacet]:
    parameters = [{"file": p.file, "key": p.key, "value": json.dumps(p.value)} for p in step.parameters]
    commit = step.recorded or traced.commit
    record = RecordRunFacet(
        target=traced.target.asked,
        commit=commit.id if commit is not None else None,
        committed=step.recorded is not None,
        producer=BUILDER,
    )
    return {
        "lineage_parameters": ParametersRunFacet(parameters, [*step.seeds], producer=BUILDER),
        "lineage_record": record,
    }


def _job_facets(step: Step, commit: Commit | None) -> dict[str, JobFacet]:
    code = {i.file.path: i.file.hash or "" for i in step.inputs if not is_data(i)}
    facets: dict[str, JobFacet] = {
        "jobType": JobTypeJobFacet("BATCH", "DVC", step.kind.value.upper(), producer=BUILDER),
        "lineage_code": CodeJobFacet(code, producer=BUILDER),
    }
    if step.command:
        facets["sourceCode"] = SourceCodeJobFacet("shell", "\n".join(step.command), producer=BUILDER)
    if commit is not None:
        where = f"git:{commit.id}:{quote(step.folder)}"
        location = SourceCodeLocationJobFacet("git", where, path=step.folder, version=commit.id, producer=BUILDER)
        facets["sourceCodeLocation"] = location
    return facets


def _inputs(step: Step, namespace: str) -> list[InputDataset]:
    files = [read.file for read in step.inputs if is_data(read)]
    return [InputDataset(d.namespace, d.name, facets=d.facets) for d in _datasets(files, namespace)]


def _outputs(files: Iterable[File], namespace: str) -> list[OutputDataset]:
    found = []
    for file, dataset in zip(files, _datasets(files, namespace), strict=True):
        statistics = OutputStatisticsOutputDatasetFacet(size=file.size, fileCount=file.files, producer=BUILDER)
        facets: Any = {"outputStatistics": statistics}
        found.append(OutputDataset(dataset.namespace, dataset.name, facets=dataset.facets, outputFacets=facets))
    return found


def _datasets(files: Iterable[File], namespace: str) -> Iterator[Dataset]:
    for file in files:
        facets: dict[str, DatasetFacet] = {}
        if file.hash is not None:
            facets["version"] = DatasetVersionDatasetFacet(f"{file.algorithm}:{file.hash}", producer=BUILDER)
        scheme, place, path, *_ = urlsplit(file.path) if "://" in file.path else ("", "", "")
        if scheme and path:
            yield Dataset(f"{scheme}://{place}", path.lstrip("/"), facets=facets)
        else:
            yield Dataset("file" if file.is_external else namespace, file.path, facets=facets)
