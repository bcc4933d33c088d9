"""What a retrain's commands write: `commands/snapshot.py` what was taken in, `commands/promotion.py` the decision."""

import json
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path

from reporting.schema import Record
from stages.params.retrain import Metric


class Repeat(StrEnum):
    """Why a good document isn't taken."""

    VALIDATION_EXACT = "validation_exact"
    """The champion's validation has it."""
    VALIDATION_NEAR = "validation_near"
    """The champion's validation has nearly the same."""
    KNOWN = "known"
    """The champion's training text has it."""
    REPEATED = "repeated"
    """The snapshot has it."""


class Accepted(Record):
    """What was taken."""

    documents: int
    characters: int


class Quarantined(Record):
    """What is in `quarantine.jsonl`."""

    count: int
    files: dict[str, int]
    """Of the files that have any."""


class Snapshot(Record):
    """The result. Every record is accepted, quarantined or dropped."""

    source: str
    """`folder`, or the hub's dataset and commit."""
    files: int
    records: int
    """All that was read; what is wrong with a file as a whole counts as one."""
    accepted: Accepted
    quarantined: Quarantined
    dropped: dict[Repeat, int]
    documents_md5: str
    """Of the folder, as in dvc.lock."""


class Measured(Record):
    """A metric of both models, in nats a token; the improvement is above zero where the candidate is better."""

    champion: float
    candidate: float
    improvement: float
    """Mean over the units, paired."""
    low: float
    high: float


class Hashes(Record):
    """What was compared, by the hashes in dvc.lock."""

    champion: str
    candidate: str
    validation_tokens: str


class Decision(Record):
    """The result."""

    arm: str
    seed: int
    documents: int
    """Validation documents that were evaluated."""
    unit_kind: str
    """What intervals resample: documents, or passages where there are too few of them."""
    units: int
    metrics: dict[Metric, Measured]
    promoted: bool
    reasons: list[str]
    """Each condition that failed; of a candidate that is promoted, what was found."""
    hashes: Hashes


def quarantine_entries(file: Path, most: int) -> Iterator[tuple[str, str]]:
    """The first entries of a quarantine, `most` of them: where each is, and what is wrong with it."""
    with file.open(encoding="utf-8") as lines:
        for entry in map(json.loads, islice(lines, most)):
            number = "" if entry["record"] is None else f", record {entry['record']}"
            yield f"{entry['file']}{number}", entry["reason"]
