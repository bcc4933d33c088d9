"""The order in which a run sees its rows, as a function of the seed and the position alone.

Item i of the stream is the same whenever and wherever it is read: resuming, accumulating and distributing
need no state. Knows nothing of masking.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from softmask.seeds import mix_seed


class Rows(Protocol):
    """Fixed-length rows of token ids; `softmask.tokens.PackedTokens` is one."""

    length: int

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]: ...


class TrainingStream(Dataset[dict[str, Any]]):
    """`items` training items: rows in a new permutation each epoch.

    Args:
        rows: the rows of the training split.
        items: length of the whole run, steps x sequences a step.
        seed: seed of the permutations.
    """

    def __init__(self, rows: Rows, items: int, seed: int) -> None:
        self._rows, self._items, self._seed = rows, items, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, position: int) -> dict[str, Any]:
        """`{"position": int, "input_ids": int64 [L]}`."""
        epoch, index = divmod(position, len(self._rows))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix_seed(self._seed, epoch))
            self._order = torch.randperm(len(self._rows), generator=generator).numpy()
            self._epoch = epoch
        row = self._rows.rows(self._order[index : index + 1])[0]
        return {"position": position, "input_ids": torch.from_numpy(row)}


class InOrder(Sampler[int]):
    """0, 1, 2, ...: the stream is already shuffled."""

    def __init__(self, items: int) -> None:
        self._items = items

    def __len__(self) -> int:
        return self._items

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._items))
