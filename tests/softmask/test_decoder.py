"""What generation feeds back, when it makes forwards, and how it draws tokens, seen through an instrumented model."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.decoding.decoder import DecodingSettings, Generated, StepView, generate, times
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.sampling import CANDIDATES, gumbel_argmax, nucleus, sample_tokens
from softmask.decoding.transitions import RemdmSettings
from softmask.diffusion import subs_log_probs
from softmask.feedback import FullGuesses, Guesses, TopKGuesses, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, OmegaSchedule
from tests.softmask.tiny import MASK, close_gate, soft_mask_settings, tiny_mdlm

LENGTH = 6
SAMPLERS = pytest.mark.parametrize("sampler", Sampler)
KINDS = pytest.mark.parametrize("kind", FeedbackKind)


def decoding(sampler: Sampler = Sampler.MDLM, nfe: int = 12, **changes: Any) -> DecodingSettings:
    settings: dict[str, Any] = {
        "nucleus_p": 0.9,
        "temperature": 1.0,
        "refresh": Refresh.ON_CHANGE,
        "remask_feedback": RemaskFeedback.PREVIOUS_TOKEN,
        "omega_schedule": OmegaSchedule.CONSTANT,
        "feedback_from": 0.0,
        "feedback_until": 1.0,
        "remdm": RemdmSettings(eta=0.1, t_on=0.55, t_off=0.05, alpha_on=0.9),
        "final_t": 1e-5,
        "final_argmax": True,
        "head_chunk": 5,
    }
    return DecodingSettings(sampler=sampler, nfe=nfe, **{**settings, **changes})


@dataclass(frozen=True)
class Forward:
    """One call of `model.hidden`; what it gave is at the masks of `hidden` `[B, L, H]`."""

    x: Tensor
    guesses: Guesses | None
    factor: Tensor | float
    hidden: Tensor


def instrument(model: Mdlm, monkeypatch: pytest.MonkeyPatch) -> list[Forward]:
    """Notes every forward of `model` from now on."""
    forwards: list[Forward] = []
    plain = model.hidden

    def hidden(x: Tensor, guesses: Guesses | None = None, factor: Tensor | float = 1.0) -> Tensor:
        out = plain(x, guesses, factor)
        placed = out.new_zeros(*x.shape, out.shape[-1])
        placed[x == MASK] = out
        forwards.append(Forward(x.clone(), guesses, factor, placed))
        return out

    monkeypatch.setattr(model, "hidden", hidden)
    return forwards


def run(model: Mdlm, settings: DecodingSettings, batch: int = 1, seed: int = 0) -> tuple[Generated, list[StepView]]:
    views: list[StepView] = []
    made = generate(model, settings, batch, LENGTH, torch.Generator().manual_seed(seed), views.append)
    return made, views


def own_guesses(model: Mdlm, forward: Forward, where: Tensor) -> TopKGuesses:
    """The guesses that a forward leaves for the positions `where` `[B, L]`, from all logits at once."""
    with torch.no_grad():
        log_probs = subs_log_probs(model.backbone.head(forward.hidden), MASK)
    assert model.soft_mask is not None
    return top_k_guesses(log_probs[where], model.soft_mask.k)


def assert_same(ours: Guesses | None, expected: TopKGuesses) -> None:
    assert isinstance(ours, TopKGuesses)
    assert torch.equal(ours.indices, expected.indices)
    torch.testing.assert_close(ours.log_probs, expected.log_probs)
    torch.testing.assert_close(ours.neg_entropy, expected.neg_entropy)


# What is fed back


@pytest.mark.parametrize("refresh", Refresh)
@pytest.mark.parametrize("seed", range(3))
def test_carried_feedback_is_the_previous_steps_distribution_of_that_position(
    refresh: Refresh, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_mdlm(soft_mask_settings(), seed=seed)
    forwards = instrument(model, monkeypatch)
    batch = 3 if refresh is Refresh.ALWAYS else 1  # on_change forwards only some rows of a batch
    run(model, decoding(nfe=30, refresh=refresh, final_argmax=False), batch, seed)
    assert len(forwards) > 3
    assert forwards[0].guesses is None  # the first step is a plain pass on all masks
    for previous, forward in itertools.pairwise(forwards):
        assert_same(forward.guesses, own_guesses(model, previous, forward.x == MASK))
        assert torch.equal(torch.as_tensor(forward.factor), torch.ones(int((forward.x == MASK).sum())))


def test_carried_feedback_of_a_batch_is_each_sequences_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(nfe=20), batch=4)
    assert len({len(forward.x) for forward in forwards}) > 1  # some forwards are of a part of the batch
    seen = 0
    for number, forward in enumerate(forwards[1:], start=1):
        for row, fed, factor in rows_fed(forward):
            if (row == MASK).all():  # a sequence's first forward, while others have made theirs
                assert not factor.any()
                continue
            # this sequence's previous forward is among those whose tokens it only adds to
            earlier = [f for f in forwards[:number] if bool(((f.x == row) | (f.x == MASK)).all(1).any())]
            own = [
                own_guesses(model, f, ((f.x == row) | (f.x == MASK)).all(1)[:, None] & (row == MASK)) for f in earlier
            ]
            assert any(guess_is_among(fed, guesses) for guesses in own)
            assert bool((factor == 1).all())
            seen += len(fed.indices)
    assert seen > 10


def rows_fed(forward: Forward) -> Iterator[tuple[Tensor, TopKGuesses, Tensor]]:
    """Each sequence's tokens, the guesses that it was fed and omega_s's factors."""
    assert isinstance(forward.guesses, TopKGuesses)
    first = 0
    for row in forward.x:
        part = slice(first, first + int((row == MASK).sum()))
        first = part.stop
        yield row, forward.guesses[part], torch.as_tensor(forward.factor)[part]


def guess_is_among(fed: TopKGuesses, candidates: TopKGuesses) -> bool:
    """Whether `fed` are one sequence's guesses; `candidates` are of one or more sequences, one after the other."""
    masks = len(fed.indices)
    parts = zip(candidates.indices.split(masks), candidates.log_probs.split(masks), strict=True)
    return masks == 0 or any(
        torch.equal(fed.indices, i) and torch.allclose(fed.log_probs, p, atol=1e-5) for i, p in parts
    )


