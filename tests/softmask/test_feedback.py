"""The soft mask against its formula: limits, ranges, gradients, and sparse against dense mixing on extreme inputs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from softmask.diffusion import subs_log_probs
from softmask.feedback import (
    FullGuesses,
    Guesses,
    SoftMask,
    TopKGuesses,
    concatenate,
    negative_entropy,
    slerp,
    top_k_guesses,
)
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule

LOGITS = st.sampled_from([-1e4, -30.0, -1.0, 0.0, 0.5, 0.5, 2.0, 30.0, 1e4])
"""Ties and extremes are likely."""


def soft_mask(
    kind: FeedbackKind = FeedbackKind.TOP_K,
    k: int = 3,
    interpolation: Interpolation = Interpolation.LINEAR,
    **changes: float,
) -> SoftMask:
    settings = {"omega_s": 0.8, "omega_a": 2.0, "omega_b": -1.5, "temperature": 0.7, **changes}
    return SoftMask(**settings, kind=kind, interpolation=interpolation, k=k)


def set_lambda(module: SoftMask, lam: int) -> SoftMask:
    """Makes lambda exactly 0 or 1 whatever the guesses."""
    with torch.no_grad():
        module.raw_omega_s.fill_(math.inf if lam else -math.inf)
        module.raw_omega_a.fill_(1e6)
        module.raw_omega_b.fill_(1e6)
    return module


def rows_of_log_probs(m: int, v: int, seed: int = 0) -> Tensor:
    """`[m, v]` under SUBS, the mask being the last token."""
    logits = torch.randn(m, v, generator=torch.Generator().manual_seed(seed)) * 2
    return subs_log_probs(logits, v - 1)


def full(log_probs: Tensor, chunk: int = 4) -> FullGuesses:
    return FullGuesses(log_probs, lambda rows: rows, chunk)


def table(v: int, e: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(v, e, generator=torch.Generator().manual_seed(seed))


@st.composite
def extreme_rows(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Log-probabilities `[M, V]` with the mask at -inf, and k up to beyond the vocabulary."""
    v = draw(st.integers(2, 8))
    logits = draw(st.lists(st.lists(LOGITS, min_size=v, max_size=v), min_size=0, max_size=5))
    return subs_log_probs(torch.tensor(logits).reshape(-1, v), draw(st.integers(0, v - 1))), draw(st.integers(1, v + 2))


# Spherical interpolation


@given(
    angle=st.floats(0.05, math.pi - 0.05),
    lengths=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    share=st.floats(0, 1),
)
def test_the_arc_turns_by_the_share_of_the_angle(angle: float, lengths: tuple[float, float], share: float) -> None:
    start = torch.tensor([lengths[0], 0.0], dtype=torch.float64)
    end = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64) * lengths[1]
    x, y = slerp(start, end, torch.tensor([[share]], dtype=torch.float64))[0].tolist()
    assert math.atan2(y, x) == pytest.approx(share * angle, abs=1e-9)
    assert math.hypot(x, y) == pytest.approx((1 - share) * lengths[0] + share * lengths[1])


@pytest.mark.parametrize("times", [1.0, 2.0, -3.0])
def test_where_there_is_no_arc_it_is_a_line_with_finite_gradients(times: float) -> None:
    start = torch.tensor([0.6, 0.8], requires_grad=True)
    share = torch.tensor([[0.25]], requires_grad=True)
    made = slerp(start, times * start.detach()[None], share)
    torch.testing.assert_close(made, (0.75 + 0.25 * times) * start[None])
    made.sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (start, share))


@pytest.mark.parametrize("kind", FeedbackKind)
def test_spherical_mixing_follows_the_arc_from_the_mask_to_the_linear_mixture(kind: FeedbackKind) -> None:
    log_probs, embedding = rows_of_log_probs(6, 9), table(9)
    guesses: Guesses = full(log_probs) if kind is FeedbackKind.FULL else top_k_guesses(log_probs, 3)
    module = soft_mask(kind, interpolation=Interpolation.SPHERICAL)
    lam = module.lam_of(guesses)[:, None]
    linear = soft_mask(kind)(guesses, embedding, embedding[8])
    mixture = (linear - (1 - lam) * embedding[8]) / lam
    torch.testing.assert_close(module(guesses, embedding, embedding[8]), slerp(embedding[8], mixture, lam))


