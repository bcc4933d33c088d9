"""Whether what was made again is what was recorded: by bytes, else by numbers within a tolerance. Runs nothing."""

import io
import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from lineage.contents import Contents, parsed
from lineage.graph import Graph
from lineage.hashing import stream_hash
from lineage.manifests import is_manifest
from lineage.model import File, Frozen, Run
from lineage.states import Workspace
from lineage.values import ABSENT, same

OF_THE_MACHINE = ("environment", "code")
"""Parts of a manifest that say what a run was made with, not what it made."""
READABLE = (".json", ".yaml", ".yml")


class Agreement(StrEnum):
    """How an output that was made again compares with the recorded one."""

    IDENTICAL = "identical bytes"
    RECORD = "only the environment or code in its manifest differs"
    """A manifest: all that it says of inputs, parameters and outputs is the same."""
    WITHIN = "numbers agree within the tolerance"
    DIFFERS = "differs"


class Number(Frozen):
    """A place in a metrics file where two values differ."""

    key: str
    recorded: Any
    made: Any
    relative: float | None
    """|difference| / the larger magnitude; None where they aren't two numbers."""


class Again(Frozen):
    """An output that was made again."""

    run: str
    path: str
    agreement: Agreement
    recorded: str | None
    """Its hash in the record."""
    made: str | None
    """Its hash now; None where the run made no such file."""
    what: str = ""
    """Of one that differs: how."""
    numbers: tuple[Number, ...] = ()


class Comparison:
    """Holds what was made in a clone against the record of a state.

    Args:
        recorded: the record.
        made: the record that the clone's runs have left.
        tolerance: the largest relative difference of two numbers that agree.
    """

    def __init__(self, recorded: Graph, made: Graph, tolerance: float) -> None:
        assert isinstance(made.state, Workspace)
        self._recorded, self._made = recorded, made
        self._contents, self._clone = Contents(recorded.state), Contents(made.state)
        self._tolerance = tolerance

    def outputs(self, run: Run) -> list[Again]:
        """Every output of a run, compared."""
        return [again for file in run.outputs for again in self._output(run, file)]

    def inputs(self, run: Run) -> list[str]:
        """What a run read, used or did now that isn't what its record says; empty where all agrees."""
        made = self._made.runs[run.name]
        differ = [] if made.command == run.command else [f"its command: {' && '.join(run.command)}"]
        recorded, now = ({f.path: f for f in r.inputs} for r in (run, made))
        differ += [f"its input {path}" for path in {**recorded, **now} if not self._same_input(path, recorded, now)]
        before, after = ({(f, k): v for f, k, v in r.settings()} for r in (run, made))
        for name in {**before, **after}:
            if not same(before.get(name, ABSENT), after.get(name, ABSENT)):
                differ.append(f"its parameter {name[0]}: {name[1]}")
        return differ

    def _same_input(self, path: str, recorded: Mapping[str, File], now: Mapping[str, File]) -> bool:
        if path not in recorded or path not in now:
            return False
        old, new = recorded[path], now[path]
        # what DVC 2 recorded is hashed as DVC 2 did
        digest = new.hash if old.algorithm == new.algorithm else self._clone.current_hash(old)
        return digest == old.hash

    def _output(self, run: Run, file: File) -> Iterator[Again]:
        """An output; of a folder that git keeps, each file that is known, so that metrics in it can agree."""
        whole = self._file(run, file)
        kept = file.is_folder and self._recorded.state.keeps(file.path)
        listing = self._contents.listing(file) if kept and whole.agreement is not Agreement.IDENTICAL else None
        if listing is None:
            yield whole
            return
        for path in sorted({**listing, **self._clone.here(file)}):
            yield self._file(run, File(f"{file.path}/{path}", listing.get(path), file.algorithm))

    def _file(self, run: Run, file: File) -> Again:
        made = self._clone.current_hash(file)
        again = Again(run=run.name, path=file.path, agreement=Agreement.IDENTICAL, recorded=file.hash, made=made)
        here = self._contents.current_hash(file)
        edited = here is not None and here != file.hash
        if made == file.hash and not edited:
            return again
        what = "the run didn't make it" if made is None else "its bytes differ"
        if edited:
            what = f"the {self._recorded.state.kind} has {here}, which is not what the record says"
        differing = again.model_copy(update={"agreement": Agreement.DIFFERS, "what": what})
        return self._looked_into(differing, file) if made is not None else differing

    def _looked_into(self, again: Again, file: File) -> Again:
        """The same, with what differs in a file that can be read."""
        if not file.path.endswith(READABLE):
            return again
        before = self._recorded_bytes(file)
        after = self._clone.state.read(file.path)
        if before is None or after is None:
            return again.model_copy(update={"what": f"{again.what}; the recorded bytes are not here to be compared"})
        old, new = parsed(before, file.path), parsed(after, file.path)
        if is_manifest(file.path) and isinstance(old, dict) and isinstance(new, dict):
            kept = [{k: v for k, v in side.items() if k not in OF_THE_MACHINE} for side in (old, new)]
            return again.model_copy(update={"agreement": Agreement.RECORD}) if same(*kept) else again
        numbers = tuple(differing_numbers(old, new))
        if self._tolerance and old is not None and all(within(n, self._tolerance) for n in numbers):
            return again.model_copy(update={"agreement": Agreement.WITHIN, "numbers": numbers})
        return again.model_copy(update={"numbers": numbers})

    def _recorded_bytes(self, file: File) -> bytes | None:
        """What lies there, else what the cache has if that is what its name says."""
        found = self._contents.read(file)
        if found is None or self._recorded.state.read(file.path) is not None:
            return found
        return found if stream_hash(io.BytesIO(found), file.algorithm) == file.hash else None


def is_metric(path: str) -> bool:
    """Whether an output holds numbers that can be compared."""
    return path.endswith(READABLE) and not is_manifest(path)


def within(number: Number, tolerance: float) -> bool:
    """Whether two values are numbers that agree within a relative tolerance."""
    return number.relative is not None and number.relative <= tolerance


def differing_numbers(old: Any, new: Any, key: str = "") -> Iterator[Number]:
    """Every innermost place where two values differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in {**old, **new}:
            below = f"{key}.{inner}" if key else str(inner)
            yield from differing_numbers(old.get(inner, ABSENT), new.get(inner, ABSENT), below)
    elif not same(old, new):
        yield Number(key=key, recorded=old, made=new, relative=_relative(old, new))


def _relative(old: Any, new: Any) -> float | None:
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in (old, new)):
        return None
    largest = max(abs(old), abs(new))
    return abs(old - new) / largest if largest else 0.0
