"""Runs the closure of a target again, in a clean clone with an empty cache, and says whether the record is true.

The workspace, its cache and its git are read only. Nothing that a run has left is believed: neither dvc.lock, nor the
run cache, nor results that git keeps.
"""

import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lineage.agreement import Again, Agreement, Comparison, is_metric, within
from lineage.contents import Contents, parsed
from lineage.errors import AuditError, Missing
from lineage.graph import Graph
from lineage.hashing import bytes_hash
from lineage.isolation import DVC, Isolated, uncommitted
from lineage.manifests import manifest_of
from lineage.model import Commit, Frozen, Kind, Run
from lineage.repository import Repository
from lineage.running import Listener, run_streaming
from lineage.states import State, open_state
from lineage.targets import Target, find_target
from lineage.values import value_at

SETTING = "lineage.tolerance.relative"
"""The parameter of params.yaml that says how much numbers may differ."""
NAMED = 5
"""Changed files that a note names."""


class Answer(StrEnum):
    """What came out."""

    IDENTICAL = "identical bytes"
    WITHIN = "metrics agree within the tolerance"
    DIFFERS = "does not agree"
    FAILED = "could not be run"


class Rederived(Frozen):
    """A closure that was run again."""

    target: Target
    revision: str
    commit: Commit | None
    answer: Answer
    tolerance: float
    """Relative; 0 for bytes only."""
    runs: tuple[str, ...]
    """The stages that were run, in order."""
    outputs: tuple[Again, ...] = ()
    entered: str | None = None
    """The first run whose outputs differ while its inputs agree; if there is none, the first whose outputs differ."""
    because: tuple[str, ...] = ()
    """What that run read or used that isn't what its record says; empty where all its inputs agree."""
    failed: str | None = None
    """The stage that could not be run."""
    said: str = ""
    """The end of what DVC and a failed stage wrote."""
    notes: tuple[str, ...] = ()
    """How this machine and these files differ from those of the record."""


@dataclass(frozen=True)
class _Plan:
    """What is run, and what is taken as it is."""

    stages: tuple[Run, ...]
    given: tuple[Run, ...]
    """Data, imports and frozen stages that the stages read from."""


def rederive(
    repository: Repository,
    target: str,
    revision: str | None = None,
    tolerance: float | None = None,
    keep: Path | None = None,
    listener: Listener | None = None,
    elsewhere: bool = False,
    variables: Iterable[str] = (),
    agree: Callable[[Sequence[Run]], object] | None = None,
) -> Rederived:
    """Run everything upstream of a target again, and compare every output with the record.

    The commands are the project's own, and run with all rights of whoever calls this.

    A workspace with uncommitted changes is not refused: the record of fresh runs is itself uncommitted. The clone then
    has what git would commit now, and a note says so.

    With a tolerance of 0 every output has to agree byte for byte. A larger one says that the runs are known to vary:
    then metrics decide, or of a target `PATH:KEY` that number alone.

    Args:
        target: an artifact's path, a number (`PATH:KEY`), a stage, or (part of) a hash.
        revision: a commit, branch, tag, experiment; None for the workspace.
        tolerance: relative; None for 0, or with `elsewhere` for `lineage.tolerance.relative` of params.yaml.
        keep: an empty or new folder outside the repository where the clone stays; None for a temporary one.
        listener: is told what DVC and the stages write.
        elsewhere: whether the record was made on another machine, whose rounding differs.
        variables: names of environment variables that the commands see, besides those that any command needs.
        agree: is told what will be run, before anything is; may raise.

    Raises:
        AuditError: the revision or target isn't there or can't be run again, or raw data isn't what was recorded.
    """
    state = open_state(repository, revision)
    graph = Graph(state)
    found = find_target(target, graph, Contents(state))
    plan = _plan(graph, found)
    allowed = _tolerance(state, tolerance, elsewhere)
    if agree is not None:
        agree(plan.stages)
    with _folder(repository, keep) as folder:
        clone = Isolated(state, folder, variables)
        clone.provide(graph, plan.stages, plan.given, listener)
        clone.forget(file for run in plan.stages for file in run.outputs)
        names = [run.name for run in plan.stages]
        command = [*DVC, "repro", "--no-run-cache", "--single-item", "--", *names]
        code, said = run_streaming(command, clone.project, clone.environment, listener)
        made = Graph(open_state(Repository(clone.project), None))
        result = Rederived(
            target=found,
            revision=state.name,
            commit=repository.commit(state.commit) if state.commit else None,
            answer=Answer.FAILED,
            tolerance=allowed,
            runs=tuple(names),
            notes=(*_uncommitted(state), *environment_notes(plan.stages, state)),
        )
        missing = [name for name in names if name not in made.runs]
        if code != 0 or missing:
            return result.model_copy(update={"failed": missing[0] if missing else None, "said": said})
        return _compared(result, plan.stages, Comparison(graph, made, allowed))


