"""One sample's denoising, thinned to what a page can hold: what changed at each shown step, and what was fed back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reporting.labels import number
from reporting.schema import Record
from reporting.series import thinned_indices

MASK = "\N{LIGHT SHADE}"
"""Stands for a masked token where the sample is printed as text."""


class Feedback(Record):
    """What is fed back at one position that is still masked."""

    position: int
    lam: float
    guesses: list[tuple[str | None, float]]
    """None for an id that the tokenizer doesn't know."""


class TraceStep(Record):
    """The sample after one step."""

    t: float
    tokens: list[str | None]
    """None is a mask."""
    unmasked: list[int]
    feedback: list[Feedback]


class Trace(Record):
    """`data/samples/{model}/trace.json`."""

    model: str
    sampler: str
    nfe: int
    length: int
    steps: list[TraceStep]


@dataclass(frozen=True)
class Snapshot:
    """One shown step as text."""

    step: int
    t: str
    masked: int
    text: str


@dataclass(frozen=True)
class Denoising:
    """A model's trace as the page's script reads it, and as text."""

    label: str
    sampler: str
    nfe: int
    data: dict[str, Any]
    snapshots: Sequence[Snapshot]


def denoising(trace: Trace, label: str, steps: int, guesses: int, snapshots: int) -> Denoising:
    """Thin a trace to at most `steps` steps, `guesses` guesses a position and `snapshots` texts.

    The script's data has, for each shown step, the positions that changed since the step shown before: a token that
    was set, or null where a sampler masked it again.
    """
    shown = [(i, trace.steps[i]) for i in thinned_indices(len(trace.steps), steps)]
    before: list[str | None] = [None] * trace.length
    data = []
    for index, step in shown:
        data.append(
            {
                "step": index + 1,
                "t": round(step.t, 4),
                "set": [[i, token] for i, token in enumerate(step.tokens) if token != before[i]],
                "fed": [_fed(feedback, guesses) for feedback in step.feedback],
            }
        )
        before = step.tokens
    printed = [shown[i] for i in thinned_indices(len(shown), snapshots)]
    return Denoising(
        label=label,
        sampler=trace.sampler,
        nfe=trace.nfe,
        data={"label": label, "length": trace.length, "of": len(trace.steps), "steps": data},
        snapshots=[_snapshot(index + 1, step) for index, step in printed],
    )


def _fed(feedback: Feedback, guesses: int) -> list[Any]:
    return [
        feedback.position,
        round(feedback.lam, 3),
        [["?" if token is None else token, round(share, 3)] for token, share in feedback.guesses[:guesses]],
    ]


def _snapshot(step: int, state: TraceStep) -> Snapshot:
    masked = sum(token is None for token in state.tokens)
    text = "".join(MASK if token is None else token for token in state.tokens)
    return Snapshot(step, number(state.t, 3), masked, text)
