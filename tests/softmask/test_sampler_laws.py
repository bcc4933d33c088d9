"""The samplers' exact laws on correlated toy data, with the exact posterior as the model.

The laws are enumerated over all states from the published formulas (MDLM: q(s | t); ReMDM: the remasking posterior
with its cap and its loop), without the code under test. Samples must match them, and wrong samplers must not.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from softmask.backbones.dit import Mdlm
from softmask.decoding import decoder
from softmask.decoding.decoder import DecodingSettings, generate
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.sampling import gumbel_argmax
from softmask.decoding.transitions import RemdmSettings, Transition, highest_unmask, times, transition
from softmask.feedback import SoftMask, TopKGuesses
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule

Array = NDArray[np.float64]
FINAL_T = 1e-3
SAMPLES = 20_000
LOOP = RemdmSettings(eta=0.08, t_on=0.6, t_off=0.2, alpha_on=0.8)


@given(
    st.sampled_from(Sampler), st.integers(1, 300), st.floats(1e-4, 0.5), st.floats(0, 1), *[st.floats(0.01, 0.99)] * 3
)
def test_the_highest_probability_to_unmask_is_found_without_making_the_steps(
    sampler: Sampler, nfe: int, final_t: float, eta: float, one: float, other: float, alpha_on: float
) -> None:
    remdm = RemdmSettings(eta=eta, t_on=max(one, other), t_off=min(one, other), alpha_on=alpha_on)
    every = (transition(sampler, t, dt, remdm).unmask for t, dt in times(nfe, final_t))
    assert highest_unmask(sampler, nfe, final_t, remdm) == pytest.approx(max(every), abs=1e-9)


@dataclass(frozen=True)
class Toy:
    """A strongly correlated law over V^L; states have V as their mask."""

    v: int
    length: int
    law: Array

    @property
    def states(self) -> NDArray[np.int64]:
        """`[S, L]`, all states with and without masks."""
        return np.array(list(itertools.product(range(self.v + 1), repeat=self.length)))

    def index(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        powers = (self.v + 1) ** np.arange(self.length)[::-1]
        result: NDArray[np.int64] = states @ powers
        return result

    def data_law(self) -> Array:
        """The data's law over all states, `[S]`."""
        law = np.zeros(len(self.states))
        clean = (self.states < self.v).all(1)
        law[clean] = self.law
        return law

    def posterior(self) -> Array:
        """P(x_i = v | the unmasked tokens of s), `[S, L, V]`."""
        clean = self.states[(self.states < self.v).all(1)]
        agrees = ((self.states[:, None] == clean[None]) | (self.states[:, None] == self.v)).all(-1)
        joint = agrees * self.law
        one_hot = np.eye(self.v)[clean]
        result: Array = np.einsum("sc,clv->slv", joint, one_hot) / joint.sum(1)[:, None, None]
        return result


def correlated(v: int, length: int, seed: int) -> Toy:
    """Neighbours are mostly equal, and every sequence is possible."""
    clean = np.array(list(itertools.product(range(v), repeat=length)))
    equal = (clean[:, 1:] == clean[:, :-1]).sum(1)
    weights = np.exp(2.5 * equal) * np.random.default_rng(seed).uniform(0.5, 1.5, len(clean))
    return Toy(v, length, weights / weights.sum())


TOYS = {"V=3, L=3": correlated(3, 3, 0), "V=2, L=4": correlated(2, 4, 1)}
TOY = pytest.mark.parametrize("toy", TOYS.values(), ids=list(TOYS))


# The laws, from the papers


def chain_step(toy: Toy, p: Array, law: Array, unmask: float, remask: float) -> Array:
    """The law after a step in which positions move independently, given the state: masks unmask to v with probability
    `unmask` p_v, tokens are masked with `remask`."""
    assert 0 <= unmask <= 1 + 1e-12 and 0 <= remask <= 1
    moves = np.zeros((*toy.states.shape, toy.v + 1))
    masked = (toy.states == toy.v)[..., None]
    moves[..., : toy.v] = np.where(masked, unmask * p, (1 - remask) * np.eye(toy.v + 1)[toy.states][..., : toy.v])
    moves[..., toy.v] = np.where(masked[..., 0], 1 - unmask, remask)
    kernel = np.ones((len(toy.states), len(toy.states)))
    for position in range(toy.length):
        kernel *= moves[:, position, toy.states[:, position]]
    result: Array = law @ kernel
    return result


def published_move(sampler: Sampler, t: float, s: float, remdm: RemdmSettings) -> tuple[float, float]:
    """(unmask, remask) from the formulas of the papers, with alpha_t = 1 - t."""
    alpha_t, alpha_s, sigma = 1 - t, 1 - s, 0.0
    if sampler is Sampler.REMDM_CAP:  # sigma_t = min(eta, (1 - alpha_s) / alpha_t)
        sigma = remdm.eta if alpha_t == 0 else min(remdm.eta, (1 - alpha_s) / alpha_t)
    elif sampler is Sampler.REMDM_LOOP and t > remdm.t_on:  # alpha grows from 0 to alpha_on
        alpha_t, alpha_s = ((1 - time) / (1 - remdm.t_on) * remdm.alpha_on for time in (t, s))
    elif sampler is Sampler.REMDM_LOOP and t > remdm.t_off:  # alpha stays
        alpha_t = alpha_s = remdm.alpha_on
        sigma = remdm.eta
    elif sampler is Sampler.REMDM_LOOP:  # alpha grows from alpha_on to 1
        alpha_t, alpha_s = (1 - time / remdm.t_off * (1 - remdm.alpha_on) for time in (t, s))
    # ReMDM, eq. 6; with sigma = 0 it is MDLM's posterior q(x_s | x_t, x_0)
    return (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t), sigma


