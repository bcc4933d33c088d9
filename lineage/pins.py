"""Raw sources outside the repository, and what pins them: found in parameters, manifests and imports.

A mapping of parameters that has a name (`package`, `repo`, `path`, `url`, ...) beside a revision or hash is a source.
Where a mapping says `source: NAME` and has NAME and others beside it, only NAME is in use.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lineage.manifests import Manifest
from lineage.model import Pin, Run
from lineage.yaml12 import DEEPEST

NAMES = ("package", "repo", "repository", "repo_id", "dataset", "model", "url", "uri", "path", "name", "file")
HASHES = ("sha256", "sha1", "md5", "checksum", "etag")
REVISIONS = ("revision", "rev", "commit", "rev_lock")
HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def pins_of(run: Run, manifest: Manifest | None) -> list[Pin]:
    """The sources that a run reads from outside."""
    found = [*_imported(run)]
    for file, values in run.parameters.items():
        found += [pin for pin in _in_mapping(nested(values), file) if pin not in found]
    if manifest is not None:
        found += [
            Pin(where="manifest", source=s.source, revision=s.sha256 or s.revision, fixed=True)
            for s in manifest.sources
        ]
    return [pin.model_copy(update={"runs": (run.name,)}) for pin in found]


class Owners:
    """Whose the sources are: a run that reads a whole parameter file, to check it, say, reads everybody's, and each is
    somebody else's who reads less.

    Args:
        runs: all runs there are.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._least: dict[tuple[str, str, str | None], int] = {}
        for run in runs:
            if size := _parameters_read(run):
                for pin in pins_of(run, None):
                    key = (pin.where, pin.source, pin.revision)
                    self._least[key] = min(size, self._least.get(key, size))

    def pins(self, run: Run, manifest: Manifest | None) -> list[Pin]:
        """The sources that a run reads, without those that only pass by."""
        size = _parameters_read(run)
        found = pins_of(run, manifest)
        return [pin for pin in found if self._least.get((pin.where, pin.source, pin.revision), size) >= size]


def _parameters_read(run: Run) -> int:
    """How much a run reads of its parameter files: the number of innermost values."""
    return sum(_leaves(value) for values in run.parameters.values() for value in values.values())


def _leaves(value: Any) -> int:
    return sum(map(_leaves, value.values())) if isinstance(value, dict) else 1


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".", DEEPEST)
        here = tree
        for parent in parents:
            following = here.setdefault(parent, {})
            if not isinstance(following, dict):
                following = here[parent] = {}
            here = following
        here[last] = value
    return tree


def _imported(run: Run) -> Iterator[Pin]:
    if not run.origin:
        return
    repo = run.origin.get("repo") or {}
    source = f"{repo['url']}: {run.origin['path']}" if repo else run.inputs[0].path
    revision = repo.get("rev_lock") or next((run.origin[h] for h in HASHES if h in run.origin), None)
    known = revision is not None
    yield Pin(where=run.file, source=source, revision=str(revision) if known else None, fixed=known)


def _in_mapping(value: Any, where: str) -> Iterator[Pin]:
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _in_mapping(item, f"{where}.{i}")
    if not isinstance(value, dict):
        return
    if (pin := _pin(value, where)) is not None:
        yield pin
    chosen = value.get("source")
    selects = isinstance(chosen, str) and chosen in value
    for key, inner in value.items():
        if selects and key != chosen and isinstance(inner, dict) and _pin(inner, "") is not None:
            continue
        yield from _in_mapping(inner, f"{where}: {key}" if ":" not in where else f"{where}.{key}")


def _pin(value: Mapping[str, Any], where: str) -> Pin | None:
    name = next((str(value[n]) for n in NAMES if isinstance(value.get(n), str)), None)
    if name is None:
        return None
    for key in HASHES:
        if isinstance(value.get(key), str):
            return Pin(where=where, source=name, revision=value[key], fixed=True)
    for key in REVISIONS:
        if key in value:
            revision = value[key]
            fixed = isinstance(revision, str) and HEX.fullmatch(revision) is not None
            return Pin(where=where, source=name, revision=None if revision is None else str(revision), fixed=fixed)
    if "package" in value and "version" in value:
        version = value["version"]
        return Pin(where=where, source=name, revision=str(version), fixed=bool(version) and str(version)[0].isdigit())
    return None
