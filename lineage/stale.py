"""A run that is out of date by the record itself: after a partial `dvc repro`, what it read was made anew since.

That proves nothing wrong. What made the bytes that it read is looked for in history, and told with what changed since.
"""

from collections.abc import Iterable, Iterator

from lineage.changes import VALUED, Change, Entry
from lineage.checks.case import Case
from lineage.comparison import Comparison
from lineage.model import Fault, File, Finding
from lineage.origins import Makers, Origin, Origins
from lineage.trace import Recording
from lineage.values import shown

NAMED = 5
"""Changes that are told."""


def with_stale(case: Case, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What was found; where a former run of history explains it, that run instead, and what has changed since."""
    origins = Origins(case.graph, Recording(case.state.repository, case.state).commit)
    for finding in findings:
        file = _read(case, finding)
        makers = origins.makers(origins.of(finding.run), file) if file is not None and finding.run else Makers()
        since = [_since(case, former) for former in makers.origins] if makers.gap is None else []
        if since and None not in since:
            what = "; ".join(dict.fromkeys(filter(None, since)))
            yield Finding(fault=Fault.STALE, run=finding.run, path=finding.path, what=what)
        else:
            yield finding


def _read(case: Case, finding: Finding) -> File | None:
    """The input of a run that nothing in the record makes as it was read; None where the finding is something else."""
    run = case.graph.runs.get(finding.run or "")
    if run is None:
        return None
    inputs = {file.path: file for file in run.inputs}
    if finding.fault is Fault.LOCK:
        return inputs.get(finding.path)
    manifest = case.manifest(run) if finding.fault is Fault.MANIFEST else None
    said = manifest.inputs.get(finding.path) if manifest is not None else None
    inside = any(finding.path.startswith(f"{path}/") for path in inputs)
    return File(finding.path, said.md5) if said is not None and inside and finding.path not in inputs else None


def _since(case: Case, former: Origin) -> str | None:
    """What a former run made, and how its record differs from that of now; None where that explains nothing."""
    name = former.run.name
    if name not in case.graph.runs:
        return f"it read what {former.name} made, which is no stage any more"
    then, now = (Case(graph, tuple(graph.upstream([name]))) for graph in (former.graph, case.graph))
    entries = [e for e in Comparison(then, now, recorded_only=True).entries() if e.effect.counts]
    if not entries or any(entry.kind is Change.UNEXPLAINED for entry in entries):
        return None
    changes = [*dict.fromkeys(map(_change, entries))]
    more = [f"{len(changes) - NAMED} more"] if len(changes) > NAMED else []
    return f"it read what {former.name} made; changed since: {', '.join([*changes[:NAMED], *more])}"


def _change(entry: Entry) -> str:
    """A difference in a few words; hashes say nothing to a reader."""
    words = f"{entry.kind} {entry.what}"
    before, after = map(shown, entry.sides)
    return f"{words} {before} -> {after}" if entry.kind in {*VALUED, Change.ENVIRONMENT} else words
