"""Chats as training items: their order, and the noise on their answers, as functions of seed and position alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from softmask.training.answers import (
    TIMES,
    Answer,
    AnswerBatch,
    AnswerCollator,
    AnswerNoise,
    AnswerStream,
    evaluation_batches,
)

PAD, MASK = 28, 29


class ArrayChats:
    """Chats of random lengths in memory; the first id of each is its number."""

    def __init__(self, n: int, longest: int = 20) -> None:
        choice = np.random.default_rng(0)
        lengths = choice.integers(3, longest + 1, n)
        self.chats = [np.append(i, choice.integers(0, PAD, length - 1)) for i, length in enumerate(lengths)]
        self.prompts = [int(choice.integers(1, length)) for length in lengths]

    def __len__(self) -> int:
        return len(self.chats)

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.array([len(ids) for ids in self.chats]), np.array(self.prompts)

    def item(self, index: int) -> tuple[NDArray[np.int64], int]:
        return self.chats[index], self.prompts[index]


def noise(
    seed: int = 1, t_low: float = 0.2, t_high: float = 0.8, extra_pads: int = 9, multiple_of: int = 4
) -> AnswerNoise:
    return AnswerNoise(
        t_low=t_low,
        t_high=t_high,
        extra_pads=extra_pads,
        multiple_of=multiple_of,
        pad_token_id=PAD,
        mask_token_id=MASK,
        seed=seed,
    )


def items(n: int, start: int = 0) -> list[Answer]:
    chats = ArrayChats(n)
    return [{"position": start + i, "ids": chats.item(i)[0], "prompt_length": chats.item(i)[1]} for i in range(n)]


def collate(these: list[Answer], p_sm: float = 0.5, **changes: float) -> AnswerBatch:
    return AnswerCollator(noise(**changes), len(these), p_sm)(these)  # type: ignore[arg-type]


def row(batch: AnswerBatch, place: int) -> dict[str, Tensor]:
    """A row without the batch's own padding."""
    visible = batch["visible"][place]
    return {name: batch[name][place][visible] for name in ("x0", "x_t", "answer")} | {"t": batch["t"][place]}


# The order


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.permutations(range(24)))
def test_an_item_depends_on_its_position_alone(n: int, micro_batch: int, window: int, order: list[int]) -> None:
    chats = ArrayChats(n)
    in_order, any_order = (AnswerStream(chats, 24, micro_batch, window, seed=3) for _ in range(2))
    expected = [in_order[position]["ids"] for position in range(24)]
    for position in order:
        assert np.array_equal(any_order[position]["ids"], expected[position])
        assert any_order[position]["position"] == position


@pytest.mark.parametrize("window", [1, 3, 100])
def test_each_epoch_sees_every_chat_once_in_an_order_of_its_own(window: int) -> None:
    chats = ArrayChats(22)
    stream = AnswerStream(chats, 66, 4, window, seed=0)
    epochs = [[int(stream[22 * epoch + i]["ids"][0]) for i in range(22)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[1] != epochs[2]
    assert [int(AnswerStream(chats, 66, 4, window, seed=1)[i]["ids"][0]) for i in range(22)] != epochs[0]


def test_sorting_by_length_leaves_less_padding_and_no_order_of_lengths() -> None:
    chats = ArrayChats(64, longest=60)
    padding, firsts = {}, {}
    for window in (1, 8):
        stream = AnswerStream(chats, 64, 8, window, seed=0)
        lengths = np.array([len(stream[i]["ids"]) for i in range(64)]).reshape(8, 8)
        padding[window] = int((lengths.max(1, keepdims=True) - lengths).sum())
        firsts[window] = lengths.mean(1).tolist()
    assert padding[8] < padding[1] / 3
    assert firsts[8] != sorted(firsts[8])


def test_the_means_are_of_all_chats() -> None:
    chats = ArrayChats(9)
    stream = AnswerStream(chats, 9, 1, 1, seed=0)
    assert stream.mean_length == pytest.approx(np.mean([len(ids) for ids in chats.chats]))
    answers = [len(ids) - prompt for ids, prompt in zip(chats.chats, chats.prompts, strict=True)]
    assert stream.mean_answer == pytest.approx(np.mean(answers))


# The noise


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 9), st.floats(0.01, 1.0), st.integers(0, 10**9))
def test_only_answers_are_masked_and_one_position_at_least(
    start: int, extra: int, multiple: int, t: float, seed: int
) -> None:
    these = items(5, start)
    batch = collate(these, seed=seed, t_low=t / 2, t_high=t, extra_pads=extra, multiple_of=multiple)
    masked = batch["x_t"] == MASK
    assert bool((masked & ~batch["answer"]).sum() == 0) and bool((masked.sum(1) >= 1).all())
    assert torch.equal(torch.where(masked, batch["x0"], batch["x_t"]), batch["x0"])
    for place, item in enumerate(these):
        alone = row(batch, place)
        length, ids = len(alone["x0"]), torch.from_numpy(item["ids"])
        assert length % multiple == 0 and len(ids) <= length < len(ids) + extra + multiple
        assert torch.equal(alone["x0"][: len(ids)], ids) and bool((alone["x0"][len(ids) :] == PAD).all())
        assert alone["answer"].tolist() == [i >= item["prompt_length"] for i in range(length)]
        assert t / 2 <= float(alone["t"]) <= t * (1 + 1e-6)
    hidden = ~batch["visible"]
    assert bool((batch["x0"][hidden] == PAD).all()) and not bool(batch["answer"][hidden].any())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.permutations(range(6)))
