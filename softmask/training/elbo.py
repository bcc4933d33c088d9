"""The MDLM objective: the continuous-time ELBO as weighted cross entropy on masked positions (MDLM, eq. 10)."""

from torch import Tensor, nn

from softmask.backbones.dit import Mdlm
from softmask.diffusion import LogLinear, weighted_nll
from softmask.feedback import Guesses


def masked_nll(
    model: Mdlm, x0: Tensor, x_t: Tensor, w: Tensor, guesses: Guesses | None, head_chunk: int
) -> tuple[Tensor, Tensor]:
    """Weighted NLL of the masked positions of one pass.

    Args:
        model: with or without a soft mask.
        x0: `[B, L]` clean tokens; x_t: `[B, L]` with masks.
        w: `[B]` weight of each sequence's terms, such as 1 / t.
        guesses: feedback for the masked positions, or None for the binary path.
        head_chunk: masked positions a chunk of the head.

    Returns:
        the weighted sum, differentiable, and the NLLs `[M]` in nats in row-major order, not differentiable.
    """
    masked = x_t == model.config.mask_token_id
    rows = model.backbone.head_input(model.hidden(x_t, guesses))
    linear = model.backbone.output_layer.linear
    weights = w[:, None].expand_as(x_t)[masked].float()
    mask_id = int(model.config.mask_token_id)
    return weighted_nll(rows, linear.weight, linear.bias, x0[masked], weights, mask_id, head_chunk)


class BinaryObjective(nn.Module):
    """The ELBO of plain MDLM: one pass with binary masks.

    Args:
        model: the model to train.
        noise: the schedule whose weight the loss has.
        head_chunk: masked positions a chunk of the head.
    """

    def __init__(self, model: Mdlm, noise: LogLinear, head_chunk: int) -> None:
        super().__init__()
        self.model, self.noise, self.head_chunk = model, noise, head_chunk

    def forward(self, x0: Tensor, x_t: Tensor, t: Tensor, two_pass: bool) -> Tensor:
        """Mean over all B x L tokens, in nats. `two_pass` is for other objectives."""
        return self.loss(x0, x_t, t, None)

    def loss(self, x0: Tensor, x_t: Tensor, t: Tensor, guesses: Guesses | None) -> Tensor:
        """The ELBO's mean over all B x L tokens of a pass with the given feedback."""
        total, _ = masked_nll(self.model, x0, x_t, self.noise.nll_weight(t), guesses, self.head_chunk)
        return total / x0.numel()