# Limits


@pytest.mark.parametrize("interpolation", Interpolation)
def test_a_closed_gate_of_either_interpolation_feeds_the_mask(interpolation: Interpolation) -> None:
    log_probs, embedding = rows_of_log_probs(6, 9), table(9)
    closed = set_lambda(soft_mask(interpolation=interpolation), 0)
    found = closed(top_k_guesses(log_probs, 3), embedding, embedding[8])
    torch.testing.assert_close(found, embedding[8].expand(6, -1))


@pytest.mark.parametrize("kind", FeedbackKind)
def test_at_lambda_zero_the_mask_embedding_stays_bit_for_bit(kind: FeedbackKind) -> None:
    log_probs, embedding = rows_of_log_probs(6, 9), table(9)
    guesses: Guesses = full(log_probs) if kind is FeedbackKind.FULL else top_k_guesses(log_probs, 3)
    expected = embedding[8].expand(6, -1)
    assert torch.equal(set_lambda(soft_mask(kind), 0)(guesses, embedding, embedding[8]), expected)
    assert torch.equal(soft_mask(kind)(guesses, embedding, embedding[8], 0.0), expected)


def test_at_lambda_one_and_k_one_the_argmax_embedding_is_fed_back() -> None:
    log_probs, embedding = rows_of_log_probs(20, 9), table(9)
    mixed = set_lambda(soft_mask(k=1), 1)(top_k_guesses(log_probs, 1), embedding, embedding[8])
    assert torch.equal(mixed, embedding[log_probs.argmax(-1)])


@pytest.mark.parametrize("schedule", OmegaSchedule)
def test_every_schedule_leaves_omega_s_whole_while_all_is_masked(schedule: OmegaSchedule) -> None:
    assert schedule.factor(torch.ones(2, 1)).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("schedule", "fraction", "factor"),
    [
        (OmegaSchedule.CONSTANT, 0.0, 1.0),
        (OmegaSchedule.LINEAR, 0.0, 0.0),
        (OmegaSchedule.LINEAR, 0.25, 0.25),
        (OmegaSchedule.STEPWISE, 0.0, 0.0),
        (OmegaSchedule.STEPWISE, 0.5, 0.0),
        (OmegaSchedule.STEPWISE, 0.5001, 1.0),
    ],
)
def test_schedules_at_their_boundaries(schedule: OmegaSchedule, fraction: float, factor: float) -> None:
    assert schedule.factor(torch.tensor(fraction)).item() == factor


def test_a_schedules_factor_scales_lambda_row_by_row() -> None:
    module, neg_entropy = soft_mask(), torch.tensor([-0.1, -1.0, -3.0])
    factors = torch.tensor([0.0, 0.5, 1.0])
    assert torch.allclose(module.lam(neg_entropy, factors), factors * module.lam(neg_entropy))


# The formula


def test_lambda_is_the_papers_formula() -> None:
    module = soft_mask(omega_s=0.6, omega_a=3.0, omega_b=-0.75)
    expected = [0.6 / (1 + math.exp(-3.0 * (neg_entropy + 0.75))) for neg_entropy in (0.0, -0.75, -4.0)]
    assert module.lam(torch.tensor([0.0, -0.75, -4.0])).tolist() == pytest.approx(expected, rel=1e-5)
    assert module.lam(torch.tensor(-0.75)).item() == pytest.approx(0.3, rel=1e-5)  # half open at omega_b


def test_entropy_is_in_nats_over_the_whole_vocabulary() -> None:
    assert negative_entropy(torch.full((1, 50), -math.log(50))).item() == pytest.approx(-math.log(50), rel=1e-5)
    assert negative_entropy(torch.tensor([[0.0, -math.inf, -math.inf]])).item() == pytest.approx(0.0, abs=1e-8)
    halves = torch.tensor([[math.log(0.5), -math.inf, math.log(0.5)]])
    assert top_k_guesses(halves, 1).neg_entropy.item() == pytest.approx(-math.log(2), rel=1e-5)


