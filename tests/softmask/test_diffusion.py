"""Noise, masking, SUBS and the chunked NLL, against closed forms and plain autograd."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from softmask.diffusion import LogLinear, antithetic_t, log_prob_chunks, mask_tokens, subs_log_probs, weighted_nll


def test_log_linear_noise_at_its_boundaries() -> None:
    noise = LogLinear(1e-3)
    assert noise.alpha(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1.0, 1e-3], abs=1e-7)


def test_the_losss_weight_is_minus_the_slope_of_alpha_over_what_is_masked() -> None:
    noise, t, h = LogLinear(1e-2), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64), 1e-6
    slope = (noise.alpha(t + h) - noise.alpha(t - h)) / (2 * h)
    torch.testing.assert_close(noise.dalpha(t), slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(noise.nll_weight(t), -slope / (1 - noise.alpha(t)), rtol=1e-6, atol=0)
    torch.testing.assert_close(noise.nll_weight(t), 1 / t)


@given(st.integers(1, 40), st.integers(0, 1000), st.sampled_from([1e-3, 0.2]))
def test_antithetic_times_lie_one_in_each_equal_part_of_the_range(n: int, seed: int, sampling_eps: float) -> None:
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = antithetic_t(u, sampling_eps)
    parts = ((t - sampling_eps) / (1 - sampling_eps) * n).floor()
    assert sorted(parts.tolist()) == list(range(n))
    assert bool((t >= sampling_eps).all()) and bool((t <= 1).all())


def test_a_token_is_masked_where_its_uniform_is_below_its_rows_chance() -> None:
    x0 = torch.tensor([[1, 2, 3], [4, 5, 6]])
    uniform = torch.tensor([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9]])
    x_t = mask_tokens(x0, torch.tensor([[0.5], [0.6]]), uniform, 7)
    assert x_t.tolist() == [[7, 2, 3], [7, 7, 6]]


@st.composite
def logit_rows(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Logits `[m, V]` with ties and extremes, and a mask token."""
    v = draw(st.integers(2, 7))
    values = st.sampled_from([-1e4, -3.0, 0.0, 0.0, 1.5, 1e4])
    rows = draw(st.lists(st.lists(values, min_size=v, max_size=v), min_size=1, max_size=4))
    return torch.tensor(rows), draw(st.integers(0, v - 1))


@given(logit_rows())
def test_under_subs_the_mask_has_no_probability_and_the_others_sum_to_one(case: tuple[Tensor, int]) -> None:
    logits, mask = case
    before = logits.clone()
    log_probs = subs_log_probs(logits, mask)
    assert torch.equal(logits, before)
    assert bool((log_probs[:, mask] == -math.inf).all())
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(len(logits)))
    others = [token for token in range(logits.shape[1]) if token != mask]
    torch.testing.assert_close(log_probs[:, others], torch.log_softmax(logits[:, others], -1))


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_log_probabilities_in_chunks_are_those_of_all_rows(chunk: int) -> None:
    rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    parts = list(log_prob_chunks(rows, lambda part: part * 2, 3, chunk))
    assert max(len(log_probs) for _, log_probs in parts) <= chunk
    torch.testing.assert_close(torch.cat([log_probs for _, log_probs in parts]), subs_log_probs(rows * 2, 3))
    assert torch.equal(torch.cat([rows[part] for part, _ in parts]), rows)


# The chunked NLL


def case_of(m: int, v: int, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden": (torch.randn(m, 5, generator=generator) * scale).requires_grad_(),
        "weight": torch.randn(v, 5, generator=generator).requires_grad_(),
        "bias": torch.randn(v, generator=generator).requires_grad_(),
        "targets": torch.randint(0, v - 1, (m,), generator=generator),
        "w": torch.rand(m, generator=generator) * 3,
    }


def plain_nll(case: dict[str, Tensor], mask: int) -> Tensor:
    """The NLLs by plain autograd on all logits."""
    logits = F.linear(case["hidden"], case["weight"], case["bias"])
    logits = logits.index_fill(-1, torch.tensor(mask), -math.inf)
    return F.cross_entropy(logits, case["targets"], reduction="none")


@given(st.integers(0, 9), st.integers(2, 8), st.integers(1, 12), st.sampled_from([0.1, 1.0, 200.0]))
def test_the_chunked_nll_and_its_gradients_are_those_of_plain_autograd(
    m: int, v: int, chunk: int, scale: float
) -> None:
    ours, plain = case_of(m, v, m, scale), case_of(m, v, m, scale)
    total, nll = weighted_nll(**ours, mask_token_id=v - 1, chunk=chunk)
    expected = plain_nll(plain, v - 1)
    torch.testing.assert_close(nll, expected.detach(), rtol=1e-5, atol=1e-4)
    (3 * total).backward()
    (3 * (plain["w"] * expected).sum()).backward()
    for name in ("hidden", "weight", "bias"):
        torch.testing.assert_close(ours[name].grad, plain[name].grad, rtol=1e-4, atol=1e-4)


def test_the_nlls_themselves_carry_no_gradient() -> None:
    total, nll = weighted_nll(**case_of(5, 6, 0), mask_token_id=5, chunk=2)
    assert total.requires_grad and not nll.requires_grad


class Operations(TorchDispatchMode):
    """Notes the name of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_without_gradients_none_are_made() -> None:
    with torch.no_grad(), Operations() as operations:
        weighted_nll(**case_of(6, 6, 0), mask_token_id=5, chunk=2)
    assert operations.names.count("addmm") == 3  # the logits of three chunks
    assert "mm" not in operations.names  # and no product with them
