"""Bytes in memory and on disk, by rough formulas: what decides whether a run fits, not what a profiler would show."""

from dataclasses import dataclass

from softmask.training.resumable import KEPT_CHECKPOINTS
from stages.params.compute import ComputeParams

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
JSON_NUMBER = 5
"""Bytes of a token id in JSON, with its comma."""
PARQUET = 0.4
"""Bytes of compressed text a character."""


@dataclass(frozen=True)
class Trunk:
    """What activations depend on: width, layers, the vocabulary of the head, and bytes of a number."""

    width: int
    layers: int
    vocabulary: int
    number: int = FLOAT32

    def inference(self, positions: int, chunk: int) -> int:
        """Of a forward without gradient and one chunk of its head."""
        return INFERENCE * positions * self.width * self.number + self._head(min(positions, chunk))

    def training(self, positions: int, chunk: int, recomputed: bool = False) -> int:
        """Of a forward whose backward is to come, and one chunk of its head.

        Args:
            positions: of a micro-batch on one process.
            chunk: rows of the head at once.
            recomputed: each layer keeps its input and is computed anew.
        """
        layer = ACTIVATIONS * positions * self.width * self.number
        inputs = self.layers * positions * self.width * self.number
        kept = layer + inputs if recomputed else layer * self.layers
        return kept + self._head(min(positions, chunk))

    def _head(self, rows: int) -> int:
        return HEAD_COPIES * rows * self.vocabulary * FLOAT32


def bytes_a_number(compute: ComputeParams) -> int:
    """Of activations in training, and of frozen weights."""
    return 2 if compute.precision == "bf16" else FLOAT32


def trained(parameters: int, further: int, processes: int) -> int:
    """Trained float32 weights, gradients, AdamW's moments, with several processes the buckets that gradients meet in,
    and `further` copies: the average, or the best so far."""
    copies = 2 + MOMENTS + (processes > 1) + further
    return FLOAT32 * parameters * copies


def checkpoints(parameters: int, further: int) -> int:
    """Those that are kept and the one that is being written: trained weights, AdamW's moments, `further` copies."""
    return (KEPT_CHECKPOINTS + 1) * FLOAT32 * parameters * (1 + MOMENTS + further)
