"""Sets the machine up as `compute` says, and turns training settings into transformers' arguments."""

import os
from collections.abc import Callable

import psutil
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from softmask.errors import InputError
from stages.params.compute import ComputeParams


def set_up(compute: ComputeParams) -> torch.device:
    """Set threads, determinism and the device of this process, whatever a launcher set before.

    Raises:
        InputError: CUDA is asked for and not there.
    """
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device 'cuda' was asked for and no CUDA device is there",
            where="params.yaml: compute.device",
            todo="Use a profile with device: cpu, such as local",
        )
    torch.set_num_threads(compute.threads)
    threadpool_limits(compute.threads)
    if compute.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS reads it when the first handle is made
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return torch.device(compute.device)


def copies_in_training(compute: ComputeParams) -> int:
    """Of the weights in main memory: on a CPU the gradient, AdamW's moments and the average or the best so far, too."""
    return 5 if compute.device == "cpu" else 1


def require_memory(make: Callable[[], nn.Module], copies: int, where: str) -> None:
    """A new model in float32 fits into this machine's memory; nothing is allocated.

    Args:
        make: makes the model.
        copies: of its weights that main memory will hold.
        where: its section of params.yaml.

    Raises:
        InputError: it doesn't.
    """
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in make().parameters())
    needed, there = 4 * copies * parameters, psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"a model of {parameters} parameters takes {needed / 2**30:.0f} GiB",
            where=where,
            expected=f"one for this machine's {there / 2**30:.0f} GiB of memory",
        )
