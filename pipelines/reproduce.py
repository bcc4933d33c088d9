"""The flow `reproduce`: `dvc repro` with every stage a run of its own, as soon as its inputs are there."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run, task_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task, exponential_backoff

from pipelines.alone import LOCK
from pipelines.children import Children
from pipelines.flows import MAY_PASS_STATE, MayPass, StageFailed, only_flow, told
from pipelines.resources import Stopped, check_limits, occupied
from pipelines.shared import Shared
from pipelines.workspace import Step, Workspace
from runner.stage import PARAMS_FILE, StageParams
from softmask.errors import Unavailable
from stages.params.orchestration import OrchestrationParams, Resources

P = ParamSpec("P")
R = TypeVar("R")
NOT_RUN = "not run, for want of inputs"
MOST_STAGES = 1000
"""Stages that can wait at the same time, each in a thread."""
_THREADS: Any = ThreadPoolTaskRunner(max_workers=MOST_STAGES)


class Params(StageParams):
    """What the flow reads of params.yaml."""

    orchestration: OrchestrationParams


class Outcome(StrEnum):
    """What became of a stage."""

    RAN = "ran"
    RESTORED = "taken from the run cache"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Conductor:
    """What the tasks of one flow run share."""

    workspace: Workspace
    shared: Shared | None
    """Where the stages run in other clones."""
    params: OrchestrationParams
    children: Children
    dvc: threading.Lock
    """DVC's objects are for one thread at a time."""

    def bring_up_to_date(self, step: Step, upstream: Sequence[Any]) -> Outcome:
        """Run a stage if it is out of date.

        Args:
            step: the stage.
            upstream: what became of the stages that make its inputs; a task resolves futures to it.
        """
        if not step.stale and all(end is Outcome.UNCHANGED for end in upstream):
            return Outcome.UNCHANGED
        with self.dvc:
            # what ran above it may have made the same bytes again
            if not self.workspace.stale(step):
                return Outcome.UNCHANGED
            if self.shared is not None:
                if self.shared.restore(step.name):
                    return Outcome.RESTORED
                self.shared.check_kept(step.name)
        start = partial(self.children.stage, step.name)
        on_a_worker(step.name, self.params.of(step.name), self.children.stopped, start)
        if self.shared is not None:
            with self.dvc:
                self.shared.fetch_runs()
                if self.workspace.stale(step) and not self.shared.restore(step.name):
                    raise StageFailed(f"{step.name} has run, but its run isn't in the DVC remote")
        return Outcome.RAN


@flow(name="reproduce", task_runner=_THREADS, persist_result=False)
@told
def reproduce(targets: list[str] | None = None, workspace: str = ".", distributed: bool = False) -> State[None]:
    """Bring the pipeline up to date, as `dvc repro TARGETS` does, with independent stages at the same time.

    Each stage is a run of the deployment `stage/cpu` or `stage/gpu`, in the pool of that name. When all is done,
    dvc.lock has the bytes that `dvc repro` would have written. A cancelled flow cancels its stages; their work is kept.
    What is run is what lay there when the flow began: a stage that is edited later waits for the next run.

    Args:
        targets: stages, everything above them included; all stages if there are none.
        workspace: folder of the DVC project.
        distributed: workers have clones of their own. They check out this workspace's commit, and share outputs and
            runs through DVC's default remote; nothing is computed here.

    Raises:
        InputError: params, dvc.yaml or the limits are wrong.
        Unavailable: another `reproduce` is at work in the workspace.
        StageFailed: a stage failed; those that don't need it have run.
    """
    root = Path(workspace).resolve()
    logger = get_run_logger()
    # DVC names stages as they are called from its folder
    with chdir(root), only_flow(LOCK):
        params = Params.read({}, root / PARAMS_FILE).orchestration
        opened = Workspace(root)
        shared = Shared(opened) if distributed else None
        children = Children(str(root), None if shared is None else shared.revision())
        conductor = Conductor(opened, shared, params, children, threading.Lock())
        if shared is not None:
            shared.fetch_runs()
        if strays := conductor.children.cancel_strays():
            logger.warning("%d stage runs of an earlier flow were still at work here: cancelled", strays)
        before, plan = opened.recorded(), opened.plan(targets or [])
        opened.freeze(plan)
        with get_client(sync_client=True) as client:
            check_limits(client, params, [step.name for step in plan])
        if shared is not None and any(step.stale for step in plan):
            shared.check_plan(plan)
        logger.info("%d stages, %d of them out of date", len(plan), sum(step.stale for step in plan))
        try:
            states = _run(conductor, plan)
        except BaseException:
            conductor.children.cancel()
            raise
        finally:
            opened.arrange_lock(before, [step.name for step in plan])
        _report(states)
    return Completed()


