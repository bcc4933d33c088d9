"""The reverse processes: with which probability a position is unmasked or masked again between t and t - dt.

Every sampler here acts on each position alone, so a step is: draw which positions change, then draw tokens for
those that unmask. Sources: MDLM (ancestral), ReMDM (cap, loop) as the official code carries them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from softmask.decoding.kinds import Sampler


@dataclass(frozen=True)
class RemdmSettings:
    """ReMDM's parameters: eta, and for the loop t_on, t_off and alpha_on."""

    eta: float
    t_on: float
    t_off: float
    alpha_on: float


@dataclass(frozen=True)
class Transition:
    """Probabilities of one step: a masked position unmasks, an unmasked one is masked again."""

    unmask: float
    remask: float


def times(nfe: int, final_t: float) -> Iterator[tuple[float, float]]:
    """(t, dt) of each of `nfe` steps from 1 to `final_t`."""
    dt = (1 - final_t) / nfe
    for step in range(nfe):
        yield 1 - step * dt, dt


def highest_unmask(sampler: Sampler, nfe: int, final_t: float, remdm: RemdmSettings) -> float:
    """The highest probability to unmask in any of `nfe` steps.

    It grows within each of the loop's phases, and as a whole for the other samplers: looked at are the steps around the
    phases' borders, and the last ones.
    """
    dt = (1 - final_t) / nfe
    borders = [round((1 - t) / dt) for t in (remdm.t_on, remdm.t_off)] + [nfe - 1]
    steps = {step for border in borders for step in range(border - 1, border + 2) if 0 <= step < nfe}
    return max(transition(sampler, 1 - step * dt, dt, remdm).unmask for step in steps)


def transition(sampler: Sampler, t: float, dt: float, remdm: RemdmSettings) -> Transition:
    """The transition from t to s = t - dt under log-linear noise (alpha_t = 1 - t in sampling)."""
    if sampler is Sampler.REMDM_CAP:
        alpha_t, alpha_s = 1 - t, 1 - t + dt
        sigma = min(remdm.eta, (1 - alpha_s) / alpha_t) if alpha_t > 0 else remdm.eta
        return _remasking(alpha_t, alpha_s, sigma)
    if sampler is Sampler.REMDM_LOOP:
        return _loop(t, dt, remdm)
    return Transition(unmask=dt / t, remask=0.0)


def _remasking(alpha_t: float, alpha_s: float, sigma: float) -> Transition:
    return Transition(unmask=(alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t), remask=sigma)


def _loop(t: float, dt: float, remdm: RemdmSettings) -> Transition:
    if t > remdm.t_on:  # time runs faster, so that alpha_on is reached at t_on
        rate = remdm.alpha_on / (1 - remdm.t_on)
        return _ancestral(1 - (1 - t) * rate, 1 - (1 - t + dt) * rate)
    if t > remdm.t_off:
        return _remasking(remdm.alpha_on, remdm.alpha_on, remdm.eta)
    rate = (1 - remdm.alpha_on) / remdm.t_off
    return _ancestral(t * rate, (t - dt) * rate)


def _ancestral(masked_t: float, masked_s: float) -> Transition:
    return Transition(unmask=(masked_t - masked_s) / masked_t, remask=0.0)
