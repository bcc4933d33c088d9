"""The head runs on masked positions only, in chunks: with a vocabulary for which nothing else fits, all still works.

A `[B, L, V]` tensor of logits would take over 200 GiB, and even the masked rows' `[M, V]` more than what the process
may grow by.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
import torch

from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.decoding.decoder import DecodingSettings, generate
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.transitions import RemdmSettings
from softmask.diffusion import LogLinear
from softmask.evaluation.perplexity import batch_nll
from softmask.feedback_kinds import FeedbackKind, OmegaSchedule
from softmask.training.elbo import BinaryObjective
from softmask.training.soft_mask_objective import SoftMaskObjective
from tests.softmask.tiny import soft_mask_settings

VOCAB, HIDDEN, MASK = 800_000, 8, 799_999
BATCH, LENGTH, MASKED = 8448, 8, 140
CHUNK = 4
MIB = 2**20
GROWTH = 280 * MIB
"""What the process may grow by: parameters' gradients and optimizer states and all activations take under 200 MiB, a chunk 12 MiB."""


def large_model(kind: FeedbackKind | None) -> Mdlm:
    torch.manual_seed(0)
    config = MdlmConfig(
        vocab_size=VOCAB,
        mask_token_id=MASK,
        length=LENGTH,
        hidden_size=HIDDEN,
        n_blocks=1,
        n_heads=2,
        cond_dim=4,
        soft_mask=None if kind is None else soft_mask_settings(kind, k=3),
    )
    return Mdlm(config).eval()


@contextmanager
def bounded_growth() -> Iterator[None]:
    """Watches the resident memory; freed blocks of this size go back to the system at once, so that peaks show."""
    process, done = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print((peak-start)/MIB)
    assert peak - start < GROWTH, f"grew by {(peak - start) / MIB:.0f} MiB"


def few_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """`x0` and `x_t` `[B, L]`, a few positions masked."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, MASK, (BATCH, LENGTH), generator=generator)
    x_t = x0.clone()
    x_t.view(-1)[torch.randperm(x_t.numel(), generator=generator)[:MASKED]] = MASK
    return x0, x_t


def test_the_sizes_make_other_ways_impossible() -> None:
    assert BATCH * LENGTH * VOCAB * 4 > 200 * 2**30
    assert MASKED * VOCAB * 4 > 1.5 * GROWTH
    assert CHUNK * VOCAB * 4 < GROWTH / 20


def test_the_watch_sees_a_tensor_of_all_masked_rows() -> None:
    with pytest.raises(AssertionError, match="grew by"), bounded_growth():
        torch.zeros(MASKED, VOCAB).add_(1)
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [None, *FeedbackKind])
def test_a_training_step_and_an_evaluation_fit(kind: FeedbackKind | None) -> None:
    model, (x0, x_t) = large_model(kind), few_masks()
    make: Callable[..., BinaryObjective] = BinaryObjective if kind is None else SoftMaskObjective
    objective = make(model, LogLinear(1e-3), CHUNK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with bounded_growth():
        loss = objective(x0, x_t, torch.full((BATCH,), 0.5), True)
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    with bounded_growth():
        nll = batch_nll(model, x0, x_t, CHUNK)
    assert len(nll.binary) == MASKED and (nll.two_pass is None) == (kind is None)


@pytest.mark.parametrize(
    ("kind", "batch"), [(None, BATCH), (FeedbackKind.TOP_K, 20), (FeedbackKind.FULL, 20)]
)
def test_sampling_fits(kind: FeedbackKind | None, batch: int) -> None:
    """Without feedback the head sees only what unmasks: few of the positions here. With it, it sees every mask."""
    settings = DecodingSettings(
        sampler=Sampler.MDLM,
        nfe=2,
        nucleus_p=1.0,
        refresh=Refresh.ALWAYS,
        remask_feedback=RemaskFeedback.MASK,
        omega_schedule=OmegaSchedule.CONSTANT,
        remdm=RemdmSettings(0.0, 0.5, 0.1, 0.9),
        final_t=0.998,
        final_argmax=False,
        head_chunk=CHUNK,
    )
    model = large_model(kind)
    with bounded_growth():
        made = generate(model, settings, batch, LENGTH, torch.Generator().manual_seed(0))
    unmasked = int((made.tokens != MASK).sum())
    assert 0 < unmasked < 400
    assert made.head_rows >= unmasked
    assert batch * LENGTH * VOCAB * 4 > 1.5 * GROWTH
