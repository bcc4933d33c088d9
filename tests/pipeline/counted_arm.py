"""The stage `arm`, which also counts the passes that each of its processes really makes; run in a clone's root.

Every process writes forwards-RANK.json: how many forward passes each of its micro-batches took, in their order.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from artifacts.files import write_json
from runner.launch import in_processes
from runner.stage import Context
from softmask.backbones.dit import Block, read
from softmask.training.soft_mask_objective import SoftMaskObjective
from stages import arm


def counted(context: Context[arm.Params]) -> None:
    """The arm's work; the gate's probe, which is no part of a micro-batch, is not counted."""
    blocks: list[int] = []

    def count(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, SoftMaskObjective):
            blocks.append(0)
        elif isinstance(module, Block) and module.training:
            blocks[-1] += 1

    handle = register_module_forward_pre_hook(count)
    arm.run(context)
    handle.remove()
    n_blocks = read(context.inputs["base"]).config.n_blocks
    write_json(Path(f"forwards-{os.environ.get('RANK', '0')}.json"), [number // n_blocks for number in blocks])


STAGE = dataclasses.replace(arm.STAGE, run=in_processes("counted_arm", counted))

if __name__ == "__main__":
    STAGE.main()
