"""lambda's mean, spread and dependence on confidence, from sums that add up over batches."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class GateSums:
    """Sums over masked positions, in bins of the first pass's entropy.

    Args:
        bins: increasing upper edges in nats; a last bin without an edge is added.
    """

    def __init__(self, bins: Sequence[float]) -> None:
        self._bins = list(bins)
        width = len(self._bins) + 1
        self._count, self._sum, self._squares = [0.0] * width, [0.0] * width, [0.0] * width

    def of(self, lam: Tensor, entropy: Tensor) -> list[list[float]]:
        """`[count, sum, sum of squares]` by bin of a batch; `lam` and `entropy` are `[M]`."""
        lam, entropy = lam.double().cpu(), entropy.double().cpu()
        index = torch.bucketize(entropy, torch.tensor(self._bins, dtype=torch.float64))
        width = len(self._bins) + 1
        weights = (torch.ones_like(lam), lam, lam.square())
        return [torch.bincount(index, weights=w, minlength=width).tolist() for w in weights]

    def add(self, sums: Any) -> None:
        """Add a batch's sums; None (a binary model's) adds nothing."""
        for mine, theirs in zip((self._count, self._sum, self._squares), sums or (), strict=bool(sums)):
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]

    def summary(self) -> dict[str, Any]:
        """`lam_mean`, `lam_std`, and `by_entropy`: share of positions and mean lambda in each bin."""
        count, total = math.fsum(self._count), math.fsum(self._sum)
        mean = total / count
        variance = max(0.0, math.fsum(self._squares) / count - mean**2)
        edges: list[float | None] = [*self._bins, None]
        rows = [
            {"below": edge, "share": n / count, "lam_mean": s / n if n else None}
            for edge, n, s in zip(edges, self._count, self._sum, strict=True)
        ]
        return {"lam_mean": mean, "lam_std": math.sqrt(variance), "by_entropy": rows}
