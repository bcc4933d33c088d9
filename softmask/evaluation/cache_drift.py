"""What a block-wise cache costs in exactness: cached predictions against whole forwards of the same state.

With bidirectional attention, keys and values that stand still belong to tokens that have changed since, so nothing but
the first step after each whole forward is exact. How far the others are off is measured here, not bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softmask.backbones.dream import DreamModel
from softmask.decoding.dream_decoder import DreamRun, Pass, decode
from softmask.decoding.dream_kinds import CacheMode
from softmask.decoding.dream_settings import DreamDecoding
from softmask.feedback import SoftMask


@dataclass(frozen=True)
class AgeDrift:
    """The drift of all predictions from a cache of one age.

    Args:
        age: steps since the last whole forward.
        positions: masked positions that were compared.
        kl: mean KL divergence of the cached distribution from the exact one, in nats.
        largest_kl: the largest.
        changed: share of positions with another likeliest token.
    """

    age: int
    positions: int
    kl: float
    largest_kl: float
    changed: float


@dataclass(frozen=True)
class CacheDrift:
    """The drift `by_age`, and `agreement`: the share of response tokens that equal those decoded without a cache."""

    by_age: list[AgeDrift]
    agreement: float


@torch.no_grad()
def cache_drift(
    model: DreamModel,
    soft_mask: SoftMask | None,
    prompts: Sequence[Sequence[int]],
    response_length: int,
    settings: DreamDecoding,
    seeds: Sequence[int],
) -> CacheDrift:
    """Decode with the cache of `settings`, and compare every step's predictions with a whole forward's.

    Args as in `softmask.decoding.dream_decoder.decode`, but for `seeds`, one a prompt, since it decodes twice.
    """

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    probe = _Probe(model, soft_mask, prompts, response_length, settings, generators())
    cached = probe.decode().tokens
    plain = replace(settings, cache=CacheMode.NONE, refresh_every=None)
    exact = decode(model, soft_mask, prompts, response_length, plain, generators()).tokens
    return CacheDrift(probe.by_age(), float((cached == exact).float().mean()))


class _Probe(DreamRun):
    """A run that makes a whole forward beside each of its own, and keeps how the two differ."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._found: dict[int, list[Tensor]] = {}

    def forward(self, now: Pass) -> Tensor:
        hidden = super().forward(now)
        masked = self.response[now.rows, now.seen] == int(self.model.config.mask_token_id)
        exact = self.hidden(self.whole(now.rows), None)[:, now.seen]
        chunk = self.settings.head_chunk
        pairs = zip(hidden[masked].split(chunk), exact[masked].split(chunk), strict=True)
        self._found.setdefault(now.age, []).extend(self._differences(*pair) for pair in pairs)
        return hidden

    def by_age(self) -> list[AgeDrift]:
        """What was found, youngest first."""
        drifts = []
        for age, parts in sorted(self._found.items()):
            kl, changed = torch.cat(parts, dim=1)
            drifts.append(AgeDrift(age, len(kl), float(kl.mean()), float(kl.max()), float(changed.mean())))
        return drifts

    def _differences(self, cached: Tensor, exact: Tensor) -> Tensor:
        """`[2, m]`: KL(exact || cached), and 1 where the likeliest tokens differ."""
        cached, exact = self.model.log_probs(cached), self.model.log_probs(exact)
        kl = F.kl_div(cached, exact, reduction="none", log_target=True).sum(-1)
        return torch.stack([kl.double(), (cached.argmax(-1) != exact.argmax(-1)).double()])
