"""Bytes in memory and on disk, by rough formulas: what decides whether a run fits, not what a profiler would show."""

from dataclasses import dataclass

from softmask.training.resumable import KEPT_CHECKPOINTS

FLOAT32 = 4
MOMENTS = 2
"""AdamW keeps two a parameter."""
HEAD_COPIES = 3
"""A chunk's logits, their log-probabilities and, in training, their gradient; all float32."""
ACTIVATIONS = 30
"""Numbers that a layer keeps for the backward pass, a position and unit of width. Saved by autograd on a CPU: MDLM
24 in float32 and 29 of 16 bits under autocast, layers of Dream's proportions 30 and 32."""
INFERENCE = 16
"""Numbers that are alive at once in a forward without gradient, a position and unit of width."""
PARQUET = 0.4
"""Bytes of compressed text a character."""


@dataclass(frozen=True)
class Trunk:
    """What activations depend on: width, layers, the vocabulary of the head, and bytes of a number."""

    width: int
    layers: int
    vocabulary: int
    number: int = FLOAT32

    def activations(self, positions: int, recomputed: bool = False) -> int:
        """Of a forward whose backward is to come; `recomputed`: each layer keeps its input and is computed anew."""
        layer = ACTIVATIONS * positions * self.width * self.number
        if recomputed:
            return layer + self.layers * positions * self.width * self.number
        return layer * self.layers

    def forward(self, positions: int) -> int:
        """Of a forward alone."""
        return INFERENCE * positions * self.width * self.number

    def head(self, rows: int) -> int:
        """Of one chunk of so many rows."""
        return HEAD_COPIES * rows * self.vocabulary * FLOAT32


def trained(parameters: int, averaged: bool, processes: int) -> int:
    """Weights, gradients, AdamW's moments, the average; with several processes, the buckets that gradients meet in."""
    copies = 2 + MOMENTS + averaged + (processes > 1)
    return FLOAT32 * parameters * copies


def checkpoints(parameters: int, copies: int) -> int:
    """Those that are kept and the one that is being written: the trained weights, AdamW's moments, and `copies` more
    (the average, or the best so far)."""
    return (KEPT_CHECKPOINTS + 1) * FLOAT32 * parameters * (1 + MOMENTS + copies)
