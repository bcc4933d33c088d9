"""What stages occupy, as Prefect's global concurrency limits: `cpu` in cores, `memory` in GiB, and `gpu`."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.orchestration import SyncPrefectClient
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from softmask.errors import InputError
from stages.params.orchestration import OrchestrationParams, Resources

NAMES = ("gpu", "memory", "cpu")
"""In the order in which they are taken: one order for all stages, so that no two wait for one another."""
PATIENCE = 3.0
"""Seconds of waiting for a slot, after which a stopped flow is noticed."""


class _Calm(logging.Filter):
    """To go on waiting for a slot is no error, as Prefect's log calls it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not ("ConcurrencySlotAcquisition" in record.getMessage() and "TimeoutError" in record.getMessage())


logging.getLogger("prefect._internal.concurrency").addFilter(_Calm())


class Stopped(Exception):
    """The flow was cancelled while a stage waited."""


def check_limits(client: SyncPrefectClient, params: OrchestrationParams, stages: list[str]) -> None:
    """See that every stage can ever get what it asks for.

    Raises:
        InputError: a limit isn't there, or a stage asks for more than there is.
    """
    there = {name: _limit(client, name) for name in NAMES}
    for stage in stages:
        asks = params.of(stage).model_dump()
        for name in NAMES:
            if asks[name] > there[name]:
                raise InputError(
                    f"{stage} asks for {name}: {asks[name]}, and there are {there[name]}",
                    where="params.yaml: orchestration",
                    todo=f"Ask for less, or raise the limit: prefect global-concurrency-limit update {name} --limit N",
                )


def _limit(client: SyncPrefectClient, name: str) -> int:
    found = limit(client, name)
    if found is None:
        raise InputError(
            f"Prefect has no concurrency limit {name!r}",
            todo=f"`make serve` makes it; by hand: prefect global-concurrency-limit create {name} --limit N",
        )
    return found


def limit(client: SyncPrefectClient, name: str) -> int | None:
    """How much there is of something; None where nobody has said it."""
    try:
        return client.read_global_concurrency_limit_by_name(name).limit
    except ObjectNotFound:
        return None


@contextmanager
def occupied(resources: Resources, stopped: threading.Event) -> Iterator[None]:
    """Hold what a stage asks for, when it is free.

    Raises:
        Stopped: the flow was cancelled meanwhile.
    """
    with ExitStack() as held:
        for name in NAMES:
            if amount := getattr(resources, name):
                held.enter_context(_taken(name, amount, stopped))
        yield


@contextmanager
def _taken(name: str, amount: int, stopped: threading.Event) -> Iterator[None]:
    with ExitStack() as held:
        while not stopped.is_set():
            # a lease that can't be renewed while the server is away must not end a stage
            slot = concurrency(
                name, amount, timeout_seconds=PATIENCE, strict=True, raise_on_lease_renewal_failure=False
            )
            try:
                held.enter_context(slot)
            except TimeoutError:
                continue
            yield
            return
        raise Stopped