def test_the_nucleus_does_not_touch_the_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(nucleus_p=0.2, final_argmax=False))
    for previous, forward in itertools.pairwise(forwards):
        assert isinstance(forward.guesses, TopKGuesses)
        assert bool((forward.guesses.log_probs[:, 1] > -20).all())  # filtered guesses would be -inf
        assert_same(forward.guesses, own_guesses(model, previous, forward.x == MASK))


def test_full_feedback_carries_the_previous_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings(FeedbackKind.FULL))
    forwards = instrument(model, monkeypatch)
    run(model, decoding(final_argmax=False))
    assert forwards[0].guesses is None and len(forwards) > 3
    for previous, forward in itertools.pairwise(forwards):
        assert isinstance(forward.guesses, FullGuesses)
        assert torch.equal(forward.guesses.hidden, previous.hidden[forward.x == MASK])


def test_two_passes_feed_the_second_with_the_first_of_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(Sampler.MDLM_TWO_PASS, nfe=20), batch=4)
    assert len(forwards) % 2 == 0 and len(forwards) > 6
    for first, second in zip(forwards[::2], forwards[1::2], strict=True):
        assert first.guesses is None
        assert torch.equal(first.x, second.x)
        assert_same(second.guesses, own_guesses(model, first, first.x == MASK))


@pytest.mark.parametrize("feedback", RemaskFeedback)
@KINDS
def test_a_position_masked_again_gets_what_remask_feedback_says(
    kind: FeedbackKind, feedback: RemaskFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_mdlm(soft_mask_settings(kind))
    forwards = instrument(model, monkeypatch)
    settings = decoding(
        Sampler.REMDM_CAP, 30, remask_feedback=feedback, remdm=RemdmSettings(0.3, 0.5, 0.1, 0.9), final_argmax=False
    )
    run(model, settings)
    seen = 0
    for previous, forward in itertools.pairwise(forwards):
        masked = forward.x == MASK
        again = (masked & (previous.x != MASK))[masked]
        fed = 0.0 if forward.guesses is None else forward.factor  # None: a plain pass
        factor = torch.as_tensor(fed).expand(int(masked.sum()))
        seen += int(again.sum())
        if feedback is RemaskFeedback.PREVIOUS_TOKEN and isinstance(forward.guesses, TopKGuesses):
            tokens = previous.x[masked][again]
            assert torch.equal(forward.guesses.indices[again], tokens[:, None].expand(-1, 3))
            assert not forward.guesses.neg_entropy[again].any() and bool((factor == 1).all())
        else:  # full feedback has no form for a certain token: the plain mask
            assert torch.equal(factor == 0, again)
    assert seen > 5


def test_a_remasked_position_is_fed_its_token_and_the_others_their_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(Sampler.REMDM_CAP, 30, remdm=RemdmSettings(0.3, 0.5, 0.1, 0.9), final_argmax=False))
    for previous, forward in itertools.pairwise(forwards):
        masked = forward.x == MASK
        stayed = (previous.x == MASK)[masked]
        assert isinstance(forward.guesses, TopKGuesses)
        assert_same(forward.guesses[stayed], own_guesses(model, previous, masked & (previous.x == MASK)))