def exact_law(toy: Toy, settings: DecodingSettings, p: Array | None = None) -> Array:
    """The law of the sampler's tokens after its last step, `[S]`; the model is `p` `[S, L, V]` or the posterior."""
    law = np.zeros(len(toy.states))
    law[toy.index(np.full((1, toy.length), toy.v))] = 1.0
    times = 1 - np.arange(settings.nfe + 1) / settings.nfe * (1 - settings.final_t)
    for t, s in itertools.pairwise(times.tolist()):
        law = chain_step(
            toy, toy.posterior() if p is None else p, law, *published_move(settings.sampler, t, s, settings.remdm)
        )
    return law


# The samples


class ToyModel:
    """What `generate` uses of a model; hidden states are the posterior's log-probabilities, looked up by state."""

    def __init__(self, toy: Toy, soft_mask: SoftMask | None = None) -> None:
        self._toy = toy
        logits = torch.from_numpy(toy.posterior()).log().float()  # -inf at an unmasked position's other tokens
        self._log_p = torch.nn.functional.pad(logits, (0, 1))  # and anything for the mask
        self.device, self.dtype, self.soft_mask = torch.device("cpu"), torch.float32, soft_mask
        self.config = SimpleNamespace(mask_token_id=toy.v, hidden_size=toy.v + 1, vocab_size=toy.v + 1)
        self.backbone = SimpleNamespace(head=lambda rows: rows)

    def hidden(self, x: Tensor, guesses: TopKGuesses | None = None, factor: Any = 1.0) -> Tensor:
        """`[M, V + 1]` of the masks; with feedback, what was guessed is sharpened: p^2, renormalised."""
        if guesses is None:
            return self._log_p[torch.from_numpy(self._toy.index(x.numpy()))][x == self._toy.v]
        return torch.zeros(len(guesses.indices), self._toy.v + 1).scatter_(-1, guesses.indices, 2 * guesses.log_probs)

    def guesses(self, rows: Tensor, chunk: int) -> TopKGuesses:
        """All V real tokens with their log-probabilities."""
        log_probs = torch.log_softmax(rows[:, : self._toy.v], -1)
        indices = torch.arange(self._toy.v).expand_as(log_probs)
        return TopKGuesses(torch.zeros(len(rows)), log_probs, indices)


def settings_of(sampler: Sampler, nfe: int, eta: float = 0.15) -> DecodingSettings:
    return DecodingSettings(
        sampler=sampler,
        nfe=nfe,
        nucleus_p=1.0,
        temperature=1.0,
        refresh=Refresh.ON_CHANGE,
        remask_feedback=RemaskFeedback.MASK,
        omega_schedule=OmegaSchedule.CONSTANT,
        feedback_from=0.0,
        feedback_until=1.0,
        remdm=LOOP if sampler is Sampler.REMDM_LOOP else replace(LOOP, eta=eta),
        final_t=FINAL_T,
        final_argmax=False,
        head_chunk=30_000,
    )


def counts(toy: Toy, settings: DecodingSettings, seed: int, soft_mask: SoftMask | None = None) -> NDArray[np.int64]:
    """How often each state came out, `[S]`."""
    model = cast(Mdlm, ToyModel(toy, soft_mask))
    made = generate(model, settings, SAMPLES, toy.length, torch.Generator().manual_seed(seed))
    return np.bincount(toy.index(made.tokens.numpy()), minlength=len(toy.states))


def p_value(observed: NDArray[np.int64], law: Array) -> float:
    """Of the chi-square test; cells where under 10 are expected are pooled, impossible ones must be empty."""
    expected = law * observed.sum()
    if observed[law < 1e-14].any():
        return 0.0
    small = expected < 10
    pooled = [(observed[~small], expected[~small])]
    if expected[small].sum() > 0:
        pooled.append((observed[small].sum(keepdims=True), expected[small].sum(keepdims=True)))
    o, e = (np.concatenate(cells) for cells in zip(*pooled, strict=True))
    return float(stats.chisquare(o, e * o.sum() / e.sum()).pvalue)


CASES = [
    *[(Sampler.MDLM, nfe) for nfe in (1, 4, 16)],
    *[(Sampler.REMDM_CAP, nfe) for nfe in (1, 2, 5, 12)],
    *[(Sampler.REMDM_LOOP, nfe) for nfe in (7, 10, 20)],
    (Sampler.MDLM_TWO_PASS, 4),
]
CASE = pytest.mark.parametrize(("sampler", "nfe"), CASES)