def _plan(graph: Graph, target: Target) -> _Plan:
    said = graph.declared
    for path, why in said.unread.items():
        raise Missing(f"{path} can't be read: {why}", where=graph.state.name)
    declared = said.stages
    fixed = {n for n, r in graph.runs.items() if r.kind is not Kind.STAGE or (n in declared and declared[n].frozen)}
    reached: set[str] = set()
    waiting = [*target.runs]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [] if name in fixed else [link.producer.name for link in graph.links(graph.runs[name])]
    order = [name for name in graph.upstream(target.runs) if name in reached]
    stages = [graph.runs[name] for name in order if name not in fixed]
    if not any(name in target.runs for name in reached - fixed):
        raise AuditError(
            "no command makes it, so nothing can be run again",
            where=target.asked,
            expected="what a stage makes that isn't frozen; data, imports and frozen stages are taken as they are",
        )
    gone = [run.name for run in stages if run.name not in declared]
    if gone:
        raise AuditError(f"dvc.yaml has no stage {', '.join(gone)} any more", where=graph.state.name)
    outside = [f"{file.path} ({run.name})" for run in stages for file in run.outputs if file.is_external]
    if outside:
        raise AuditError(
            f"stages write outside the repository: {', '.join(outside)}",
            where=graph.state.name,
            expected="outputs below the repository's root: a run must not overwrite anything of yours",
        )
    return _Plan(tuple(stages), tuple(graph.runs[name] for name in order if name in fixed))


def _tolerance(state: State, asked: float | None, elsewhere: bool) -> float:
    where, value = "--tolerance", asked
    if asked is None and elsewhere:
        path = f"{state.repository.folder}/params.yaml".lstrip("/")
        where, value = f"{path}: {SETTING}", value_at(parsed(state.read(path), path), SETTING)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise AuditError(f"{value!r} is no tolerance", where=where, expected="a number from 0 to below 1, such as 0.01")
    return float(value)


@contextmanager
def _folder(repository: Repository, keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="lineage-rederive-") as name:
            yield Path(name).resolve()
        return
    folder = keep.resolve()
    if folder.is_relative_to(repository.root) or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise AuditError(
            "the clone can't be kept there", where=str(keep), expected="a new or empty folder outside the repository"
        )
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _compared(result: Rederived, stages: Sequence[Run], comparison: Comparison) -> Rederived:
    outputs = {run.name: comparison.outputs(run) for run in stages}
    every = tuple(again for run in stages for again in outputs[run.name])
    differing = [run for run in stages if any(not _as_recorded(again) for again in outputs[run.name])]
    inputs = {run.name: comparison.inputs(run) for run in differing}
    entered = next((run for run in differing if not inputs[run.name]), differing[0] if differing else None)
    return result.model_copy(
        update={
            "answer": _answer(every, result.target, result.tolerance),
            "outputs": every,
            "entered": entered.name if entered else None,
            "because": tuple(inputs[entered.name]) if entered else (),
        }
    )


def _as_recorded(again: Again) -> bool:
    return again.agreement in (Agreement.IDENTICAL, Agreement.RECORD)


def _answer(outputs: Sequence[Again], target: Target, tolerance: float) -> Answer:
    if all(_as_recorded(again) for again in outputs):
        return Answer.IDENTICAL
    asked = [again for again in outputs if _is_asked(again, target)]
    if not tolerance or not asked:
        return Answer.DIFFERS
    if target.key is not None:
        agrees = all(_number_agrees(again, target.key, tolerance) for again in asked)
        return Answer.WITHIN if agrees else Answer.DIFFERS
    metrics = [again for again in outputs if is_metric(again.path)]
    judged = metrics if target.path is None else [*metrics, *asked]
    has_metrics = any(again in metrics for again in (asked if target.path is None else outputs))
    agrees = has_metrics and all(_as_recorded(again) or again.agreement is Agreement.WITHIN for again in judged)
    return Answer.WITHIN if agrees else Answer.DIFFERS


def _is_asked(again: Again, target: Target) -> bool:
    """Whether an output is what was asked about, or holds it, or lies in it."""
    if target.path is None:
        return again.run in target.runs
    return f"{again.path}/".startswith(f"{target.path}/") or target.path.startswith(f"{again.path}/")


def _number_agrees(again: Again, key: str, tolerance: float) -> bool:
    if _as_recorded(again):
        return True
    asked = [number for number in again.numbers if f"{number.key}.".startswith(f"{key}.")]
    return bool(again.numbers) and all(within(number, tolerance) for number in asked)


def _uncommitted(state: State) -> Iterator[str]:
    if state.is_workspace:
        changed = uncommitted(state.repository)
        if changed:
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            yield f"the workspace has uncommitted changes, which were run: {', '.join(changed[:NAMED])}{more}"


def environment_notes(stages: Sequence[Run], state: State) -> list[str]:
    """How this machine's Python and libraries, and the revision's lock files, differ from those of the manifests."""
    contents = Contents(state)
    notes: dict[str, None] = {}
    for run in stages:
        if (manifest := manifest_of(run, contents)) is None:
            continue
        recorded = manifest.environment
        if recorded.python not in (None, platform.python_version()):
            notes[f"Python is {platform.python_version()}, the record has {recorded.python}"] = None
        for package, wanted in recorded.versions.items():
            if (found := _installed(package)) != wanted:
                notes[f"{package} is {found or 'not installed'}, the record has {wanted}"] = None
        for lock, digest in recorded.locks.items():
            data = state.read(lock)
            if data is None or bytes_hash(data) != digest:
                notes[f"{lock} isn't the one that the record was made with"] = None
    return [*notes]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
