"""Runs a stage's work in several processes with torchrun when `compute.processes` says so.

The parent keeps the checkpoint store and writes the manifest; the workers run the same `run`, the first of them
writes the outputs. Workers never outlive the parent, which holds the store as its only writer.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import torch.distributed

from artifacts.files import read_json, write_json
from runner.parent import die_with_parent
from runner.stage import MAY_PASS, Context, StageParams
from softmask.errors import InputError, Unavailable

P = TypeVar("P", bound=StageParams)
COUNTS = "worker_counts.json"


def in_processes(module: str, run: Callable[[Context[P]], None]) -> Callable[[Context[P]], None]:
    """`run`, in as many processes as `compute.processes` says.

    Args:
        module: the stage's module, for the workers' command line.
        run: the work of one process.
    """

    def launched(context: Context[P]) -> None:
        compute: Any = getattr(context.params, "compute")  # noqa: B009 - every stage that launches has it
        if torch.distributed.is_torchelastic_launched():
            die_with_parent(os.getppid())
            run(context)
            if torch.distributed.get_rank() == 0:
                write_json(context.checkpoints.path / COUNTS, context.counts)
            _end_worker()
        elif compute.processes == 1:
            run(context)
        else:
            _spawn(module, context, compute.processes)
            context.counts.update(read_json(context.checkpoints.path / COUNTS))

    return launched


def _end_worker() -> NoReturn:
    """End a worker that has done all its work, when the others have as well.

    Not by way of the interpreter's end, where one run in some 20 with gloo aborted ("terminate called without an
    active exception", after all work was done).
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _spawn(module: str, context: Context[Any], processes: int) -> None:
    axes = [part for axis, value in context.axes.items() for part in (f"--{axis}", value)]
    worker = ["--worker", str(context.checkpoints.path), context.checkpoints.key]
    launcher = [sys.executable, "-m", "runner.launch", str(os.getpid())]
    launcher += ["--standalone", f"--nproc-per-node={processes}"]
    code = _wait(subprocess.Popen([*launcher, "-m", module, *axes, *worker], start_new_session=True))
    if code:
        raise (Unavailable if code == MAY_PASS else InputError)(
            f"a training process ended with exit code {code}",
            where=module,
            todo="Its own message is above; run again to resume from the last checkpoint",
        )


def _wait(launcher: subprocess.Popen[bytes]) -> int:
    """The exit code of torchrun. SIGINT or SIGTERM is passed on once, and the workers' checkpoint waited for.

    torchrun has a session of its own, so that Ctrl-C doesn't reach it, or a worker, in some other way as well.
    """
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return launcher.wait()
    except KeyboardInterrupt:
        launcher.terminate()
        launcher.wait()
        raise
    finally:
        launcher.kill()
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    die_with_parent(int(sys.argv[1]))
    try:
        torchrun(sys.argv[2:])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        sys.exit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode)  # by a signal, as shells say it
