"""Floating-point operations of a `DreamModel`, by formula: matrix products only, 2 operations a multiply-add."""

from softmask.backbones.dream import DreamConfig


def trunk_flops(config: DreamConfig, positions: int, context: int) -> int:
    """One forward of the layers over `positions`, each of which attends to `context` positions, kept ones included."""
    hidden, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    attention = 2 * hidden * hidden + 2 * hidden * width * config.num_key_value_heads
    projections = 2 * (attention + 3 * hidden * config.intermediate_size)
    return int(positions * config.num_hidden_layers * (projections + 4 * context * hidden))


def head_flops(config: DreamConfig, rows: int) -> int:
    """The output head on `rows` positions."""
    return int(2 * rows * config.hidden_size * config.vocab_size)
