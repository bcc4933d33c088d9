"""How many forwards MDLM's samplers are expected to take, in closed form.

Every sampler acts on each position alone (softmask/decoding/transitions.py), so positions are independent in whether
they are masked and whether they change, whatever the model says; only the tokens depend on it. With `refresh:
on_change` a step of an ancestral sampler makes a forward if it unmasks something, one of a remasking sampler if the
step before it has changed something (softmask/decoding/decoder.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from softmask.decoding.decoder import DecodingSettings
from softmask.decoding.kinds import Refresh, Sampler
from softmask.decoding.transitions import times, transition
from softmask.feedback_kinds import FeedbackKind


@dataclass(frozen=True)
class Sampled:
    """Of one sequence: forwards and rows of the head, expected and at most."""

    forwards: float
    head_rows: float
    most_forwards: int
    most_head_rows: int


@dataclass(frozen=True)
class _Step:
    """Probabilities in one step: of a forward; and for one position, of being unmasked by it, of being masked before
    it while there is a forward, and of staying masked through it while there is one."""

    number: int
    forward: float
    unmask: float
    masked: float
    stay: float


def sampled(settings: DecodingSettings, feedback: FeedbackKind | None, length: int) -> Sampled:
    """What one sequence of `length` tokens takes.

    Args:
        settings: how it is decoded.
        feedback: of the model; None: it has no soft mask.
    """
    two_pass = feedback is not None and settings.sampler is Sampler.MDLM_TWO_PASS
    carries = feedback is not None and not two_pass
    forwards = rows = 0.0
    most = most_rows = 0
    for step in _steps(settings, length):
        second = two_pass and settings.feeds_back(step.number)
        # full-vocabulary feedback is computed anew from the hidden states, and there are none before the first forward
        mixes = carries and feedback is FeedbackKind.FULL and settings.feeds_back(step.number) and step.number > 0
        forwards += step.forward * (1 + second)
        rows += step.unmask + step.masked * (second + mixes)
        if carries and feedback is FeedbackKind.TOP_K and settings.keeps_guesses(step.number):
            rows += step.stay
        most += 1 + second
        most_rows += 1 + second + mixes
    if settings.refresh is Refresh.ON_CHANGE and not settings.sampler.remasks:
        most = min(most, length * (1 + two_pass))  # each forward comes with a token
    return Sampled(forwards, rows * length, most, most_rows * length)


def _steps(settings: DecodingSettings, length: int) -> Iterator[_Step]:
    masked, unchanged, waiting = 1.0, 0.0, 0.0  # of one position: is masked; had no change; is masked and had none
    others = length - 1
    waits_for_unmasking = settings.refresh is Refresh.ON_CHANGE and not settings.sampler.remasks
    for number, (t, dt) in enumerate(times(settings.nfe, settings.final_t)):
        change = transition(settings.sampler, t, dt, settings.remdm)
        unmask, remask = min(change.unmask, 1.0), min(change.remask, 1.0)
        now_unchanged = 1 - masked * unmask - (1 - masked) * remask
        now_waiting = masked * (1 - unmask)
        if waits_for_unmasking:
            still, idle, idle_after = now_unchanged**length, *(now_waiting * now_unchanged**others,) * 2
        elif settings.refresh is Refresh.ON_CHANGE:
            still, idle = unchanged**length, waiting * unchanged**others
            idle_after = idle * (1 - unmask)
        else:
            still = idle = idle_after = 0.0
        yield _Step(number, 1 - still, masked * unmask, masked - idle, now_waiting - idle_after)
        masked = now_waiting + (1 - masked) * remask
        unchanged, waiting = now_unchanged, now_waiting
    if settings.final_argmax:
        yield _last(settings, length, masked, unchanged, waiting)


def _last(settings: DecodingSettings, length: int, masked: float, unchanged: float, waiting: float) -> _Step:
    """The final argmax: a forward if something is masked and has changed since the last one."""
    number = settings.nfe - 1
    if settings.refresh is Refresh.ON_CHANGE and not settings.sampler.remasks:
        return _Step(number, 1 - (1 - masked) ** length, masked, masked, 0.0)  # each forward was followed by a change
    neither = unchanged - waiting  # is unmasked and had no change
    forward = 1 - (1 - masked) ** length - unchanged**length + neither**length
    return _Step(number, forward, masked, masked - waiting * unchanged ** (length - 1), 0.0)
