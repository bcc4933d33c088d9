"""The head runs on masked positions only, in chunks: with a vocabulary for which nothing else fits, all still works.

A `[B, L, V]` tensor of logits would take over 200 GiB. The masked rows' `[M, V]` would fit; torch's own account of its
allocations shows that it is never held, neither in one piece nor in chunks that are kept.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

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

VOCAB, HIDDEN, MASK = 500_000, 4, 499_999
BATCH, LENGTH, MASKED, CHUNK = 13_500, 8, 64, 4
FLOAT = 4
LARGEST = 2 * CHUNK * VOCAB * FLOAT
"""Bytes of the largest single tensor: a chunk of logits, in float64 while it is sampled from."""
PEAK = MASKED * VOCAB * FLOAT
"""Bytes held at once: gradients, the batch's activations and a few chunks take less than one `[M, V]`."""


def large_model(kind: FeedbackKind | None) -> Mdlm:
    torch.manual_seed(0)
    config = MdlmConfig(
        vocab_size=VOCAB,
        mask_token_id=MASK,
        length=LENGTH,
        hidden_size=HIDDEN,
        n_blocks=1,
        n_heads=1,
        cond_dim=4,
        soft_mask=None if kind is None else soft_mask_settings(kind),
    )
    model = Mdlm(config)
    model.train(False)
    return model


@contextmanager
def bounded_memory(folder: Path) -> Iterator[None]:
    """Fails where a tensor above LARGEST is made, or more than PEAK is held beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        yield
    record.export_chrome_trace(str(folder / "trace.json"))
    trace: dict[str, Any] = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    changes = [
        (event["ts"], event["args"]["Bytes"]) for event in trace["traceEvents"] if event.get("name") == "[memory]"
    ]
    sizes = [size for _, size in sorted(changes, key=lambda change: change[0])]
    held = max(itertools.accumulate(sizes))
    assert max(sizes) <= LARGEST, f"a tensor of {max(sizes):,} bytes; expected at most {LARGEST:,}"
    assert held <= PEAK, f"{held:,} bytes held at once; expected at most {PEAK:,}"


def few_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """`x0` and `x_t` `[B, L]`, a few positions masked."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, MASK, (BATCH, LENGTH), generator=generator)
    x_t = x0.clone()
    x_t.view(-1)[torch.randperm(x_t.numel(), generator=generator)[:MASKED]] = MASK
    return x0, x_t


def test_the_logits_of_all_positions_would_not_fit() -> None:
    assert BATCH * LENGTH * VOCAB * FLOAT > 200 * 2**30


def test_the_account_sees_the_masked_rows_in_one_piece_and_in_kept_chunks(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a tensor of"), bounded_memory(tmp_path):
        torch.empty(MASKED, VOCAB)
    with pytest.raises(AssertionError, match="held at once"), bounded_memory(tmp_path):
        _kept = [torch.empty(CHUNK, VOCAB) for _ in range(MASKED // CHUNK + 1)]


@pytest.mark.parametrize("kind", [None, *FeedbackKind])
def test_a_training_step_and_an_evaluation_fit(kind: FeedbackKind | None, tmp_path: Path) -> None:
    model, (x0, x_t), noise = large_model(kind), few_masks(), LogLinear(1e-3)
    objective = BinaryObjective(model, noise, CHUNK) if kind is None else SoftMaskObjective(model, noise, CHUNK)
    with bounded_memory(tmp_path):
        loss = objective(x0, x_t, torch.full((BATCH,), 0.5), True)
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert torch.isfinite(loss)
    with bounded_memory(tmp_path):
        nll = batch_nll(model, x0, x_t, CHUNK)
    assert len(nll.binary) == MASKED and (nll.two_pass is None) == (kind is None)


@pytest.mark.parametrize(("kind", "batch"), [(None, BATCH), *[(kind, MASKED // LENGTH) for kind in FeedbackKind]])
def test_sampling_fits(kind: FeedbackKind | None, batch: int, tmp_path: Path) -> None:
    """Without feedback the head sees only what unmasks, some fifty of all positions here; with it, every mask."""
    settings = DecodingSettings(
        sampler=Sampler.MDLM,
        nfe=2,
        nucleus_p=1.0,
        temperature=1.0,
        refresh=Refresh.ALWAYS,
        remask_feedback=RemaskFeedback.MASK,
        omega_schedule=OmegaSchedule.CONSTANT,
        feedback_from=0.0,
        feedback_until=1.0,
        remdm=RemdmSettings(0.0, 0.5, 0.1, 0.9),
        final_t=0.9995 if kind is None else 0.9,
        final_argmax=False,
        head_chunk=CHUNK,
    )
    model = large_model(kind)
    with bounded_memory(tmp_path):
        made = generate(model, settings, batch, LENGTH, torch.Generator().manual_seed(0))
    unmasked = int((made.tokens != MASK).sum())
    assert 0 < unmasked <= made.head_rows <= 2 * MASKED
