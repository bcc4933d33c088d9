"""Sandboxes as parameters describe them, several at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import typer

from scoring.bounded import BeyondBounds, BoundedProcess, Bounds
from scoring.sandbox import Sandbox, SandboxSettings, unavailable
from scoring.sandbox_walls import Limits
from softmask.errors import InputError
from stages.params.code.scoring import SandboxParams

T = TypeVar("T")
R = TypeVar("R")
_WHERE = "params.yaml: code.scoring.sandbox"
_COSTLY = "looking at what a program returned takes more than a program may"


def sandbox_settings(params: SandboxParams) -> SandboxSettings:
    """The sandbox's settings."""
    return SandboxSettings(
        isolation=params.isolation,
        importable=tuple(params.importable),
        limits=Limits(
            wall_s=params.program_wall_s,
            memory_mib=params.memory_mib,
            files_mib=params.files_mib,
            files=params.files,
            open_files=params.open_files,
            threads=params.threads,
        ),
        call_cpu_s=params.call_cpu_s,
        call_wall_s=params.call_wall_s,
        output_mib=params.output_mib,
        nesting=params.nesting,
        seed=params.seed,
    )


class Workers:
    """Several processes, each with a sandbox, that share work; what one piece of it may cost is bounded."""

    def __init__(self, processes: list[BoundedProcess[Sandbox]], pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._free: SimpleQueue[BoundedProcess[Sandbox]] = SimpleQueue()
        for process in processes:
            self._free.put(process)

    def map(
        self, work: Callable[[T, Sandbox], R], items: Iterable[T], beyond: Callable[[T], R] | None = None
    ) -> Iterator[R]:
        """What `work` makes of each item with a sandbox of its own, in the items' order.

        Args:
            work: something that can be pickled, as items and results are.
            beyond: what it is for an item that takes more than the bounds; None: a mistake of who made the item.

        Raises:
            InputError: an item takes more than the bounds.
        """

        def with_sandbox(item: T) -> R:
            process = self._free.get()
            try:
                return process.call(work, item)
            except BeyondBounds:
                if beyond is None:
                    raise InputError(_COSTLY, where=_WHERE, todo="Raise program_wall_s or memory_mib") from None
                return beyond(item)
            finally:
                self._free.put(process)

        return self._pool.map(with_sandbox, items)


@contextmanager
def sandboxes(params: SandboxParams, count: int) -> Iterator[Workers]:
    """So many sandboxes, whose processes end with the context.

    Raises:
        InputError: this machine can't have them, or an importable package is not installed; before any work.
    """
    sandbox = partial(_sandbox, sandbox_settings(params))
    bounds = Bounds(params.program_wall_s, params.memory_mib)  # looking at an output costs less than making it
    with ExitStack() as held:
        made = [held.enter_context(BoundedProcess(sandbox, bounds)) for _ in range(count)]
        if (why := made[0].call(_unavailable, None)) is not None:
            raise unavailable(params.isolation, why)
        bound = made[0].call(_memory_bound, None)
        typer.echo(f"generated code: isolation {params.isolation}, memory bounded by {bound}", err=True)
        yield Workers(made, held.enter_context(ThreadPoolExecutor(count)))


def _sandbox(settings: SandboxSettings) -> Sandbox:
    from evalplus import sanitize  # noqa: F401 (what `extract` needs, before memory is bounded)

    return Sandbox(settings)


def _unavailable(_: None, sandbox: Sandbox) -> str | None:
    return sandbox.available()


def _memory_bound(_: None, sandbox: Sandbox) -> str:
    return sandbox.memory_bound
