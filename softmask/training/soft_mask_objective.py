"""Training with soft-masking (paper, Algorithm 1): a pass without gradient guesses, the second has the loss."""

import torch
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.feedback import Guesses
from softmask.training.elbo import BinaryObjective


def first_pass(model: Mdlm, x_t: Tensor, head_chunk: int) -> Guesses:
    """The guesses that a binary pass on `x_t` `[B, L]` leaves for its masked positions; no graph is kept."""
    with torch.no_grad():
        rows = model.hidden(x_t)
        return model.guesses(rows, head_chunk)


class SoftMaskObjective(BinaryObjective):
    """With `two_pass`, the ELBO of the second pass on the soft-masked input; else the binary ELBO."""

    def forward(self, x0: Tensor, x_t: Tensor, t: Tensor, two_pass: bool) -> Tensor:
        """Mean over all B x L tokens, in nats."""
        return self.loss(x0, x_t, t, first_pass(self.model, x_t, self.head_chunk) if two_pass else None)
