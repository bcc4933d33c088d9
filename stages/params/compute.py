"""`compute`: where and how numbers are computed. All of it can change bytes, so all of it is in params."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from runner.section import Section


class ComputeParams(Section):
    """Device, threads, precision and launch of every stage that runs a model."""

    device: Literal["cpu", "cuda"]
    """Where the models run."""
    threads: int = Field(ge=1, le=256)
    """Intra-op threads of each process; the stage sets them itself, whatever the launcher says."""
    precision: Literal["fp32", "bf16"]
    """Training precision; bf16 is mixed precision and for CUDA only (on a CPU it is some 100 times slower)."""
    deterministic: bool
    """Use deterministic algorithms on CUDA as well."""
    processes: int = Field(ge=1)
    """Training processes; more than one are launched with torchrun (gloo on a CPU, NCCL on CUDA)."""
    fsdp: bool
    """Shard parameters and optimizer over the processes."""
    head_chunk: int = Field(ge=1)
    """Masked positions per chunk of the output head: bounds memory at head_chunk x vocabulary."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.precision == "bf16" and self.device == "cpu":
            yield "precision 'bf16' with device 'cpu' is impossible; expected fp32 on a CPU"
        if self.fsdp and self.processes == 1:
            yield "fsdp true with processes 1 is impossible; expected processes of 2 and more"
