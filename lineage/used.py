"""What was made from a file, a run, a parameter or a hash: forwards through the runs of all commits and experiments."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from lineage.contents import part_hash
from lineage.errors import AuditError
from lineage.ledger import Entry, Known, Ledger, ledger
from lineage.model import File, Frozen, Gap
from lineage.origins import Origin, agrees
from lineage.repository import Repository
from lineage.targets import HASH
from lineage.values import ABSENT, shown, value_at


class Sort(StrEnum):
    """What a target was taken for."""

    RUN = "run"
    PARAMETER = "parameter"
    FILE = "file"
    HASH = "hash"


class Use(Frozen):
    """A run of history that read a target, or what was made from it."""

    by: Known
    direct: bool
    """Whether it read the target itself, or is the run that was asked for."""
    because: tuple[str, ...]
    """What it read of the target or of what was made from it: a path with its hash, a parameter with its value."""
    outputs: tuple[File, ...]


class Used(Frozen):
    """All that came of a target."""

    asked: str
    sort: Sort
    uses: tuple[Use, ...]
    """Oldest first."""
    gaps: tuple[Gap, ...]


def used(repository: Repository, asked: str) -> Used:
    """The runs of all commits and experiments that read a target in any version, or what was made from it.

    Args:
        repository: whose history is searched.
        asked: a run or stage, a parameter (`FILE:KEY`), a file or folder, or (at least six characters of) a hash.

    Raises:
        AuditError: history has nothing of that name.
    """
    walk = _Walk(ledger(repository))
    sort = walk.start(asked)
    walk.on()
    known = walk.book.known(walk.found)
    uses = (
        Use(by=known[e], direct=e in walk.direct, because=tuple(walk.found[e]), outputs=e.run.outputs) for e in known
    )
    return Used(asked=asked, sort=sort, uses=tuple(uses), gaps=(*walk.book.gaps, *walk.gaps))


@dataclass
class _Walk:
    """From a target forwards, each run once."""

    book: Ledger
    found: dict[Entry, dict[str, None]] = field(default_factory=dict)
    """Run -> why it is one, in words."""
    direct: set[Entry] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    _together: dict[tuple[Entry, File], bool | None] = field(default_factory=dict)

    def start(self, asked: str) -> Sort:
        """Find the runs that a target leads to at once."""
        folder = self.book.repository.folder
        path = asked.rstrip("/").removeprefix("./")
        names = dict.fromkeys((path, f"{folder}/{path}" if folder else path))
        paths = [*names, *(head for name in names if (head := name.rpartition(":")[0]))]
        for sort, hits in (
            (Sort.RUN, self._runs(asked)),
            (Sort.PARAMETER, (hit for name in names for hit in self._settings(name))),
            (Sort.FILE, (hit for path in paths for hit in self._files(path))),
            (Sort.HASH, self._hashes(asked) if HASH.fullmatch(asked) else iter(())),
        ):
            for entry, why in hits:
                self.direct.add(entry)
                self._add(entry, why)
            if self.direct or self._is_made(sort, asked, paths):
                return sort
        expected = "a run, a parameter (FILE:KEY), a file or a hash that a commit or an experiment has"
        raise AuditError("no run of history has it", where=asked, expected=expected)

    def _is_made(self, sort: Sort, asked: str, paths: Iterable[str]) -> bool:
        """Whether a run made a target that none has read."""
        if sort is Sort.HASH:
            return any(True for _ in (*self.book.outputs_with([asked]), *self.book.parts_with([asked])))
        return sort is Sort.FILE and any(self._has(path) for path in paths)

    def _has(self, path: str) -> bool:
        """Whether a run made something at a path, or a folder that has it; where no list tells, that is a gap."""
        folder, unlisted = path, None
        while folder:
            for entry, output in self.book.outputs.get(folder, ()):
                if folder == path:
                    return True
                listing = self.book.listing(entry, output) if output.is_folder else {}
                if listing is not None and part_hash(listing, path[len(folder) + 1 :]) is not None:
                    return True
                unlisted = entry if listing is None else unlisted
            folder = folder.rpartition("/")[0]
        if unlisted is not None:
            what = f"no list of the files that {unlisted.run.name} made is here, so whether this is one is unknown"
            self.gaps.append(Gap(where=path, what=what))
        return unlisted is not None

    def on(self) -> None:
        """Follow what they made to the last."""
        waiting = [*self.found]
        while waiting:
            entry = waiting.pop()
            for output in entry.run.outputs:
                for reader, file in self._readers(entry, output):
                    waiting += [reader] if reader not in self.found else []
                    self._add(reader, _words(file))

    def _add(self, entry: Entry, why: str) -> None:
        self.found.setdefault(entry, {})[why] = None

    def _runs(self, name: str) -> Iterator[tuple[Entry, str]]:
        for entry in self.book.entries:
            if name in (entry.run.name, entry.run.name.partition("@")[0]):
                yield entry, "it is the run"

    def _settings(self, asked: str) -> Iterator[tuple[Entry, str]]:
        """Runs that have a parameter, all of its section, or part of it."""
        file, _, key = asked.partition(":")
        for entry in self.book.entries if key else ():
            for recorded, value in entry.run.parameters.get(file, {}).items():
                if recorded == key or recorded.startswith(f"{key}."):
                    yield entry, f"{recorded} = {shown(value)}"
                elif (
                    key.startswith(f"{recorded}.")
                    and (inner := value_at(value, key[len(recorded) + 1 :])) is not ABSENT
                ):
                    yield entry, f"{key} = {shown(inner)}"

    def _files(self, path: str) -> Iterator[tuple[Entry, str]]:
        """Runs that read a file or folder, a folder that it lies in, or a part of it."""
        places, above = self._below(path), path
        while above:
            places.append(above)
            above = above.rpartition("/")[0]
        for place in places:
            yield from ((entry, _words(file)) for entry, file in self.book.inputs.get(place, ()))

    def _hashes(self, asked: str) -> Iterator[tuple[Entry, str]]:
        yield from ((entry, _words(file)) for entry, file in self.book.inputs_with([asked]))
        for maker, part in self.book.parts_with([asked]):
            for output in maker.run.outputs:
                if part.path.startswith(output.path + "/"):
                    yield from ((reader, _words(file)) for reader, file in self._readers(maker, output, part))

    def _readers(self, maker: Entry, output: File, part: File | None = None) -> Iterator[tuple[Entry, File]]:
        """Runs that read an output, something in it, or a folder that it lies in.

        Args:
            part: a file in the output; then runs that read others in it are none.
        """
        for reader, file in self.book.inputs.get(output.path, ()):
            if file.hash == output.hash:
                yield reader, file
        for path in self._below(output.path) if output.is_folder else ():
            if part is None or part.path == path or part.path.startswith(path + "/"):
                yield from self._parts(maker, output, path)
        above = output.path.rpartition("/")[0]
        while above:
            for reader, file in self.book.inputs.get(above, ()):
                if reader is not maker and self._holds(reader, file, maker):
                    yield reader, file
            above = above.rpartition("/")[0]

    def _parts(self, maker: Entry, output: File, path: str) -> Iterator[tuple[Entry, File]]:
        listing = self.book.listing(maker, output)
        for reader, file in self.book.inputs[path]:
            if listing is None and self.book.holds(reader.commit, maker):
                self._doubt(reader, file)
                yield reader, file
            elif listing is not None and part_hash(listing, path[len(output.path) + 1 :]) == file.hash:
                yield reader, file

    def _holds(self, reader: Entry, file: File, maker: Entry) -> bool:
        """Whether a folder that a run read has what another made: both are in the commit that the reader came with."""
        if not self.book.holds(reader.commit, maker):
            return False
        if (reader, file) not in self._together:
            origin = Origin(reader.run, self.book.graph(reader.commit), reader.commit)
            own = [made for made in origin.graph.producers(file.path) if made[0].name != reader.run.name]
            self._together[reader, file] = agrees(origin, file, own)
            if self._together[reader, file] is None:
                self._doubt(reader, file)
        return self._together[reader, file] is not False

    def _doubt(self, reader: Entry, file: File) -> None:
        what = f"{reader.run.name} in {reader.commit[:10]} read it; no list of its files is here, so which is unknown"
        self.gaps.append(Gap(where=file.path, what=what))

    def _below(self, path: str) -> list[str]:
        """Inputs that lie in a folder."""
        paths = self.book.input_paths
        return paths[bisect_left(paths, f"{path}/") : bisect_left(paths, f"{path}0")]


def _words(file: File) -> str:
    return f"{file.path} {(file.hash or 'unknown')[:8]}"
