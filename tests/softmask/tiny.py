"""Tiny diffusion models with random weights everywhere, for tests: as constructed, a DiT's head and gates are zero."""

from typing import Any

import torch

from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.feedback_kinds import FeedbackKind, Interpolation

MASK = 8
"""Mask token of `tiny_mdlm` unless told otherwise: the last of nine."""

SCALES = {"vocab_embed": 1.0, "sigma_map": 0.02, "norm": 0.1, "adaLN_modulation": 0.5, "output_layer.linear": 0.25}
"""Part of a parameter's name -> scale of its noise; so chosen that the context decides, with moderate confidence."""


def soft_mask_settings(
    kind: FeedbackKind = FeedbackKind.TOP_K,
    k: int = 3,
    interpolation: Interpolation = Interpolation.LINEAR,
    **changes: float,
) -> dict[str, Any]:
    """Arguments of a `SoftMask` whose gate is well open, as JSON has them."""
    omegas = {"omega_s": 0.8, "omega_a": 2.0, "omega_b": -1.5, "temperature": 0.7, **changes}
    return {**omegas, "kind": kind.value, "k": k, "interpolation": interpolation.value}


def tiny_mdlm(
    soft_mask: dict[str, Any] | None = None, *, vocab_size: int = MASK + 1, seed: int = 0, dropout: float = 0.0
) -> Mdlm:
    """A model in eval mode; the same seed gives the same backbone with and without a soft mask."""
    config = MdlmConfig(
        vocab_size=vocab_size,
        mask_token_id=vocab_size - 1,
        length=6,
        hidden_size=16,
        n_blocks=2,
        n_heads=2,
        cond_dim=8,
        dropout=dropout,
        soft_mask=soft_mask,
    )
    model = Mdlm(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = next((scale for part, scale in SCALES.items() if part in name), 0.3)
            parameter.copy_(scale * noise + ("norm" in name))
    model.train(False)
    return model


def close_gate(model: Mdlm) -> Mdlm:
    """Sets omega_s, and so lambda, to exactly 0."""
    assert model.soft_mask is not None
    torch.nn.init.constant_(model.soft_mask.raw_omega_s, float("-inf"))
    return model


def masked_rows(
    batch: int, length: int, *, vocab_size: int = MASK + 1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random `x0` and `x_t` `[B, L]`, about half of it masked, at least one position masked and one not."""
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.randint(0, vocab_size - 1, (batch, length), generator=generator)
    masked = torch.rand(batch, length, generator=generator) < 0.5
    masked[0, 0], masked[0, -1] = True, False
    return x0, torch.where(masked, vocab_size - 1, x0)