@TOY
@CASE
@pytest.mark.parametrize("final_t", [FINAL_T, 0.3])
def test_samples_match_the_exact_law(toy: Toy, sampler: Sampler, nfe: int, final_t: float) -> None:
    settings = replace(settings_of(sampler, nfe), final_t=final_t)
    law = exact_law(toy, settings)
    assert law.sum() == pytest.approx(1.0)
    assert p_value(counts(toy, settings, seed=nfe), law) > 1e-3


@TOY
def test_forwards_at_every_step_leave_the_law_as_it_is(toy: Toy) -> None:
    settings = replace(settings_of(Sampler.REMDM_CAP, 5), refresh=Refresh.ALWAYS)
    assert p_value(counts(toy, settings, seed=3), exact_law(toy, settings)) > 1e-3


@TOY
def test_two_passes_sample_from_the_second(toy: Toy) -> None:
    soft_mask = SoftMask(
        omega_s=0.5,
        omega_a=1.0,
        omega_b=-1.0,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=toy.v,
    )
    settings = settings_of(Sampler.MDLM_TWO_PASS, 4)
    observed = counts(toy, settings, 0, soft_mask)
    sharpened = toy.posterior() ** 2
    sharpened /= sharpened.sum(-1, keepdims=True)
    assert p_value(observed, exact_law(toy, settings, sharpened)) > 1e-3
    assert p_value(observed, exact_law(toy, settings)) < 1e-6  # the first pass's law


@TOY
def test_the_law_of_mdlm_tends_to_the_datas_as_nfe_grows(toy: Toy) -> None:
    distances = []
    for nfe in (1, 4, 16, 64, 256):
        settings = replace(settings_of(Sampler.MDLM, nfe), final_t=1e-9)
        distances.append(0.5 * np.abs(exact_law(toy, settings) - toy.data_law()).sum())
    assert distances[0] > 0.3  # correlated: independent draws are far off
    assert all(later < 0.5 * earlier for earlier, later in itertools.pairwise(distances))
    settings = replace(settings_of(Sampler.MDLM, 64), final_t=1e-9)
    frequencies = counts(toy, settings, seed=64) / SAMPLES
    assert 0.5 * np.abs(frequencies - toy.data_law()).sum() < distances[3] + 0.03


# Wrong samplers

Break = Callable[[pytest.MonkeyPatch], None]


def change_transition(change: Callable[[Transition], Transition]) -> Break:
    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decoder, "transition", lambda *arguments: change(transition(*arguments)))

    return apply


def correlate_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positions of a sequence share their noise."""

    def sample(log_probs: Tensor, p: float, temperature: float, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(len(log_probs), log_probs.shape[-1], generator=generator, dtype=torch.float64)
        return gumbel_argmax(log_probs.exp(), uniform[torch.arange(len(log_probs)) // 2])

    monkeypatch.setattr(decoder, "sample_tokens", sample)


def take_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "sample_tokens", lambda log_probs, *_: log_probs.argmax(-1))


def forget_to_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden states of the first forward are used for ever."""
    plain = ToyModel.hidden

    def hidden(self: ToyModel, x: Tensor, *rest: Any) -> Tensor:
        return plain(self, torch.full_like(x, self._toy.v), *rest)[(x == self._toy.v).flatten()]

    monkeypatch.setattr(ToyModel, "hidden", hidden)


WRONG: dict[str, tuple[Sampler, int, Break]] = {
    "mdlm unmasks 10 % too seldom": (
        Sampler.MDLM, 4, change_transition(lambda move: replace(move, unmask=0.9 * move.unmask))),
    "cap unmasks 10 % too seldom": (
        Sampler.REMDM_CAP, 5, change_transition(lambda move: replace(move, unmask=0.9 * move.unmask))),
    "loop unmasks 10 % too seldom": (
        Sampler.REMDM_LOOP, 10, change_transition(lambda move: replace(move, unmask=0.9 * move.unmask))),
    "cap remasks 10 % too often": (
        Sampler.REMDM_CAP, 12, change_transition(lambda move: replace(move, remask=1.1 * move.remask))),
    "cap never remasks": (Sampler.REMDM_CAP, 5, change_transition(lambda move: replace(move, remask=0.0))),
    "mdlm draws a step's tokens together": (Sampler.MDLM, 1, correlate_tokens),
    "mdlm takes the likeliest tokens": (Sampler.MDLM, 4, take_likeliest),
    "mdlm never looks again": (Sampler.MDLM, 4, forget_to_refresh),
    "cap never looks again": (Sampler.REMDM_CAP, 5, forget_to_refresh),
}  # fmt: skip


@pytest.mark.parametrize(("sampler", "nfe", "breaks"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_sampler_is_rejected(
    sampler: Sampler, nfe: int, breaks: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    # masks left at the end show a wrong rate of remasking best
    toy, settings = TOYS["V=3, L=3"], replace(settings_of(sampler, nfe), final_t=0.3)
    breaks(monkeypatch)
    assert p_value(counts(toy, settings, seed=nfe), exact_law(toy, settings)) < 1e-3
