"""The stage runs that a flow has started: await them through an absent server, and cancel them when the flow ends."""

import logging
import math
import os
import platform
import re
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterLevel
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from pipelines.flows import NOT_HERE_STATE, unfinished

POLL_SECONDS = 0.25
STRAY_SECONDS = 60.0
"""For a run to end that is being cancelled; its worker takes 30 seconds at most, and may be gone."""
REFUSALS = 20
"""By workers that can't run a stage, after which it has failed: with the pauses between them, more than an hour."""
LONGEST_PAUSE = 300.0
QUEUE = "clones"
"""The work queue of the stages that need a clone of a worker's own. Workers that share a workspace leave it alone."""
SILENT = "REPRODUCE_SILENT_SECONDS"
"""The variable that says, in tests, how long a run at work may be silent; it sends a heartbeat every 30 seconds."""
SILENT_SECONDS = float(os.environ.get(SILENT, "75"))
PATIENCE = {StateType.PENDING: 120.0, StateType.RUNNING: SILENT_SECONDS, StateType.CANCELLING: SILENT_SECONDS}
"""Seconds of silence after which a run's worker is taken for lost; one that waits for a worker has all the time."""
LISTEN_SECONDS = 5.0
"""Between two looks for heartbeats."""
AWAY_SECONDS = 10.0
"""Without an answer, after which the server, or this machine, counts as having been away: nobody could be heard."""


def tag(workspace: str) -> str:
    """What marks the stage runs of a workspace, that of this machine."""
    return f"workspace:{platform.node()}:{workspace}"


class Children:
    """Runs of the `stage` and `command` deployments for one workspace.

    Args:
        workspace: the coordinator's.
        revision: None where workers share it; the commit that they check out where each has a clone of its own.
    """

    def __init__(self, workspace: str, revision: str | None) -> None:
        self._tag = tag(workspace)
        self._parameters = {"workspace": workspace if revision is None else ".", "revision": revision}
        self._queue = None if revision is None else QUEUE
        self._ids: set[UUID] = set()
        self.stopped = threading.Event()

    def stage(self, name: str, pool: str, key: str) -> FlowRun:
        """Start a stage in a pool, and wait until it has ended, however that is.

        Args:
            name: DVC's name of it.
            pool: the work pool, which is the deployment's name.
            key: the same for a request that is sent again because its answer was lost.
        """
        return self._run("stage", pool, {"name": name, **self._parameters}, key)

    def command(self, name: str, arguments: Sequence[str], pool: str, key: str) -> FlowRun:
        """Start `python -m commands.NAME ARGUMENTS` in the workspace, as `stage` does."""
        parameters = {"name": name, "arguments": list(arguments), "workspace": self._parameters["workspace"]}
        return self._run("command", pool, parameters, key)

    def _run(self, flow: str, pool: str, parameters: dict[str, Any], key: str) -> FlowRun:
        """Await a run by a worker that can run it: what another refuses is no try."""
        run, turn = self._run_once(flow, pool, parameters, key), 1
        while (why := _refusal(run)) and turn < REFUSALS:
            pause = min(2.0**turn, LONGEST_PAUSE)
            get_run_logger().warning("%s: %s; another worker may take it in %.0f seconds", run.name, why, pause)
            if self.stopped.wait(pause):
                break
            run, turn = self._run_once(flow, pool, parameters, f"{key}-{turn}"), turn + 1
        return run

    def _run_once(self, flow: str, pool: str, parameters: dict[str, Any], key: str) -> FlowRun:
        started: Any = run_deployment(
            f"{flow}/{pool}",
            parameters=parameters,
            flow_run_name=parameters["name"],
            tags=[self._tag],
            idempotency_key=key,
            work_queue_name=self._queue,
            timeout=0,
        )
        self._ids.add(started.id)
        return self._ended(started.id)

    def cancel(self) -> None:
        """Cancel what this flow has started and is not over, and let nobody wait any more.

        Where the server is away it can't be; the next flow in the workspace does it.
        """
        self.stopped.set()
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
            _cancel(client, self._ids)

    def cancel_strays(self) -> int:
        """Cancel the runs that another flow, now dead, has left in this workspace, and wait for their end; how many."""
        with get_client(sync_client=True) as client:
            strays = [run.id for run in client.read_flow_runs(flow_run_filter=unfinished(self._tag))]
            _cancel(client, strays)
        for stray in strays:
            self._ended(stray, patience=STRAY_SECONDS)
        return len(strays)

    def _ended(self, run: UUID, patience: float = math.inf) -> FlowRun:
        given_up = time.monotonic() + patience
        silence = _Silence(run)
        while True:
            try:
                with get_client(sync_client=True) as client:
                    while True:
                        found = client.read_flow_run(run)
                        state = found.state
                        assert state is not None
                        if state.is_final():
                            return found
                        if silence.lasts(client, state) or time.monotonic() > given_up:
                            lost: State[Any] = Crashed(message="nothing is heard of it: its worker or machine is lost")
                            client.set_flow_run_state(run, lost, force=state.is_cancelling())
                        time.sleep(POLL_SECONDS)
            except httpx.HTTPError:  # the server is away; the stage goes on without it
                time.sleep(POLL_SECONDS)


class _Silence:
    """How long nothing has been heard of a run, by the clock of who listens, while the server answered."""

    def __init__(self, run: UUID) -> None:
        self._run = run
        self._heartbeat: UUID | None = None
        self._sign: tuple[UUID, UUID | None] | None = None
        self._since = self._answered = self._listened = -math.inf

    def lasts(self, client: SyncPrefectClient, state: "State[Any]") -> bool:
        """Whether a run has been silent for too long; to be asked whenever the server has answered."""
        now = time.monotonic()
        if now - self._listened > LISTEN_SECONDS:
            self._heartbeat, self._listened = _last_heartbeat(client, self._run), now
        away, self._answered = now - self._answered > AWAY_SECONDS, now
        if away or (state.id, self._heartbeat) != self._sign:
            self._sign, self._since = (state.id, self._heartbeat), now
        return now - self._since > PATIENCE.get(state.type, math.inf)


def _last_heartbeat(client: SyncPrefectClient, run: UUID) -> UUID | None:
    wanted = EventFilter(
        # whatever the clocks of other machines say
        occurred=EventOccurredFilter(until=datetime.now(UTC) + timedelta(days=1)),
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
    )
    found = client.read_events(wanted, limit=1).events
    return found[0].id if found else None


def _refusal(run: FlowRun) -> str | None:
    """Which worker could not even begin a run, and why, if that is how it ended."""
    state = run.state
    assert state is not None
    if state.name == NOT_HERE_STATE:
        return state.message
    if not state.is_crashed() or run.run_count:
        return None
    folder = _foreign_folder(run.id)
    where = f" in {folder}, which is no clone of this project," if folder else ""
    return f"worker {run.labels.get('prefect.worker.name')!r}{where} could not begin it: {state.message}"


def _foreign_folder(run: UUID) -> str | None:
    """The folder of a worker that looked for a flow's file and has none."""
    errors = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]), level=LogFilterLevel(ge_=logging.ERROR))
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
        said = "\n".join(log.message for log in client.read_logs(log_filter=errors))
        if found := re.search(r"'(/.*)/pipelines/\w+\.py'", said):
            return found[1]
    return None


def _cancel(client: SyncPrefectClient, runs: Iterable[UUID]) -> None:
    for run in runs:
        try:
            state = client.read_flow_run(run).state
            if state is None or not state.is_final():
                client.set_flow_run_state(run, Cancelling())
        except ObjectNotFound:
            continue
