"""The ELBO: Monte Carlo as the evaluation draws it against the exact sum over all maskings of tiny sequences.

With q = 1 - alpha_t = (1 - noise_eps) t, a given set of m of L positions is masked with probability
q^m (1 - q)^(L - m), and the loss weighs it with 1 / t. Over t ~ U(sampling_eps, 1) that integrates to an incomplete
beta function; with both eps at 0 it is Beta(m, L - m + 1).
"""

import itertools

import pytest
import torch
from scipy import special
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.diffusion import LogLinear
from softmask.evaluation.noise import EvaluationNoise
from softmask.evaluation.perplexity import batch_nll, sum_by_unit
from softmask.feedback_kinds import FeedbackKind
from softmask.training.elbo import BinaryObjective
from softmask.training.masking import MaskingCollator
from softmask.training.soft_mask_objective import SoftMaskObjective
from tests.softmask.tiny import soft_mask_settings, tiny_mdlm

V, LENGTH, MASK = 4, 5, 3
NOISE_EPS, SAMPLING_EPS = 1e-2, 2e-2
COPIES, DRAWS = 64, 40
X0 = torch.tensor([[0, 0, 1, 2, 2], [2, 1, 0, 1, 2], [1, 1, 1, 1, 1], [0, 2, 0, 2, 0]])
NOISE = LogLinear(NOISE_EPS)


def model_of(kind: FeedbackKind | None) -> Mdlm:
    settings = None if kind is None else soft_mask_settings(kind, k=2, omega_s=0.9, omega_b=-1.0)
    return tiny_mdlm(settings, vocab_size=V, seed=5)


def masking_weight(m: int) -> float:
    """The expectation over t of the probability of one given set of m masks, times 1 / t."""
    a, b = m, LENGTH - m + 1
    low, high = (1 - NOISE_EPS) * SAMPLING_EPS, 1 - NOISE_EPS
    mass = special.beta(a, b) * (special.betainc(a, b, high) - special.betainc(a, b, low))
    return float(mass / (1 - SAMPLING_EPS))


