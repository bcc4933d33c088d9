"""Sets the machine up as `compute` says, and turns training settings into transformers' arguments."""

import os

import torch
from threadpoolctl import threadpool_limits

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
