"""A run that is out of date by the record itself: after a partial `dvc repro`, what it read was made anew since.

That proves nothing wrong. What made the bytes that it read is looked for in history, and told with what changed since.
"""

from collections.abc import Iterable, Iterator

from lineage.changes import Change, Entry
from lineage.checks.case import Case
from lineage.comparison import Comparison
from lineage.model import Fault, File, Finding
from lineage.origins import Origin, Origins
from lineage.trace import Recording
from lineage.values import shown

NAMED = 5
"""Changes that are told."""


def stale(case: Case, findings: Iterable[Finding]) -> dict[Finding, str]:
    """Of what is found wrong, what a former run of history explains -> that run, and what has changed since."""
    origins = Origins(case.graph, Recording(case.state.repository, case.state).commit)
    found: dict[Finding, str] = {}
    for finding in findings:
        file = _read(case, finding)
        if file is None or finding.run is None:
            continue
        makers = origins.makers(origins.of(finding.run), file)
        if makers.origins and makers.gap is None:
            found[finding] = "; ".join(dict.fromkeys(_since(case, former) for former in makers.origins))
    return found


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


def _since(case: Case, former: Origin) -> str:
    """What a former run made, and how its record differs from that of now."""
    name = former.run.name
    if name not in case.graph.runs:
        return f"it read what {former.name} made, which is no stage any more"
    then, now = (Case(graph, tuple(graph.upstream([name]))) for graph in (former.graph, case.graph))
    entries = [e for e in Comparison(then, now, recorded_only=True).entries() if e.effect.counts]
    changes = [*dict.fromkeys(map(_change, entries))]
    more = [f"{len(changes) - NAMED} more"] if len(changes) > NAMED else []
    since = ", ".join([*changes[:NAMED], *more]) or "nothing that is recorded"
    return f"it read what {former.name} made; changed since: {since}"


def _change(entry: Entry) -> str:
    """A difference in a few words; hashes say nothing to a reader."""
    words = f"{entry.kind} {entry.what}"
    valued = (Change.PARAMETER, Change.SEED, Change.SOURCE, Change.ENVIRONMENT)
    return f"{words} {shown(entry.before)} -> {shown(entry.after)}" if entry.kind in valued else words


def stale_entries(a: dict[Finding, str], b: dict[Finding, str]) -> Iterator[Entry]:
    """What is out of date on one side, or not in the same way on both."""
    before, after = ({(f.run, f.path): said for f, said in side.items()} for side in (a, b))
    for run, path in {**before, **after}:
        then, now = before.get((run, path)), after.get((run, path))
        if then != now:
            yield Entry(run=run, kind=Change.STALE, what=path, before=then, after=now)
