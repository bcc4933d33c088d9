"""Sandboxes as parameters describe them, several at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import TypeVar

from softmask.evaluation.sandbox import Sandbox, SandboxSettings, unavailable
from softmask.evaluation.sandbox_walls import Limits
from stages.params.code.scoring import SandboxParams

T = TypeVar("T")
R = TypeVar("R")


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
    """Several sandboxes that share work."""

    def __init__(self, sandboxes: list[Sandbox], pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._free: SimpleQueue[Sandbox] = SimpleQueue()
        for sandbox in sandboxes:
            self._free.put(sandbox)

    def map(self, work: Callable[[T, Sandbox], R], items: Iterable[T]) -> Iterator[R]:
        """What `work` makes of each item with a sandbox of its own, in the items' order."""

        def with_sandbox(item: T) -> R:
            sandbox = self._free.get()
            try:
                return work(item, sandbox)
            finally:
                self._free.put(sandbox)

        return self._pool.map(with_sandbox, items)


@contextmanager
def sandboxes(params: SandboxParams, count: int) -> Iterator[Workers]:
    """So many sandboxes, whose processes end with the context.

    Raises:
        InputError: this machine can't have them, or an importable package is not installed; before any work.
    """
    settings = sandbox_settings(params)
    with ExitStack() as held:
        made = [held.enter_context(Sandbox(settings)) for _ in range(count)]
        if (why := made[0].available()) is not None:
            raise unavailable(params.isolation, why)
        yield Workers(made, held.enter_context(ThreadPoolExecutor(count)))
