"""Muon for a transformer's matrices and AdamW for the rest, as one optimizer. Both are torch's; knows no model's names.

A small model trained for some hundred steps learns to copy from its prompt about twice as fast as with AdamW alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
from torch import nn

_UPDATE_SIZE = "match_rms_adamw"
"""Updates as large as AdamW's (Liu et al. 2025, arXiv 2502.16982, section 2.2): learning rates are of one scale."""


def split_parameters(layers: nn.Module, model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained matrices in `layers`, and the other trained parameters of the `model` around them, each once."""
    matrices = [parameter for parameter in layers.parameters() if parameter.requires_grad and parameter.ndim == 2]
    taken = set(map(id, matrices))
    others = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in taken]
    return matrices, others


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on matrices, AdamW on everything else.

    Args:
        matrices: parameters of two dimensions, without embeddings and head.
        others: embeddings, head, norms, biases.
        matrix_learning_rate: Muon's.
        weight_decay: of both, decoupled.
        adamw: AdamW's further arguments: `lr`, `betas`, `eps`.

    Raises:
        ValueError: a matrix has not two dimensions.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        *,
        matrix_learning_rate: float,
        weight_decay: float,
        adamw: Mapping[str, Any],
    ) -> None:
        super().__init__([{"params": matrices}, {"params": others}], {})
        muon = torch.optim.Muon(matrices, lr=matrix_learning_rate, weight_decay=weight_decay, adjust_lr_fn=_UPDATE_SIZE)
        self._parts = (muon, torch.optim.AdamW(others, **{**adamw, "weight_decay": weight_decay}))
        self._share_groups()

    def _share_groups(self) -> None:
        """The parts' groups are this optimizer's, so that a schedule sets their learning rates."""
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of both, after the closure if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()  # type: ignore[no-untyped-call]
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states, in their order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the parts' states."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
