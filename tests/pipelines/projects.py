"""Small DVC projects, and flow runs over them on a real server with real workers."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import yaml
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, Log, State
from prefect.states import Cancelling

from pipelines.children import tag
from tests.pipeline.clones import environment

LIMIT = 600.0
"""Seconds after which anything here counts as hung."""


def until(
    condition: Callable[[], Any], what: str, flow: "Flow | None" = None, limit: float = LIMIT, pause: float = 0.05
) -> Any:
    """Wait for a condition; its value. The flow that it waits for must not end meanwhile."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        state = None if flow is None else flow.run().state
        assert state is None or not state.is_final(), f"the flow ended before {what}: {state}"
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(pause)
    return value


def logged(runs: Sequence[UUID]) -> list[Log]:
    """What flow runs and their tasks have logged on the server, which gives 200 entries at once."""
    wanted, entries = LogFilter(flow_run_id=LogFilterFlowRunId(any_=list(runs))), list[Log]()
    with get_client(sync_client=True) as client:
        while more := client.read_logs(wanted, limit=200, offset=len(entries)):
            entries += more
    return entries


def above(process: psutil.Process, module: str) -> psutil.Process:
    """What `process` was started by, perhaps through others: the nearest `python -m MODULE`."""
    return next(parent for parent in process.parents() if parent.cmdline()[1:3] == ["-m", module])


@dataclass(frozen=True)
class Project:
    """A DVC project of a few shell commands."""

    root: Path

    @classmethod
    def of(
        cls, root: Path, stages: Mapping[str, Any], params: Mapping[str, Any] | None = None, **orchestration: Any
    ) -> "Project":
        """A new one.

        Args:
            stages: as in dvc.yaml.
            params: what else is in params.yaml.
            orchestration: what differs from one core a stage and two quick retries.
        """
        root.mkdir()
        usual = {"default": {"cpu": 1, "gpu": 0, "memory": 1}, "stages": {}, "retries": 2, "retry_seconds": 1}
        text = yaml.safe_dump({"orchestration": {**usual, **orchestration}, **(params or {})}, sort_keys=False)
        (root / "params.yaml").write_text(text)
        project = cls(root)
        project.write(stages)
        project.run("git", "init", "--quiet")
        project.run("dvc", "init", "--quiet")
        return project

    def write(self, stages: Mapping[str, Any]) -> None:
        """Write dvc.yaml."""
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))

    def run(self, *command: str) -> str:
        """Run a command to its good end."""
        done = subprocess.run(command, cwd=self.root, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lock(self) -> bytes:
        """dvc.lock."""
        return (self.root / "dvc.lock").read_bytes()

    def said(self, name: str) -> list[str]:
        """The lines that stages have written to a file which is no output."""
        path = self.root / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def start(self, targets: Sequence[str] = (), distributed: bool = False) -> "Flow":
        """Start `reproduce`."""
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("reproduce/local")
            parameters = {"targets": list(targets), "workspace": str(self.root), "distributed": distributed}
            return Flow(self, client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id)

    def reproduce(self, targets: Sequence[str] = (), distributed: bool = False) -> "State[Any]":
        """Run `reproduce` to its end."""
        return self.start(targets, distributed).end()

    def runs(self) -> list[FlowRun]:
        """All stage runs that there were."""
        wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag(str(self.root))]))
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(flow_run_filter=wanted)

    def processes(self) -> list[psutil.Process]:
        """The processes that bring a stage up to date, `pipelines.once`: each leads a session."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()) == self.root and os.getsid(process.pid) == process.pid:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@dataclass(frozen=True)
class Flow:
    """A run of `reproduce`."""

    project: Project
    id: UUID

    def run(self) -> FlowRun:
        """What the server knows of it."""
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self.id)

    def end(self, limit: float = LIMIT) -> "State[Any]":
        """Its last state, within `limit` seconds."""

        def last() -> "State[Any] | None":
            state = self.run().state
            return state if state is not None and state.is_final() else None

        state: State[Any] = until(last, "the end of the flow", limit=limit, pause=0.5)
        return state

    def log(self) -> str:
        """All that it logged, its tasks included; its last lines reach the server after its final state."""

        def ended() -> bool:
            own = [entry.message for entry in logged([self.id]) if entry.task_run_id is None]
            return any(message.startswith("Finished in state") for message in own)

        until(ended, "the end of the log")
        return "\n".join(entry.message for entry in logged([self.id]))

    def table(self, key: str) -> list[dict[str, str]]:
        """A table that it left."""
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.id]), key=ArtifactFilterKey(any_=[key]))
        with get_client(sync_client=True) as client:
            (artifact,) = client.read_artifacts(artifact_filter=wanted)
        rows: list[dict[str, str]] = json.loads(str(artifact.data))
        return rows

    def cancel(self) -> None:
        """As the server's page does."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self.id, Cancelling())

    def process(self) -> psutil.Process:
        """The process that conducts it."""
        identifier = until(lambda: self.run().infrastructure_pid, "the process of the flow")
        return psutil.Process(int(identifier))
