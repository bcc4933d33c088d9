"""Runs a stage's work in several processes with torchrun when `compute.processes` says so.

The parent keeps the checkpoint store and writes the manifest; the workers run the same `run`, the first of them
writes the outputs.
"""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed

from softmask.errors import InputError
from stages.component import Context, StageParams
from stages.files import read_json, write_json

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
            run(context)
            if int(torch.distributed.get_rank() if torch.distributed.is_initialized() else 0) == 0:
                write_json(context.checkpoints.path / COUNTS, context.counts)
        elif compute.processes == 1:
            run(context)
        else:
            _spawn(module, context, compute.processes)
            context.counts.update(read_json(context.checkpoints.path / COUNTS))

    return launched


def _spawn(module: str, context: Context[Any], processes: int) -> None:
    axes = [part for axis, value in context.axes.items() for part in (f"--{axis}", value)]
    worker = ["--worker", str(context.checkpoints.path), context.checkpoints.key]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    code = subprocess.run([*launcher, "-m", module, *axes, *worker], check=False).returncode
    if code:
        raise InputError(
            f"a training process ended with exit code {code}",
            where=module,
            todo="Its own message is above; run again to resume from the last checkpoint",
        )