def log_probs_by_hand(model: Mdlm, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """`[B, L, V - 1]` log-probabilities of the real tokens after one and after two passes, written out densely."""
    table, backbone = model.backbone.vocab_embed.embedding, model.backbone
    first = torch.log_softmax(backbone.head(backbone.trunk(table[x_t]))[..., :MASK], -1)
    if model.soft_mask is None:
        return first, first
    values = model.soft_mask.omegas()
    if model.soft_mask.kind is FeedbackKind.FULL:
        p = torch.softmax(first / values["temperature"], -1)
        pi = p
    else:
        p = first.exp()
        pi = torch.where(p >= p.topk(model.soft_mask.k).values[..., -1:], p, 0.0)
        pi = pi / pi.sum(-1, keepdim=True)
    gate = torch.sigmoid(values["omega_a"] * ((p * p.log()).sum(-1, keepdim=True) - values["omega_b"]))
    lam = values["omega_s"] * gate
    mixed = (1 - lam) * table[MASK] + lam * (pi @ table[:MASK])
    embeddings = torch.where((x_t == MASK)[..., None], mixed, table[x_t])
    return first, torch.log_softmax(backbone.head(backbone.trunk(embeddings))[..., :MASK], -1)


@torch.no_grad()
def exact_elbo(model: Mdlm) -> tuple[Tensor, Tensor]:
    """The exact expected NLL in nats of each sequence of X0, one and two passes, each `[4]`."""
    totals = torch.zeros(2, len(X0), dtype=torch.float64)
    for pattern in itertools.product([False, True], repeat=LENGTH):
        if any(pattern):
            masked = torch.tensor(pattern)
            for total, log_p in zip(totals, log_probs_by_hand(model, torch.where(masked, MASK, X0)), strict=True):
                nll = -log_p.gather(-1, X0[..., None]).squeeze(-1)
                total += masking_weight(sum(pattern)) * nll[:, masked].sum(-1)
    return totals[0], totals[1]


def noise_of(rows: int) -> EvaluationNoise:
    return EvaluationNoise(seed=3, rows=rows, noise=NOISE, sampling_eps=SAMPLING_EPS, mask_token_id=MASK)


def monte_carlo(model: Mdlm) -> tuple[Tensor, Tensor]:
    """Estimates of the mean of each sequence's NLL over its copies, of one and of two passes, each `[DRAWS, 4]`."""
    x0 = X0.repeat(COPIES, 1)
    noise, units = noise_of(len(x0)), (torch.arange(len(x0)) % len(X0))[:, None].expand_as(x0)
    once, twice = [], []
    for draw in range(DRAWS):
        t = noise.t(draw)
        x_t = noise.x_t(draw, 0, x0, t)
        nll, masked = batch_nll(model, x0, x_t, head_chunk=100), x_t == MASK
        w = NOISE.nll_weight(t)
        once.append(sum_by_unit(nll.binary, w, masked, units, len(X0)) / COPIES)
        second = nll.binary if nll.two_pass is None else nll.two_pass
        twice.append(sum_by_unit(second, w, masked, units, len(X0)) / COPIES)
    return torch.stack(once), torch.stack(twice)


def z_scores(estimates: Tensor, exact: Tensor) -> Tensor:
    """Distance from the exact values in standard errors, per sequence and for their mean."""
    estimates = torch.cat([estimates, estimates.mean(1, keepdim=True)], 1)
    exact = torch.cat([exact, exact.mean()[None]])
    error = estimates.std(0) / DRAWS**0.5
    assert bool((error / exact < 0.02).all()), "the test is too coarse to tell anything"
    scores: Tensor = (estimates.mean(0) - exact) / error
    return scores


def test_without_eps_the_weight_of_a_masking_is_the_beta_function() -> None:
    steps = 20_000
    t = SAMPLING_EPS + (1 - SAMPLING_EPS) * (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    q = 1 - NOISE.alpha(t)
    for m in range(1, LENGTH + 1):
        numeric = (q**m * (1 - q) ** (LENGTH - m) * NOISE.nll_weight(t)).mean()
        assert masking_weight(m) == pytest.approx(numeric.item(), rel=1e-6)


def test_monte_carlo_agrees_with_the_exact_sum_of_the_binary_path() -> None:
    model = model_of(None)
    once, _ = monte_carlo(model)
    assert z_scores(once, exact_elbo(model)[0]).abs().max() < 3.5


@pytest.mark.parametrize("kind", FeedbackKind)
def test_monte_carlo_agrees_with_the_exact_sum_of_the_two_pass_process(kind: FeedbackKind) -> None:
    model = model_of(kind)
    (once, twice), (exact_once, exact_twice) = monte_carlo(model), exact_elbo(model)
    assert z_scores(once, exact_once).abs().max() < 3.5
    assert z_scores(twice, exact_twice).abs().max() < 3.5
    assert z_scores(twice, exact_once).abs().max() > 6  # the test tells the two processes apart


@pytest.mark.parametrize("kind", [None, *FeedbackKind])
def test_the_training_loss_has_the_same_expectation(kind: FeedbackKind | None) -> None:
    model, micro_batch = model_of(kind), len(X0) * COPIES
    collator = MaskingCollator(
        mask_token_id=MASK, noise=NOISE, sampling_eps=SAMPLING_EPS, micro_batch=micro_batch, p_sm=1.0, seed=1
    )
    objective = BinaryObjective(model, NOISE, 100) if kind is None else SoftMaskObjective(model, NOISE, 100)
    x0, losses = X0.repeat_interleave(COPIES, 0), []
    shuffled = torch.randperm(micro_batch, generator=torch.Generator().manual_seed(0))  # times rise with the slot
    with torch.no_grad():
        for step in range(DRAWS):
            items = [
                {"position": step * micro_batch + slot, "input_ids": x0[row]}
                for slot, row in enumerate(shuffled.tolist())
            ]
            losses.append(objective(**collator(items)).double() * LENGTH)
    estimates, exact = torch.stack(losses), exact_elbo(model)[0 if kind is None else 1].mean()
    error = estimates.std() / DRAWS**0.5
    # every row keeps its slot, and so its part of the range of t: the estimate's bias is far below its error
    assert error / exact < 0.02
    assert abs(estimates.mean() - exact) / error < 3.5


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize("kind", FeedbackKind)
def test_the_head_chunk_changes_no_nll(kind: FeedbackKind, chunk: int) -> None:
    model, x0 = model_of(kind), X0.repeat(4, 1)
    noise = noise_of(len(x0))
    x_t = noise.x_t(0, 0, x0, noise.t(0))
    ours, whole = batch_nll(model, x0, x_t, chunk), batch_nll(model, x0, x_t, 50)
    for name in ("binary", "two_pass", "lam", "entropy"):
        torch.testing.assert_close(getattr(ours, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_the_evaluations_noise_depends_on_seed_draw_and_row_alone() -> None:
    x0 = X0.repeat(4, 1)
    noise, t = noise_of(16), noise_of(16).t(2)
    whole = noise.x_t(2, 0, x0, t)
    parts = [noise_of(16).x_t(2, first, x0[first : first + 4], t[first : first + 4]) for first in range(0, 16, 4)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(noise.t(3), t)
    slots = ((t.double() - SAMPLING_EPS) / (1 - SAMPLING_EPS) * 16).floor()
    assert sorted(slots.tolist()) == list(range(16))  # spread evenly over the rows
    assert slots.tolist() != sorted(slots.tolist())  # in an order of their own


def test_sums_by_unit_are_weighted_sums() -> None:
    masked = torch.tensor([[True, False, True], [True, True, False]])
    units = torch.tensor([[0, 0, 1], [1, 3, 3]])
    sums = sum_by_unit(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 10.0]), masked, units, 5)
    assert sums.tolist() == [1.0, 32.0, 0.0, 40.0, 0.0]
