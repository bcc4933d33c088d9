"""Keys and values of a Dream model for block-wise decoding, in buffers that are made once.

A forward of the whole sequence fills them; a forward of a window writes its own part and attends to everything.
Knows nothing of tokens, blocks or feedback. Bidirectional attention makes what stands still stale: keys and values
outside the window belong to the tokens of the last whole forward.
"""

import torch
from torch import Tensor

from softmask.backbones.dream import DreamConfig


class BlockCache:
    """The `KeyValueCache` of a batch of B sequences of T positions.

    Args:
        config: gives layers, heads and widths.
        batch: B, rows at most.
        length: T.
        dtype, device: of the model.
    """

    def __init__(self, config: DreamConfig, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        width = config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, length, width)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self._window = slice(0, length)

    def window(self, first: int, last: int) -> "BlockCache":
        """Say that the next forward computes positions first to last - 1; gives itself, as the forward's cache."""
        self._window = slice(first, last)
        return self

    def attend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take keys and values `[A, heads, window, D]` of the first A rows; give those of all T positions."""
        rows = len(keys)
        self._keys[layer, :rows, :, self._window] = keys
        self._values[layer, :rows, :, self._window] = values
        if keys.shape[2] == self._keys.shape[3]:
            return keys, values  # all of them are new
        return self._keys[layer, :rows], self._values[layer, :rows]

    def keep(self, rows: Tensor) -> None:
        """Move the `rows` `[A]`, in rising order, to the front; the others are given up."""
        for buffer in (self._keys, self._values):
            for layer in buffer:  # one layer at a time: indexing copies
                layer[: len(rows)] = layer[rows]