@given(extreme_rows())
def test_the_guesses_are_the_likeliest_tokens_and_their_weights_sum_to_one(case: tuple[Tensor, int]) -> None:
    log_probs, k = case
    guesses = top_k_guesses(log_probs, k)
    v = log_probs.shape[-1]
    assert guesses.indices.shape == (len(log_probs), min(k, v))
    assert torch.equal(log_probs.gather(-1, guesses.indices), guesses.log_probs)
    assert torch.equal(guesses.log_probs, log_probs.sort(-1, descending=True).values[:, :k])
    assert all(len(set(row)) == min(k, v) for row in guesses.indices.tolist())
    ones, zero = torch.ones(v, 1), torch.zeros(1)
    weights = set_lambda(soft_mask(), 1)(guesses, ones, zero)  # embeddings of 1: the mixture is the weights' sum
    torch.testing.assert_close(weights, torch.ones(len(log_probs), 1))


@given(extreme_rows(), st.integers(0, 3))
def test_sparse_mixing_equals_dense_mixing(case: tuple[Tensor, int], seed: int) -> None:
    (log_probs, k), v = case, case[0].shape[-1]
    module, embedding = soft_mask(), table(v, seed=seed)
    guesses = top_k_guesses(log_probs, k)
    p = log_probs.double().exp()
    kept = torch.zeros_like(p).scatter_(-1, guesses.indices, p.gather(-1, guesses.indices))
    dense = kept / kept.sum(-1, keepdim=True) @ embedding.double()
    entropy = -torch.special.xlogy(p, p).sum(-1)
    values = module.omegas()
    lam = values["omega_s"] * torch.sigmoid(values["omega_a"] * (-entropy - values["omega_b"])).unsqueeze(-1)
    expected = (1 - lam) * embedding[-1].double() + lam * dense
    torch.testing.assert_close(module(guesses, embedding, embedding[-1]).double(), expected, atol=2e-5, rtol=0)


@given(extreme_rows(), st.integers(1, 6))
def test_full_feedback_is_the_tempered_distribution(case: tuple[Tensor, int], chunk: int) -> None:
    log_probs, v = case[0], case[0].shape[-1]
    module, embedding = soft_mask(FeedbackKind.FULL, temperature=0.6), table(v)
    p = torch.softmax(log_probs.double() / module.omegas()["temperature"], -1)
    values, entropy = module.omegas(), -torch.special.xlogy(p, p).sum(-1)
    lam = values["omega_s"] * torch.sigmoid(values["omega_a"] * (-entropy - values["omega_b"])).unsqueeze(-1)
    expected = (1 - lam) * embedding[-1].double() + lam * (p @ embedding.double())
    mixed = module(full(log_probs, chunk), embedding, embedding[-1])
    torch.testing.assert_close(mixed.double(), expected, atol=2e-5, rtol=0)
    if len(log_probs):
        torch.testing.assert_close(module.lam_of(full(log_probs, chunk)).double(), lam.squeeze(-1), atol=1e-5, rtol=0)


def test_full_feedback_at_temperature_one_equals_top_k_of_the_whole_vocabulary() -> None:
    log_probs, embedding = rows_of_log_probs(7, 9), table(9)
    whole = soft_mask(FeedbackKind.FULL, temperature=1.0)(full(log_probs), embedding, embedding[8])
    top = soft_mask(FeedbackKind.TOP_K, k=9)(top_k_guesses(log_probs, 9), embedding, embedding[8])
    torch.testing.assert_close(whole, top)


