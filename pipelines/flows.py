"""What the flows share: one at a time at a place, and an end that says in plain words what was wrong."""

import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import CancelledRun, FailedRun
from prefect.runtime import flow_run
from prefect.states import Crashed, Failed

from pipelines.alone import alone
from softmask.errors import InputError

P = ParamSpec("P")
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]


MAY_PASS_STATE = "MayPass"
"""Name of the state of a stage that failed for want of something that may be there later."""
NOT_HERE_STATE = "NotHere"
"""Name of the state of a stage that was not even begun, since its worker is in no folder for it."""


class MayPass(Exception):
    """A try failed for want of something that may be there later: a worker, a GPU's memory, the network."""


class StageFailed(Exception):
    """A stage failed in a way that no second try would mend."""


PLAIN = (InputError, StageFailed, MayPass, FailedRun)
"""What says by itself all that is to be said."""


class _Plain(logging.Filter):
    """Prefect adds a traceback to what a task's last try raised, and one of its own to a state that a flow returned."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PLAIN):
            record.exc_info = None
        return not isinstance(error, FailedRun | CancelledRun)


for runs in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(runs).addFilter(_Plain())


def told(work: "Callable[P, State[None]]") -> "Callable[P, State[None]]":
    """A flow's function that fails with a plain message instead of raising it, for which Prefect logs a traceback."""

    @wraps(work)
    def telling(*args: P.args, **kwargs: P.kwargs) -> "State[None]":
        try:
            return work(*args, **kwargs)
        except PLAIN as error:
            get_run_logger().error("%s", error)
            failed: State[Any] = Failed(message=str(error))
            return failed

    return telling


@contextmanager
def only_flow(lock: Path) -> Iterator[None]:
    """Be the only flow run at something. One that was there before and has no end, its machine lost, is called crashed.

    Args:
        lock: the file that the flow run's process holds.

    Raises:
        Unavailable: another flow run is at it.
    """
    with alone(lock, f"flow run {flow_run.get_name()!r}", "Wait for it, or cancel it; then run again"):
        tag = f"lock:{platform.node()}:{lock.resolve()}"
        lost: State[Any] = Crashed(message="its process is gone")
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=unfinished(tag)):
                client.set_flow_run_state(run.id, lost, force=True)
            client.update_flow_run(UUID(flow_run.get_id()), tags=[*flow_run.get_tags(), tag])
        yield


def unfinished(tag: str) -> FlowRunFilter:
    """The runs with a tag that have no end yet."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    return FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]), state=state)
