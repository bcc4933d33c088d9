"""Does a report say what the files say that it cites? A page's numbers cite as lineage/citations.py has it."""

from collections.abc import Iterator

from lineage.checks.case import Case
from lineage.citations import Citation, Sources, citations, is_exactly, writes
from lineage.model import Fault, File, Finding, Run
from lineage.values import shown

PAGES = (".html", ".htm")
MOST = 20
"""Findings of one page; a stale page differs everywhere."""


def check_reports(case: Case) -> Iterator[Finding]:
    """Every HTML output's citations against the files of the same state."""
    sources = Sources(case.graph, case.contents)
    for run, page in _pages(case):
        data = case.contents.read(page)
        if data is None:  # which the check of outputs tells
            continue
        wrong = [*_check(run, page, citations(data), sources)]
        yield from wrong[:MOST]
        if len(wrong) > MOST:
            what = f"{len(wrong) - MOST} more of its citations don't hold"
            yield Finding(fault=Fault.REPORT, run=run.name, path=page.path, what=what)


def _pages(case: Case) -> Iterator[tuple[Run, File]]:
    """Every HTML file that a run made, those in folders too."""
    for run, output in case.outputs():
        yield from ((run, file) for file in case.contents.files(output) if file.path.endswith(PAGES))


def _check(run: Run, page: File, found: list[Citation], sources: Sources) -> Iterator[Finding]:
    absent: set[str] = set()
    for citation in found:
        place = sources.find(citation.source)
        if place is not None and not sources.is_here(place[0]):
            if place[0].path not in absent:
                absent.add(place[0].path)
                what = f"{place[0].path}, which it cites, is not here or can't be read"
                yield Finding(fault=Fault.UNCHECKED, run=run.name, path=page.path, what=what)
        elif (wrong := _wrong(citation, place, sources)) is not None:
            yield Finding(fault=Fault.REPORT, run=run.name, path=page.path, what=wrong)


def _wrong(citation: Citation, place: tuple[File, str] | None, sources: Sources) -> str | None:
    """What is wrong with a citation; None where it holds."""
    if place is None:
        return f"it cites {citation.source}, and there is no such file"
    try:
        cited = sources.value(*place)
    except KeyError:
        return f"it cites {citation.source}, and there is no such key"
    if citation.value is not None and not is_exactly(citation.value, cited):
        return f"it was made from {shown(citation.value)}, {citation.source} is {shown(cited)}"
    if not writes(citation.text, cited):
        return f"it shows {shown(citation.text)}, {citation.source} is {shown(cited)}"
    return None
