"""How far the gate is open: lambda's mean and its spread over confidence, on fixed masked validation rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.training.lam_measures import entropy_of, lam_measures
from softmask.training.soft_mask_objective import first_pass


class GateProbe:
    """Measures lambda on `x_t`.

    Args:
        x_t: `[B, L]` fixed rows with masks.
        head_chunk: masked positions a chunk of the head.
        batch_size: rows a forward pass.
    """

    def __init__(self, x_t: Tensor, head_chunk: int, batch_size: int) -> None:
        self._x_t, self._head_chunk, self._batch_size = x_t, head_chunk, batch_size

    def __call__(self, model: Mdlm) -> Mapping[str, float]:
        """`lam_mean`, `lam_std`, and lambda's mean on the more confident and the less confident half of the masks."""
        lams, entropies = self.measure(model)
        return lam_measures(lams, entropies)

    def measure(self, model: Mdlm) -> tuple[Tensor, Tensor]:
        """lambda and entropy in nats of every masked position, each `[M]`."""
        assert model.soft_mask is not None
        lams, entropies = [], []
        for x_t in self._x_t.to(model.device).split(self._batch_size):
            guesses = first_pass(model, x_t, self._head_chunk)
            lams.append(model.soft_mask.lam_of(guesses).double())
            entropies.append(entropy_of(guesses))
        return torch.cat(lams), torch.cat(entropies)
