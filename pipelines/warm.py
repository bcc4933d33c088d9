"""A Prefect worker whose runs start warm: they are forked from a process that has imported Prefect and DVC.

    python -m pipelines.warm worker start --pool POOL

The command line is Prefect's own, and so is all else: the pools, and how runs are watched and cancelled. Only libraries
are imported beforehand. Each run reads the code of its checkout anew, and has an environment of its own.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskStatus
from prefect._internal import _observation_delivery
from prefect.runner import _starter_engine
from prefect.utilities.services import critical_service_loop

from pipelines.forked import engine

LIBRARIES = [
    *("prefect.engine", "prefect.flow_engine", "prefect.task_engine", "prefect.artifacts"),
    *("prefect.concurrency.sync", "prefect.deployments.flow_runs", "pydantic.v1", "typer.main", "filelock"),
    *("dvc.repo.reproduce", "dvc.repo.plots", "dvc.scm", "dvc.lock", "dvc.utils.strictyaml", "dulwich.index"),
]
"""What takes a run's and a stage's start; none of them starts a thread, and none imports torch."""
_FORKS = multiprocessing.get_context("forkserver")


async def _start(
    command: Sequence[str],
    *,
    task_status: TaskStatus[Any],
    task_status_handler: Callable[[Any], Any],
    env: Mapping[str, str],
    cwd: Path,
    **_: Any,
) -> BaseProcess:
    """Prefect's `run_process`, for engines."""
    process = _FORKS.Process(target=engine, args=(os.getpid(), cwd, env))
    process.start()
    task_status.started(task_status_handler(process))
    try:
        await anyio.wait_readable(process.sentinel)
    finally:
        if process.is_alive():
            process.terminate()
    return process


def main() -> None:
    """Prefect's command line."""
    forkserver.set_forkserver_preload(LIBRARIES)
    forkserver.ensure_running()
    starter: Any = _starter_engine
    starter.run_process = _start  # "patch the module to override", says EngineCommandStarter
    # a run that was at work while the server was away for 20 seconds could not be cancelled any more
    delivery: Any = _observation_delivery
    delivery.critical_service_loop = partial(critical_service_loop, backoff=sys.maxsize)
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
