"""Dream's training loss on answers, with and without soft-masking: cross entropy over t of the masked positions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from softmask.backbones.dream import DreamModel, shifted
from softmask.diffusion import weighted_nll
from softmask.feedback import Guesses, SoftMask
from softmask.loss_kinds import Normalisation


class AnswerObjective(nn.Module):
    """The loss of a batch: the mean of what its items have alone.

    With a soft mask and `two_pass`, a first pass without gradient guesses, and the loss is the second pass's
    (paper, Algorithm 1). What is frozen is left out of `state_dict`: a checkpoint holds what is trained.

    Args:
        model: with or without an adapter in place.
        soft_mask: None for a binary model.
        normalisation: of each item.
        head_chunk: masked positions a chunk of the head.
    """

    def __init__(
        self, model: DreamModel, soft_mask: SoftMask | None, normalisation: Normalisation, head_chunk: int
    ) -> None:
        super().__init__()
        self.model, self.soft_mask = model, soft_mask
        self.normalisation, self.head_chunk = normalisation, head_chunk

    def forward(self, x0: Tensor, x_t: Tensor, t: Tensor, visible: Tensor, answer: Tensor, two_pass: bool) -> Tensor:
        """Mean loss, in nats; arguments as in `softmask.training.answers.AnswerBatch`."""
        guesses = None
        if two_pass and self.soft_mask is not None:
            guesses = self.first_pass(x_t, visible, self.masked(x_t, answer), self.soft_mask)
        return self.loss(x0, x_t, t, visible, answer, guesses)

    def masked(self, x_t: Tensor, answer: Tensor) -> Tensor:
        """`[B, T]` bool: the positions that the loss is about."""
        return (x_t == self.model.config.mask_token_id) & answer

    def loss(
        self, x0: Tensor, x_t: Tensor, t: Tensor, visible: Tensor, answer: Tensor, guesses: Guesses | None
    ) -> Tensor:
        """Mean loss, in nats, with these guesses fed back; None: the binary path."""
        masked = self.masked(x_t, answer)
        scored = masked if self.normalisation is Normalisation.MASKED else answer
        weights = 1 / (t * scored.sum(1) * len(t))
        loss, _ = self.nll(x0, x_t, visible, masked, weights, guesses)
        return loss

    def first_pass(self, x_t: Tensor, visible: Tensor, masked: Tensor, soft_mask: SoftMask) -> Guesses:
        """The guesses that a binary pass leaves for the masked positions, row-major; no graph is kept."""
        with torch.no_grad():
            hidden = self.model.hidden(self.model.embed(x_t), visible)
            return self.model.guesses(shifted(hidden)[masked], soft_mask, self.head_chunk)

    def nll(
        self, x0: Tensor, x_t: Tensor, visible: Tensor, masked: Tensor, weights: Tensor, guesses: Guesses | None
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of the masked positions under Dream's shift.

        Args:
            x0, x_t: `[B, T]` int64.
            visible, masked: `[B, T]` bool.
            weights: `[B]`, of each item's terms.
            guesses: feedback for the masked positions, or None for the binary path.

        Returns:
            The weighted sum, differentiable, and the NLLs `[M]` in nats, row-major, not differentiable.
        """
        embeddings = self.model.embed(x_t, self.soft_mask, guesses, masked)
        rows = shifted(self.model.hidden(embeddings, visible))[masked]
        w = weights[:, None].expand_as(x_t)[masked].float()
        return weighted_nll(rows, self.model.lm_head.weight, None, x0[masked], w, None, self.head_chunk)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The trained tensors only."""
        prefix = kwargs.get("prefix", "")
        trained = {prefix + name for name in self._trained()}
        full: Mapping[str, Tensor] = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in full.items() if name in trained}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """The trained tensors back, all of them; what is frozen stays and isn't missed."""
        found = super().load_state_dict(state_dict, strict=False, assign=assign)
        found.missing_keys[:] = [name for name in found.missing_keys if name in self._trained()]
        if strict and any(found):
            raise RuntimeError(f"no state of this objective: {found}")
        return found

    def _trained(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}
