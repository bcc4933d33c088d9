"""Does a run's own manifest say what dvc.lock says? A lock entry that no run made disagrees with it."""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.manifests import Manifest, is_manifest
from lineage.model import Fault, Finding, Run


def check_manifests(case: Case) -> Iterator[Finding]:
    """Every manifest against its run's record, and against what the producers of its inputs made."""
    for run in case.runs:
        manifest = case.manifest(run)
        if manifest is None:
            continue
        yield from _outputs(run, manifest)
        if run.name in case.live:
            yield from _inputs(case, run, manifest)


def _outputs(run: Run, manifest: Manifest) -> Iterator[Finding]:
    for file in run.outputs:
        if is_manifest(file.path):
            continue
        said = manifest.outputs.get(file.path)
        if said is None:
            yield Finding(fault=Fault.MANIFEST, run=run.name, path=file.path, what="its manifest doesn't know it")
        elif said.md5 != file.hash:
            what = f"dvc.lock has {file.hash}, its run wrote {said.md5} (its manifest says)"
            yield Finding(fault=Fault.FORGED, run=run.name, path=file.path, what=what)


def _inputs(case: Case, run: Run, manifest: Manifest) -> Iterator[Finding]:
    recorded = {file.path: file for file in run.inputs}
    said = {path: entry.md5 for path, entry in manifest.inputs.items()} | manifest.code
    for path, digest in said.items():
        if path in recorded:
            if recorded[path].hash != digest:
                what = f"dvc.lock has {recorded[path].hash} for this input, its manifest {digest}"
                yield Finding(fault=Fault.MANIFEST, run=run.name, path=path, what=what)
        elif not _makes(case, path, digest):
            what = f"its run read {digest} there (its manifest says), but no stage made that"
            yield Finding(fault=Fault.MANIFEST, run=run.name, path=path, what=what)


def _makes(case: Case, path: str, digest: str) -> bool:
    """Whether what lies at a path, inside a folder that the run reads, has this hash by its producer's record."""
    for _, output in case.graph.producers(path):
        if output.path == path:
            return output.hash == digest
        if path.startswith(output.path + "/"):
            listing = case.contents.listing(output)
            return listing is None or listing.get(path[len(output.path) + 1 :]) == digest
    blob = case.state.blob(path)
    return blob is None or case.blob_hash(blob) == digest
