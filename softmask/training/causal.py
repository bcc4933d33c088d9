"""The causal objective, next-token cross entropy, for training a judge. Knows no masks and no diffusion."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from softmask.backbones.causal_lm import chunked_nll, output_head
from softmask.training.stream import Rows


class CausalObjective(nn.Module):
    """Mean next-token NLL of a causal language model.

    Args:
        model: a causal LM of transformers with a linear head.
        head_chunk: positions a chunk of the head, so that no logits for all positions exist at once.
    """

    def __init__(self, model: PreTrainedModel, head_chunk: int) -> None:
        super().__init__()
        self.model, self.head_chunk = model, head_chunk

    def forward(self, input_ids: Tensor) -> Tensor:
        """Mean NLL in nats over the L predictions of each row of `input_ids` `[B, L + 1]`."""
        hidden = self.model.base_model(input_ids[:, :-1]).last_hidden_state
        targets = input_ids[:, 1:].flatten()
        return chunked_nll(hidden.flatten(0, 1), output_head(self.model), targets, self.head_chunk).mean()


class RowsAndNext:
    """Rows of packed tokens, each with the token that follows it, so that every one of its positions has a target."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.length = rows.length + 1

    def __len__(self) -> int:
        """One fewer: nothing follows the last row."""
        return len(self._rows) - 1

    def rows(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """`[n, L + 1]` int64."""
        following = self._rows.rows(indices + 1)[:, :1]
        return np.concatenate([self._rows.rows(indices), following], axis=1)


def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Items of a `TrainingStream` -> `{"input_ids": int64 [B, L + 1]}`."""
    return {"input_ids": torch.stack([item["input_ids"] for item in items])}
