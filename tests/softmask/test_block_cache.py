"""The block-wise cache: exact where it must be, measured where it can't be, in memory that doesn't grow."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmask.backbones.dream import position_ids_of
from softmask.decoding.block_cache import BlockCache
from softmask.decoding.dream_kinds import CacheMode
from softmask.decoding.dream_settings import DreamDecoding
from softmask.evaluation.cache_drift import cache_drift
from softmask.feedback_kinds import FeedbackKind
from tests.softmask.test_dream_decoder import FEEDBACK, HOW, R, decoding, prompts_of, run, soft_mask, tiny
from tests.softmask.tiny_dream import MASK

CACHED = [CacheMode.PREFIX, CacheMode.DUAL]


def whole_cache(batch: int, length: int) -> BlockCache:
    return BlockCache(tiny().config, batch, length, torch.float32, torch.device("cpu"))


@settings(max_examples=40)
@given(first=st.integers(0, 8), size=st.integers(1, 9), padding=st.integers(0, 3))
def test_a_window_with_the_tokens_of_the_whole_forward_gives_its_hidden_states(
    first: int, size: int, padding: int
) -> None:
    model, length = tiny(), 9
    ids = torch.randint(0, MASK, (2, length), generator=torch.Generator().manual_seed(0))
    visible = torch.arange(length) >= torch.tensor([[padding], [0]])
    positions, cache = position_ids_of(visible), whole_cache(2, length)
    last = min(first + size, length)
    with torch.no_grad():
        whole = model.hidden(model.embed(ids), visible, positions, cache)
        assert torch.equal(whole, model.hidden(model.embed(ids), visible, positions))
        part = slice(first, last)
        window = model.hidden(model.embed(ids[:, part]), visible, positions[:, part], cache.window(first, last))
    seen = visible[:, part]
    torch.testing.assert_close(window[seen], whole[:, part][seen], atol=1e-5, rtol=1e-5)


@settings(max_examples=20)
@given(kept=st.sets(st.integers(0, 3), min_size=1).map(sorted))
def test_rows_that_are_given_up_leave_the_others_as_they_were(kept: list[int]) -> None:
    model, length, cache = tiny(), 6, whole_cache(4, 6)
    ids = torch.randint(0, MASK, (4, length), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(2, 4)[None]
    with torch.no_grad():
        whole = model.hidden(model.embed(ids), cache=cache)
        cache.keep(torch.tensor(kept))
        window = model.hidden(model.embed(ids[kept, 2:4]), None, positions, cache.window(2, 4))
    torch.testing.assert_close(window, whole[kept, 2:4], atol=1e-5, rtol=1e-5)


def test_the_buffers_are_made_once() -> None:
    cache, shape = whole_cache(3, 7), (3, 2, 7, 4)
    cache.attend(0, torch.zeros(shape), torch.zeros(shape))
    places = set()
    for rows, first, last in ((3, 2, 5), (2, 2, 5), (1, 0, 6)):
        new = torch.full((rows, 2, last - first, 4), float(rows))
        keys, values = cache.window(first, last).attend(1, new, new)
        assert keys.shape == values.shape == (rows, 2, 7, 4) and torch.equal(keys[:, :, first:last], new)
        places.add((keys.untyped_storage().data_ptr(), values.untyped_storage().data_ptr()))
    assert len(places) == 1


@pytest.mark.parametrize("mode", CACHED)
@settings(max_examples=20)
@given(how=HOW, kind=FEEDBACK, threshold=st.sampled_from([None, 0.6]))
def test_a_cache_that_is_refreshed_at_every_step_is_no_cache(
    mode: CacheMode, how: DreamDecoding, kind: FeedbackKind | None, threshold: float | None
) -> None:
    if how.algorithm.value != "origin":
        how = replace(how, threshold=threshold)
    prompts, feedback = prompts_of([2, 5]), None if kind is None else soft_mask(kind)
    plain, history = run(tiny(), feedback, prompts, replace(how, cache=CacheMode.NONE))
    fresh, views = run(tiny(), feedback, prompts, replace(how, cache=mode, refresh_every=1))
    assert torch.equal(plain.tokens, fresh.tokens) and torch.equal(plain.positions, fresh.positions)
    assert [view.tokens.tolist() for view in history] == [view.tokens.tolist() for view in views]


@settings(max_examples=20)
@given(mode=st.sampled_from(CACHED), how=HOW, fed=st.booleans(), seed=st.integers(0, 3))
def test_a_cache_is_exact_in_a_single_layer_where_nothing_outside_the_window_changes(
    mode: CacheMode, how: DreamDecoding, fed: bool, seed: int
) -> None:
    """One layer's keys and values depend on their own input only: tokens before the block stand still, and so do the
    masks after it, unless they are fed with guesses."""
    feedback = soft_mask() if fed and mode is CacheMode.PREFIX else None
    model, prompts = tiny(seed, num_hidden_layers=1), prompts_of([2, 5])
    plain, history = run(model, feedback, prompts, replace(how, cache=CacheMode.NONE))
    cached, views = run(model, feedback, prompts, replace(how, cache=mode, refresh_every=None))
    assert torch.equal(plain.tokens, cached.tokens)
    assert [view.tokens.tolist() for view in history] == [view.tokens.tolist() for view in views]


def test_what_a_block_costs_is_one_whole_forward_and_windows_of_one_position_more_than_they_predict() -> None:
    prompts = prompts_of([3])
    made = {mode: run(tiny(), None, prompts, decoding(cache=mode, block_length=4))[0] for mode in CacheMode}
    assert all(decoded.forwards.tolist() == [R] for decoded in made.values())
    whole = 3 + R
    positions = {mode: int(decoded.positions) for mode, decoded in made.items()}
    assert positions[CacheMode.NONE] == 8 * whole
    assert positions[CacheMode.DUAL] == 2 * whole + 6 * (4 + 1)
    assert positions[CacheMode.PREFIX] == 2 * whole + 3 * (8 + 1) + 3 * (4 + 1)
    again = run(tiny(), None, prompts, decoding(cache=CacheMode.DUAL, block_length=4, refresh_every=2))[0]
    assert int(again.positions) == 4 * whole + 4 * (4 + 1)


@pytest.mark.parametrize("kind", [None, *FeedbackKind])
@pytest.mark.parametrize("mode", CACHED)
def test_the_first_step_of_each_block_is_exact_and_the_drift_after_it_is_measured(
    mode: CacheMode, kind: FeedbackKind | None
) -> None:
    feedback = None if kind is None else soft_mask(kind)
    how, prompts = decoding(cache=mode, block_length=4), prompts_of([2, 5])
    drift = cache_drift(tiny(), feedback, prompts, R, how, [0, 1])
    assert [found.age for found in drift.by_age] == [0, 1, 2, 3]
    exact, *later = drift.by_age
    assert exact.kl == exact.largest_kl == exact.changed == 0 and exact.positions == 2 * (R + R // 2)
    assert all(found.largest_kl >= found.kl and 0 <= found.changed <= 1 for found in later)
    assert later[-1].kl > 1e-4  # the first step may unmask nothing, so that without feedback the second is exact too
    assert 0 < drift.agreement <= 1


def test_the_drift_is_nought_where_the_cache_is_exact() -> None:
    how = decoding(cache=CacheMode.DUAL, block_length=4)
    drift = cache_drift(tiny(num_hidden_layers=1), None, prompts_of([2, 5]), R, how, [0, 1])
    assert drift.agreement == 1 and all(found.largest_kl < 1e-5 and found.changed == 0 for found in drift.by_age)


def test_measuring_the_drift_does_not_change_what_is_decoded() -> None:
    how, prompts, mode = decoding(block_length=4, temperature=1.0), prompts_of([2, 5]), CacheMode.DUAL
    exact = run(tiny(), soft_mask(), prompts, how)[0].tokens
    cached = run(tiny(), soft_mask(), prompts, replace(how, cache=mode))[0].tokens
    drift = cache_drift(tiny(), soft_mask(), prompts, R, replace(how, cache=mode), [2, 5])  # as `run` seeds them
    assert drift.agreement == pytest.approx(float((exact == cached).float().mean()))
