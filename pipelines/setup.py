"""Make what the flows need on the Prefect server that PREFECT_API_URL names: pools, limits, and the deployments.

    python -m pipelines.setup [--cpu N] [--memory GIB] [--gpu N]

May be run again; what is there is brought up to date, but for what a person has set: limits that are not given now (new
ones are those of this machine), and schedules.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

import psutil
import typer
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.workers.process import ProcessWorker

from pipelines.resources import NAMES, limit
from runner.stage import run_command
from softmask.errors import InputError

POOLS = ("flows", "cpu", "gpu")
"""`flows` for the flows that start others, so that these never hold what the others wait for."""
AUTOMATION = "Give up runs that have fallen silent"
"""Of earlier versions, for which a run was lost after a time in which the server itself was away. It is removed."""


def of_machine() -> dict[str, int]:
    """What this machine has: cores, GiB of memory, GPUs."""
    memory = int(psutil.virtual_memory().total / 2**30)
    return {"cpu": len(os.sched_getaffinity(0)), "memory": memory, "gpu": _gpus()}


def _gpus() -> int:
    import torch  # seconds of start, which only this needs

    return torch.cuda.device_count()


def set_up(given: Mapping[str, int]) -> None:
    """Pools, limits and deployments.

    Args:
        given: limits that a person asks for.

    Raises:
        InputError: `prefect deploy` failed.
    """
    with get_client(sync_client=True) as client:
        there = {pool.name: pool.type for pool in client.read_work_pools()}
        for pool in POOLS:
            if there.get(pool, ProcessWorker.type) != ProcessWorker.type:
                continue  # somebody's own, for a cluster say
            template = ProcessWorker.get_default_base_job_template()
            wanted = WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template)
            client.create_work_pool(wanted, overwrite=True)
        _set_limits(client, given)
        for automation in client.read_automations_by_name(AUTOMATION):
            client.delete_automation(automation.id)
        before = {deployment.id: deployment.schedules for deployment in client.read_deployments()}
        _deploy()
        for deployment, schedules in before.items():
            _keep_schedules(client, deployment, schedules)


def _deploy() -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"prefect deploy --all failed: {(done.stdout + done.stderr)[-1500:]}", where="prefect.yaml")


def _keep_schedules(client: SyncPrefectClient, deployment: UUID, before: Sequence[DeploymentSchedule]) -> None:
    """Add a person's schedules again, which deploying has removed, and pause again what was paused."""
    now = client.read_deployment_schedules(deployment)
    mine = [old for old in before if old.slug is None and old.schedule not in [new.schedule for new in now]]
    if mine:
        client.create_deployment_schedules(deployment, [(old.schedule, old.active) for old in mine])
    paused = {old.slug for old in before if not old.active} - {None}
    for new in now:
        if new.slug in paused:
            client.update_deployment_schedule(deployment, new.id, active=False)


def _set_limits(client: SyncPrefectClient, given: Mapping[str, int]) -> None:
    """Set the limits that are given, and those that are not there yet to what this machine has; tell what stays."""
    machine = {} if set(NAMES) <= set(given) else of_machine()
    for name, wanted in {**machine, **given}.items():
        there = limit(client, name)
        if there is None or name in given:
            client.upsert_global_concurrency_limit_by_name(name, wanted)
        elif there != wanted:
            change = f"python -m pipelines.setup --{name} {wanted} changes it"
            typer.echo(f"the limit of {name} stays {there}, as it was set; this machine has {wanted}: {change}")


def main(
    cpu: Annotated[int | None, typer.Option(min=1, help="Cores that stages may occupy at the same time")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="GiB of memory that they may occupy")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="GPUs that they may occupy")] = None,
) -> None:
    """The command line."""
    given = {name: value for name, value in (("cpu", cpu), ("memory", memory), ("gpu", gpu)) if value is not None}
    set_up(given)


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