def test_an_item_is_noised_alike_in_any_batch(start: int, cut: int, order: list[int]) -> None:
    these = items(6, start)
    whole = collate(these)
    shuffled = [these[i] for i in order]
    for part in (shuffled[:cut], shuffled[cut:]):
        batch = collate(part)
        for place, item in enumerate(part):
            expected, found = row(whole, item["position"] - start), row(batch, place)
            assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_item_is_noised_otherwise_when_it_comes_again() -> None:
    first, again = (collate(items(4, start), extra_pads=0) for start in (0, 4))
    assert torch.equal(first["x0"], again["x0"])
    assert not torch.equal(first["x_t"], again["x_t"]) and not torch.equal(first["t"], again["t"])


def test_t_and_masks_are_independent() -> None:
    """The official code draws both from generators of one seed, so that t decides about the first position."""
    draws, count = noise(t_low=0.0, t_high=1.0), 2000
    times = torch.cat([draws.uniform(1, TIMES, position) for position in range(count)])
    one_position = torch.tensor([True, True])
    masks = [draws.masks(one_position, 0.5, position) for position in range(count)]
    first = torch.stack([mask[0] for mask in masks]).double()
    correlation = float(torch.corrcoef(torch.stack([times.double(), first]))[0, 1])
    assert abs(correlation) < 4 / count**0.5


def test_positions_are_masked_with_probability_t() -> None:
    answer, count, t = torch.ones(40, dtype=torch.bool), 400, 0.3
    share = float(torch.stack([noise().masks(answer, t, position) for position in range(count)]).double().mean())
    assert abs(share - t) < 4 * (t * (1 - t) / (40 * count)) ** 0.5


def test_times_and_extra_pads_cover_their_ranges_evenly() -> None:
    one = items(1)[0]
    batches = [collate([{**one, "position": position}], extra_pads=3, multiple_of=1) for position in range(1200)]
    times = np.array([float(batch["t"]) for batch in batches])
    assert times.min() < 0.21 and times.max() > 0.79 and abs(times.mean() - 0.5) < 0.02
    extras = Counter(batch["x0"].shape[1] - len(one["ids"]) for batch in batches)
    assert sorted(extras) == [0, 1, 2, 3] and min(extras.values()) > 240


# The coin


def test_a_micro_batch_has_one_coin_on_every_process() -> None:
    collator = AnswerCollator(noise(), micro_batch=4, p_sm=0.5)
    for micro in range(20):
        these = items(4, 4 * micro)
        coins = {collator(part)["two_pass"] for part in (these, these[:2], these[2:])}
        assert coins == {collator.two_pass(micro)}


@pytest.mark.parametrize(("p_sm", "least", "most"), [(0.0, 0, 0), (0.8, 720, 880), (1.0, 1000, 1000)])
def test_forwards_count_the_coins(p_sm: float, least: int, most: int) -> None:
    collator = AnswerCollator(noise(), micro_batch=1, p_sm=p_sm)
    assert least <= collator.forwards(1000) - 1000 <= most


# Evaluation


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_evaluation_has_a_fixed_grid_of_times_and_the_same_masks_in_any_batch(batch_size: int) -> None:
    chats = ArrayChats(12)
    batches = evaluation_batches(chats, noise(), 10, batch_size)
    assert [len(batch["t"]) for batch in batches][:-1] == [batch_size] * (len(batches) - 1)
    times = torch.cat([batch["t"] for batch in batches])
    torch.testing.assert_close(times, torch.linspace(0.2, 0.8, 10))
    one_by_one = evaluation_batches(chats, noise(), 10, 1)
    rows = [row(batch, place) for batch in batches for place in range(len(batch["t"]))]
    for found, alone in zip(rows, one_by_one, strict=True):
        assert torch.equal(found["x_t"], row(alone, 0)["x_t"])
    assert all(batch["two_pass"] for batch in batches)


def test_evaluation_takes_what_chats_there_are() -> None:
    assert sum(len(batch["t"]) for batch in evaluation_batches(ArrayChats(4), noise(), 100, 3)) == 4
