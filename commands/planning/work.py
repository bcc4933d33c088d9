"""What one stage is planned to take, how sure the numbers are, and how they add up. Knows no stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """How sure planned forwards and FLOPs are; the later of two is that of their sum."""

    EXACT = "exact"
    """What the manifest will say."""
    EXPECTED = "expected"
    """The mean over the randomness of the run, by formula."""
    AT_MOST = "at most"
    """A bound: answers that end early take less."""
    ABOUT = "about"
    """Built on an estimate of data that have not been made yet, such as their number of tokens."""

    @property
    def sign(self) -> str:
        """What stands before such a number."""
        return {Basis.EXACT: "", Basis.EXPECTED: "~", Basis.AT_MOST: "<=", Basis.ABOUT: "~"}[self]


def sure(known: bool) -> Basis:
    """The basis of numbers that are exact once the data are known."""
    return Basis.EXACT if known else Basis.ABOUT


@dataclass(frozen=True)
class Work:
    """What a stage instance takes.

    Args:
        forwards: as its manifest counts them: of micro-batches in training, of sequences elsewhere; judging too.
        most_forwards: where a run may take fewer than the nominal number, that number.
        flops, most_flops: matrix products by the stages' own formulas, 2 a multiply-add.
        tokens: that it trains on, generates or measures.
        basis: of forwards, FLOPs and tokens.
        processes: that share the FLOPs.
        apart: FLOPs of each process that no manifest counts: its share of the evaluations during a training.
        memory: bytes of one process at its largest, estimated: libraries and what the allocator keeps come on top.
        disk: bytes of its outputs, estimated.
        unfinished: bytes of its checkpoints while it runs, estimated.
    """

    forwards: int = 0
    most_forwards: int = 0
    flops: int = 0
    most_flops: int = 0
    tokens: int = 0
    basis: Basis = Basis.EXACT
    processes: int = 1
    apart: int = 0
    memory: int = 0
    disk: int = 0
    unfinished: int = 0

    def __post_init__(self) -> None:
        """What needs no bound is its own."""
        for name in ("forwards", "flops"):
            most = max(getattr(self, name), getattr(self, f"most_{name}"))
            object.__setattr__(self, f"most_{name}", most)

    def seconds(self, flops: float) -> float:
        """How long that is at so many FLOP/s of each process."""
        return (self.flops / self.processes + self.apart) / flops


def together(works: Sequence[Work]) -> Work:
    """Several pieces of work one after another: counts and outputs add up, memory and checkpoints are the largest."""
    return Work(
        **{
            name: sum(getattr(work, name) for work in works)
            for name in ("forwards", "most_forwards", "flops", "most_flops", "tokens", "apart", "disk")
        },
        **{name: max(getattr(work, name) for work in works) for name in ("processes", "memory", "unfinished")},
        basis=max((work.basis for work in works), key=list(Basis).index),
    )
