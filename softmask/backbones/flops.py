"""Floating-point operations of an `Mdlm`, by formula: matrix products only, 2 operations a multiply-add."""

from softmask.backbones.dit import MLP_RATIO, MdlmConfig


def trunk_flops(config: MdlmConfig, tokens: int) -> int:
    """One forward of the blocks over `tokens` positions in sequences of the config's length.

    Nominal: as if the last block, too, ran whole on all positions (see `DiT.trunk`).
    """
    h = config.hidden_size
    projections = 2 * h * h * (4 + 2 * MLP_RATIO)
    attention = 4 * config.length * h
    return int(tokens * config.n_blocks * (projections + attention))


def head_flops(config: MdlmConfig, rows: int) -> int:
    """The output head on `rows` positions."""
    return int(2 * rows * config.hidden_size * config.vocab_size)