def _run(conductor: Conductor, plan: Sequence[Step]) -> dict[str, State[Outcome]]:
    """The final state of every stage."""
    futures: dict[str, PrefectFuture[Outcome]] = {}
    run = attempted(conductor.params, conductor.bring_up_to_date)
    for step in plan:
        upstream = [futures[name] for name in step.upstream]
        task = run.with_options(name=step.name, task_run_name=step.name)
        futures[step.name] = task.submit(step, upstream)
    for future in futures.values():
        future.wait()
    return {name: future.state for name, future in futures.items()}


def attempted(params: OrchestrationParams, work: Callable[P, R]) -> "Task[P, R]":
    """A task that is tried again, with ever longer waits, after what may pass."""
    return Task(
        work,
        retries=params.retries,
        retry_delay_seconds=exponential_backoff(params.retry_seconds),
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _may_pass(_: "Task[..., Any]", __: TaskRun, state: "State[Any]") -> bool:
    try:
        state.result()
    except (MayPass, Unavailable, ConcurrencySlotAcquisitionError):
        return True
    except Exception:
        return False
    return False


def on_a_worker(name: str, asked: Resources, stopped: threading.Event, start: Callable[[str, str], FlowRun]) -> None:
    """Within a task: run something on a worker when what it asks for is free, to its good end.

    Args:
        name: what it is called.
        asked: what it occupies.
        stopped: set when nobody waits any more.
        start: starts it in a pool, with a key of this try, and awaits its end.

    Raises:
        MayPass: it failed, and may be tried again.
        StageFailed: it failed.
        Stopped: it was cancelled, also before it began.
    """
    with occupied(asked, stopped):
        _judge(name, start(asked.pool, f"{task_run.get_id()}-{task_run.get_run_count()}"))


def _judge(stage: str, run: FlowRun) -> None:
    """Tell a good end from the others.

    Raises:
        MayPass: it may be tried again.
        StageFailed: it may not.
        Stopped: it was cancelled.
    """
    state = run.state
    assert state is not None
    if state.is_completed():
        return
    if state.is_cancelled():
        raise Stopped(f"{stage} was cancelled")
    if state.is_crashed() or state.name == MAY_PASS_STATE:
        raise MayPass(f"{stage}: {state.message}")
    raise StageFailed(f"{stage}: {state.message}; all that it said: prefect flow-run logs {run.id}")


def _report(states: Mapping[str, "State[Outcome]"]) -> None:
    """Leave a table of all stages.

    Raises:
        StageFailed: not all of them are up to date.
    """
    ends = {name: _end(state).removeprefix(f"{name}: ") for name, state in states.items()}
    create_table_artifact(
        table=[{"stage": name, "outcome": end} for name, end in ends.items()],
        key="reproduce",
        description=f"What became of the stages in {flow_run.get_name()}",
    )
    failed = [f"{name}: {end}" for name, end in ends.items() if end not in {*Outcome, NOT_RUN}]
    if waiting := [name for name, end in ends.items() if end == NOT_RUN]:
        failed.append(f"{NOT_RUN}: {', '.join(waiting)}")
    if failed:
        raise StageFailed("\n".join(failed))


def _end(state: "State[Outcome]") -> str:
    if state.is_completed():
        return str(state.result())
    if state.name == "NotReady":
        return NOT_RUN
    error = state.result(raise_on_failure=False)
    return str(error if isinstance(error, Exception) else state.message)