@pytest.mark.parametrize("schedule", OmegaSchedule)
def test_the_schedule_follows_the_masked_fraction(schedule: OmegaSchedule, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(refresh=Refresh.ALWAYS, omega_schedule=schedule, final_argmax=False), batch=3)
    for forward in forwards[1:]:
        masked = forward.x == MASK
        expected = schedule.factor(masked.float().mean(1, keepdim=True)).expand_as(masked)[masked]
        assert torch.equal(torch.as_tensor(forward.factor), expected)


@SAMPLERS
@KINDS
def test_with_omega_s_at_zero_the_tokens_are_the_binary_models(sampler: Sampler, kind: FeedbackKind) -> None:
    settings = decoding(sampler, 20, nucleus_p=1.0)
    binary, _ = run(tiny_mdlm(), settings, batch=8)
    closed, _ = run(close_gate(tiny_mdlm(soft_mask_settings(kind))), settings, batch=8)
    opened, _ = run(tiny_mdlm(soft_mask_settings(kind)), settings, batch=8)
    assert torch.equal(closed.tokens, binary.tokens)
    assert not torch.equal(opened.tokens, binary.tokens)


@pytest.mark.parametrize("kind", FeedbackKind)
@pytest.mark.parametrize(("first", "last"), [(0.0, 0.5), (0.5, 1.0), (0.25, 0.75)])
def test_only_the_steps_of_the_window_are_fed(
    first: float, last: float, kind: FeedbackKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, nfe = tiny_mdlm(soft_mask_settings(kind)), 12
    settings = decoding(nfe=nfe, refresh=Refresh.ALWAYS, feedback_from=first, feedback_until=last)
    forwards = instrument(model, monkeypatch)
    run(model, settings, batch=2)
    inside = [first <= step / nfe < last for step in range(nfe)]
    inside[0] = False  # there is nothing to feed back yet
    assert [forward.guesses is not None for forward in forwards][:nfe] == inside


def test_without_feedback_at_any_step_the_tokens_and_the_head_rows_are_the_binary_models() -> None:
    made = [
        run(model, decoding(nfe=10, feedback_until=0.1), batch=3)[0]
        for model in (tiny_mdlm(soft_mask_settings()), tiny_mdlm())
    ]
    assert torch.equal(made[0].tokens, made[1].tokens) and made[0].head_rows == made[1].head_rows


def test_the_temperature_is_of_the_drawn_tokens_and_not_of_the_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    run(model, decoding(nfe=20, temperature=0.2, refresh=Refresh.ALWAYS, final_argmax=False), batch=2)
    for previous, forward in itertools.pairwise(forwards):
        assert_same(forward.guesses, own_guesses(model, previous, forward.x == MASK))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_tokens_are_drawn_from_the_tempered_distribution(temperature: float) -> None:
    probs = torch.tensor([0.6, 0.3, 0.1])
    draws = sample_tokens(probs.log().expand(20_000, 3), 1.0, temperature, torch.Generator().manual_seed(0))
    tempered = probs ** (1 / temperature)
    found = draws.bincount(minlength=3) / len(draws)
    torch.testing.assert_close(found, tempered / tempered.sum(), atol=0.01, rtol=0)


def test_two_passes_of_a_binary_model_are_ancestral_sampling() -> None:
    model = tiny_mdlm()
    once, _ = run(model, decoding(Sampler.MDLM), batch=8)
    twice, _ = run(model, decoding(Sampler.MDLM_TWO_PASS), batch=8)
    assert torch.equal(once.tokens, twice.tokens) and torch.equal(once.forwards, twice.forwards)


# When forwards are made


def states_used(views: list[StepView], row: int, sampler: Sampler) -> int:
    """Distinct consecutive states from which a distribution is needed: by remasking samplers at every step, by
    ancestral ones at the steps that unmask; and by the final argmax where masks are left."""
    before = [torch.full((LENGTH,), MASK), *[view.tokens[row] for view in views[:-1]]]
    steps, final = views[:-1], views[-1]
    used: list[Tensor] = []
    for state, view in zip(before, steps, strict=False):
        if sampler.remasks or bool(view.unmasked[row].any()):
            used.append(state)
    if bool(final.unmasked[row].any()):
        used.append(before[-1])
    return sum(i == 0 or not torch.equal(state, used[i - 1]) for i, state in enumerate(used))


@SAMPLERS
@pytest.mark.parametrize("soft", [False, True])
def test_on_change_makes_one_forward_for_each_distinct_state(
    sampler: Sampler, soft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_mdlm(soft_mask_settings() if soft else None)
    forwards = instrument(model, monkeypatch)
    made, views = run(model, decoding(sampler, 25), batch=6)
    passes = 2 if soft and sampler is Sampler.MDLM_TWO_PASS else 1
    assert made.forwards.tolist() == [passes * states_used(views, row, sampler) for row in range(6)]
    assert int(made.forwards.sum()) == sum(len(forward.x) for forward in forwards)
    assert int(made.forwards.max()) < 25 * passes


@SAMPLERS
def test_always_makes_one_forward_each_step(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm(soft_mask_settings())
    forwards = instrument(model, monkeypatch)
    made, views = run(model, decoding(sampler, 9, refresh=Refresh.ALWAYS), batch=4)
    passes = 2 if sampler is Sampler.MDLM_TWO_PASS else 1
    changed = (views[-2].tokens != views[-3].tokens).any(1)
    final = (views[-1].unmasked.any(1) & changed).long()
    assert torch.equal(made.forwards, passes * (9 + final))
    assert int(made.forwards.sum()) == sum(len(forward.x) for forward in forwards)


def test_a_binary_models_head_sees_only_what_unmasks() -> None:
    made, _ = run(tiny_mdlm(), decoding(), batch=5)
    assert made.head_rows == 5 * LENGTH


@KINDS
def test_a_soft_masked_models_head_sees_no_position_that_is_unmasked(kind: FeedbackKind) -> None:
    model, rows = tiny_mdlm(soft_mask_settings(kind)), 0

    def observe(view: StepView) -> None:
        nonlocal rows
        rows += int(((view.tokens == MASK) | view.unmasked).sum())

    made = generate(model, decoding(refresh=Refresh.ALWAYS), 5, LENGTH, torch.Generator().manual_seed(0), observe)
    assert made.head_rows <= rows < 12 * 5 * LENGTH


# Tokens


@SAMPLERS
@KINDS
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_head_chunk_changes_no_token(sampler: Sampler, kind: FeedbackKind, chunk: int) -> None:
    model = tiny_mdlm(soft_mask_settings(kind))
    expected, _ = run(model, decoding(sampler), batch=4)
    made, _ = run(model, decoding(sampler, head_chunk=chunk), batch=4)
    assert torch.equal(made.tokens, expected.tokens) and torch.equal(made.forwards, expected.forwards)


@SAMPLERS
def test_the_same_generator_gives_the_same_tokens_and_no_mask_is_left(sampler: Sampler) -> None:
    model = tiny_mdlm(soft_mask_settings())
    first, _ = run(model, decoding(sampler, 3), batch=8, seed=1)
    again, _ = run(model, decoding(sampler, 3), batch=8, seed=1)
    other, _ = run(model, decoding(sampler, 3), batch=8, seed=2)
    assert torch.equal(first.tokens, again.tokens) and not torch.equal(first.tokens, other.tokens)
    assert not (first.tokens == MASK).any()


def test_the_final_argmax_takes_the_likeliest_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mdlm()
    forwards = instrument(model, monkeypatch)
    made, views = run(model, decoding(nfe=4, final_t=0.6), batch=4)
    left = views[-2].tokens == MASK
    assert bool(left.any())
    with torch.no_grad():
        log_probs = subs_log_probs(model.backbone.head(model.hidden(views[-2].tokens)), MASK)
    assert torch.equal(made.tokens, views[-2].tokens.masked_scatter(left, log_probs.argmax(-1)))
    without, _ = run(model, decoding(nfe=4, final_t=0.6, final_argmax=False), batch=4)
    assert torch.equal(without.tokens, views[-2].tokens)
    assert forwards


def test_the_observer_sees_the_feedback_of_every_mask() -> None:
    model = tiny_mdlm(soft_mask_settings())
    _, views = run(model, decoding(Sampler.REMDM_CAP), batch=3)
    for view in views:
        masks = int((view.tokens == MASK).sum())
        assert (view.guesses is None) == (masks == 0)
        if isinstance(view.guesses, TopKGuesses) and view.lam is not None and model.soft_mask is not None:
            assert len(view.guesses.neg_entropy) == masks
            torch.testing.assert_close(view.lam, model.soft_mask.lam(view.guesses.neg_entropy).detach())
    _, views = run(tiny_mdlm(), decoding(), batch=3)
    assert all(view.guesses is None and view.lam is None for view in views)


def test_times_run_evenly_from_one_to_the_final_time() -> None:
    steps = list(times(4, 0.2))
    assert [t for t, _ in steps] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert all(dt == pytest.approx(0.2) for _, dt in steps)


# Drawing


def dense_nucleus(probs: Tensor, p: float) -> Tensor:
    kept, indices = nucleus(probs, p)
    return torch.zeros_like(probs).scatter(-1, indices, kept)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 3.0, 10.0], ids=["flat", "wide", "narrow", "sharp"])
def test_the_nucleus_of_a_large_vocabulary_is_that_of_all_tokens_sorted(sharpness: float) -> None:
    logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probs = torch.softmax(sharpness * logits, -1)
    ordered, indices = probs.sort(-1, descending=True)
    inside = ordered.cumsum(-1) <= 0.9
    inside[:, 0] = True
    expected = torch.zeros_like(probs).scatter(-1, indices, ordered * inside)
    found = dense_nucleus(probs, 0.9)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected / expected.sum(-1, keepdim=True))
    assert (int(inside.sum(-1).max()) > CANDIDATES) == (sharpness < 3)  # both ways are tried


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 99), st.sampled_from([0.05, 0.5, 0.9, 1.0]))
def test_the_nucleus_keeps_the_likeliest_tokens_up_to_p(m: int, v: int, seed: int, p: float) -> None:
    probs = torch.softmax(3 * torch.randn(m, v, generator=torch.Generator().manual_seed(seed)), -1)
    kept = dense_nucleus(probs, p)
    torch.testing.assert_close(kept.sum(-1), torch.ones(m))
    for before, after in zip(probs.tolist(), kept.tolist(), strict=True):
        inside = [a for a, b in zip(before, after, strict=True) if b > 0]
        outside = [a for a, b in zip(before, after, strict=True) if b == 0]
        assert min(inside) >= max(outside, default=0.0)
        assert len(inside) == 1 or sum(inside) <= p + 1e-5
        assert p >= 1 or sum(inside) + max(outside, default=1.0) > p - 1e-5  # one more would be too many


def test_an_impossible_token_is_never_drawn() -> None:
    weights = torch.tensor([[0.0, 1e-30, 0.0], [1.0, 0.0, 1.0]]).expand(5000, 2, 3)
    uniform = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = gumbel_argmax(weights, uniform)
    assert drawn[:, 0].unique().tolist() == [1] and drawn[:, 1].unique().tolist() == [0, 2]


def test_rare_tokens_are_drawn_as_often_as_they_should_be() -> None:
    p, n = 1e-3, 200_000
    log_probs = torch.tensor([1 - p, p]).log().expand(n, 2)
    hits = int(sample_tokens(log_probs, 1.0, 1.0, torch.Generator().manual_seed(0)).sum())
    assert abs(hits - n * p) < 4 * (n * p) ** 0.5


def test_tokens_are_drawn_with_float64_noise() -> None:
    log_probs = torch.log_softmax(torch.randn(500, 7, generator=torch.Generator().manual_seed(1)), -1)
    noise = torch.rand(500, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = gumbel_argmax(dense_nucleus(log_probs.exp(), 0.9), noise)
    assert torch.equal(sample_tokens(log_probs, 0.9, 1.0, torch.Generator().manual_seed(2)), expected)