def test_guesses_can_be_cut_and_joined() -> None:
    log_probs = rows_of_log_probs(7, 9)
    whole = top_k_guesses(log_probs, 3)
    joined = concatenate([top_k_guesses(log_probs[:2], 3), whole[2:5], whole[torch.arange(7) >= 5]])
    for name in ("neg_entropy", "log_probs", "indices"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert torch.equal(full(log_probs)[3:].hidden, log_probs[3:])


# Parameters and gradients


@given(st.floats(-1e4, 1e4, width=32))
def test_the_constrained_values_stay_in_their_ranges(raw: float) -> None:
    module = soft_mask(FeedbackKind.FULL)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(raw)
    values = module.omegas()
    assert 0 <= values["omega_s"] <= 1
    assert values["omega_a"] > 0 and values["omega_b"] < 0 and values["temperature"] > 0


@given(st.floats(1e-4, 1 - 1e-4), st.floats(1e-3, 200.0), st.floats(-200.0, -1e-3), st.floats(1e-3, 50.0))
def test_the_initial_values_are_the_ones_asked_for(s: float, a: float, b: float, temperature: float) -> None:
    values = soft_mask(omega_s=s, omega_a=a, omega_b=b, temperature=temperature).omegas()
    expected = {"omega_s": s, "omega_a": a, "omega_b": b, "temperature": temperature}
    assert values == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("asked", "got"), [(0.0, 1e-6), (1.0, 1 - 1e-6)])
def test_omega_s_of_zero_or_one_starts_just_inside(asked: float, got: float) -> None:
    assert soft_mask(omega_s=asked).omegas()["omega_s"] == pytest.approx(got, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("kind", FeedbackKind)
def test_gradients_reach_every_omega(kind: FeedbackKind) -> None:
    module, embedding = soft_mask(kind), table(9).requires_grad_()
    log_probs = rows_of_log_probs(6, 9)  # with -inf at the mask, as SUBS has it
    guesses: Guesses = full(log_probs) if kind is FeedbackKind.FULL else top_k_guesses(log_probs, 3)
    (module(guesses, embedding, embedding[8]) * table(6, seed=2)).sum().backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    temperature = {"raw_temperature"} if kind is FeedbackKind.FULL else set()
    assert trained == {"raw_omega_s", "raw_omega_a", "raw_omega_b"} | temperature
    for name, parameter in module.named_parameters():
        if name in trained:
            assert parameter.grad is not None and torch.isfinite(parameter.grad) and parameter.grad != 0, name
    assert embedding.grad is not None and bool(torch.isfinite(embedding.grad).all())


@given(extreme_rows())
def test_gradients_are_finite_on_extreme_guesses(case: tuple[Tensor, int]) -> None:
    log_probs, k = case
    embedding = table(log_probs.shape[-1])
    for kind in FeedbackKind:
        module = soft_mask(kind, k)
        guesses: Guesses = full(log_probs) if kind is FeedbackKind.FULL else top_k_guesses(log_probs, k)
        (module(guesses, embedding, embedding[-1]).sum() + 0 * module.raw_omega_s).backward()
        grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        assert grads and all(torch.isfinite(grad) for grad in grads)


def test_the_temperatures_gradient_is_the_slope() -> None:
    log_probs, embedding = rows_of_log_probs(6, 9), table(9).double()

    def value(raw: float) -> tuple[SoftMask, Tensor]:
        module = soft_mask(FeedbackKind.FULL).double()
        with torch.no_grad():
            module.raw_temperature.fill_(raw)
        return module, module(full(log_probs.double()), embedding, embedding[8]).pow(2).sum()

    module, loss = value(0.3)
    loss.backward()
    assert module.raw_temperature.grad is not None
    slope = (value(0.3 + 1e-5)[1] - value(0.3 - 1e-5)[1]).item() / 2e-5
    assert module.raw_temperature.grad.item() == pytest.approx(slope, rel=1e-5)


def test_the_feedback_is_stop_gradient() -> None:
    log_probs = rows_of_log_probs(4, 9).requires_grad_()
    guesses = top_k_guesses(log_probs, 2)
    assert isinstance(guesses, TopKGuesses)
    assert not guesses.log_probs.requires_grad and not guesses.neg_entropy.requires_grad


def test_the_chunk_size_of_full_feedback_changes_nothing() -> None:
    log_probs, embedding, results = rows_of_log_probs(11, 9), table(9), []
    factors = torch.linspace(0, 1, 11)
    for chunk in (1, 4, 100):
        module = soft_mask(FeedbackKind.FULL)
        mixed = module(full(log_probs, chunk), embedding, embedding[8], factors)
        mixed.pow(2).sum().backward()
        results.append([mixed, *[parameter.grad for parameter in module.parameters()]])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])
