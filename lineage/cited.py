"""Where all numbers of a report came from: one trace for each value that it cites."""

from collections.abc import Iterator

from lineage.citations import Sources, citations
from lineage.contents import Contents
from lineage.errors import AuditError, Missing
from lineage.graph import Graph
from lineage.model import File, Gap
from lineage.repository import Repository
from lineage.states import open_state
from lineage.targets import Target, find_file
from lineage.trace import Trace, trace


def cited(repository: Repository, report: str, revision: str | None = None) -> list[Trace]:
    """The trace of an HTML report, where a run made it, and of each value that it cites.

    Those of one file share one closure, which is told with the first.

    Args:
        report: its path.
        revision: a commit, branch, tag, experiment; None for the workspace.

    Raises:
        AuditError: the revision or the report isn't there, or the report cites nothing that is.
    """
    state = open_state(repository, revision)
    graph, contents = Graph(state), Contents(state)
    recorded = find_file(report, graph, contents)
    page = contents.read(recorded[0] if recorded else File(report))
    if page is None:
        raise Missing("the report is not here", where=report, todo="Fetch it: dvc pull")
    sources = Sources(graph, contents)
    targets, gaps = [], []
    for source in dict.fromkeys(citation.source for citation in citations(page)):
        target = _target(source, graph, contents, sources)
        if target is None:
            gaps.append(Gap(where=report, what=f"it cites {source}, of which there is no trace"))
        else:
            targets.append(target)
    if not targets:
        raise AuditError("it cites nothing", where=report, expected="<data data-source=PATH:KEY> around its numbers")
    own = [trace(repository, report, revision)] if recorded else []
    traces = [*own, *_traces(repository, targets, revision)]
    return [traces[0].model_copy(update={"gaps": (*traces[0].gaps, *gaps)}), *traces[1:]]


def _target(source: str, graph: Graph, contents: Contents, sources: Sources) -> Target | None:
    place = sources.find(source)
    if place is None or find_file(place[0].path, graph, contents) is None:
        return None
    file, key = place
    try:
        value = sources.value(file, key)
    except KeyError:
        return None
    made = tuple(dict.fromkeys(run.name for run, _ in graph.producers(file.path)))
    return Target(asked=source, path=file.path, key=key, value=value, hash=file.hash, runs=made)


def _traces(repository: Repository, targets: list[Target], revision: str | None) -> Iterator[Trace]:
    """The whole closure with the first target of each file, and only the target with the others."""
    traced: dict[str, Trace] = {}
    for target in targets:
        path = str(target.path)
        if path not in traced:
            whole = trace(repository, path, revision)
            traced[path] = whole.model_copy(update={"steps": (), "pins": (), "gaps": ()})
            yield whole.model_copy(update={"target": target})
        else:
            yield traced[path].model_copy(update={"target": target})
