"""Does a run's own manifest say what dvc.lock says? A lock entry that no run made disagrees with it."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from lineage.checks.case import Case
from lineage.manifests import Manifest, Recorded, is_manifest
from lineage.model import Fault, File, Finding, Run
from lineage.values import differing, same, shown


def check_manifests(case: Case) -> Iterator[Finding]:
    """Every manifest against its run's record, and against what the producers of its inputs made."""
    for run in case.runs:
        manifest = case.manifest(run)
        if manifest is None:
            continue
        yield from _outputs(run, manifest)
        if run.name in case.live:
            yield from _parameters(run, manifest)
            yield from _inputs(case, run, manifest)


def _disagree(run: Run, path: str, what: str) -> Finding:
    return Finding(fault=Fault.MANIFEST, run=run.name, path=path, what=what)


def _sizes(run: Run, file: File, said: Recorded) -> Iterator[Finding]:
    if None not in (file.size, said.size) and file.size != said.size:
        yield _disagree(run, file.path, f"dvc.lock has {file.size} bytes, its manifest {said.size}")


def _outputs(run: Run, manifest: Manifest) -> Iterator[Finding]:
    made = {file.path: file for file in run.outputs if not is_manifest(file.path)}
    for path, file in made.items():
        said = manifest.outputs.get(path)
        if said is None:
            yield _disagree(run, path, "its manifest doesn't know it")
        elif said.md5 != file.hash:
            what = f"dvc.lock has {file.hash}, its run wrote {said.md5} (its manifest says)"
            yield Finding(fault=Fault.FORGED, run=run.name, path=path, what=what)
        else:
            yield from _sizes(run, file, said)
    for path in manifest.outputs:
        if path not in made:
            yield _disagree(run, path, "its manifest says that it made it, dvc.lock doesn't")


def _parameters(run: Run, manifest: Manifest) -> Iterator[Finding]:
    if manifest.params is None:
        return
    recorded = {key: value for _, key, value in run.settings()}
    for key, then, said in differing(recorded, _by_key(manifest.params, recorded)):
        what = f"{key} is {shown(then)} in dvc.lock, its manifest says {shown(said)}"
        yield _disagree(run, next(iter(run.parameters), run.file), what)


def _by_key(said: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's parameters by their keys in dvc.lock.

    Older manifests name them by words of their stage. Such a word stands for the key that ends in it, or has its value.
    """
    found = {name: value for name, value in said.items() if name in recorded}
    words = {name: value for name, value in said.items() if name not in recorded}
    pairs = product((word for word in words if "." not in word), (key for key in recorded if key not in found))

    def likelihood(pair: tuple[str, str]) -> tuple[bool, bool]:
        word, key = pair
        return key.endswith(f".{word}"), same(recorded[key], said[word])

    for word, key in sorted(pairs, key=likelihood, reverse=True):
        if word in words and key not in found:
            found[key] = words.pop(word)
    return found | words


def _inputs(case: Case, run: Run, manifest: Manifest) -> Iterator[Finding]:
    recorded = {file.path: file for file in run.inputs}
    said = {**manifest.inputs, **{path: Recorded(md5=digest) for path, digest in manifest.code.items()}}
    for path, entry in said.items():
        if path in recorded:
            if recorded[path].hash != entry.md5:
                what = f"dvc.lock has {recorded[path].hash} for this input, its manifest {entry.md5}"
                yield _disagree(run, path, what)
            else:
                yield from _sizes(run, recorded[path], entry)
        elif not any(path.startswith(f"{folder}/") for folder in recorded):
            yield _disagree(run, path, "its manifest says that it read it, dvc.lock doesn't")
        elif not _makes(case, path, entry.md5):
            what = f"its run read {entry.md5} there (its manifest says), but no stage made that"
            yield _disagree(run, path, what)
    for path, file in recorded.items():
        if path not in said and not file.is_folder:  # of a folder, a run may have read no file
            yield _disagree(run, path, "dvc.lock says that it read it, its manifest doesn't")


def _makes(case: Case, path: str, digest: str) -> bool:
    """Whether what lies at a path, inside a folder that the run reads, has this hash by its producer's record."""
    for _, output in case.graph.producers(path):
        if output.path == path:
            return output.hash == digest
        if path.startswith(output.path + "/"):
            listing = case.contents.listing(output)
            return listing is None or listing.get(path[len(output.path) + 1 :]) == digest
    return case.committed_hash(File(path, digest)) in (None, digest)
