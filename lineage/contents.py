"""Where the bytes of a recorded file are: in the workspace, in git, in DVC's cache. Trusts no hash."""

import csv
import io
import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from dvc.utils.serialize import PARSERS, ParseError

from lineage.cache import remembered
from lineage.checkout import Form
from lineage.errors import Unreadable
from lineage.hashing import LEGACY, bytes_hash, file_hash, folder_hash, stream_hash
from lineage.model import File
from lineage.states import Kept, State, Workspace
from lineage.yaml12 import TOO_DEEP, bounded, load, too_long

MOST = 1000
"""Guesses at which files of a folder were added."""
LONGEST = {".json": 20_000_000, ".csv": 20_000_000, ".tsv": 20_000_000, ".toml": 1_000_000, ".py": 1_000_000}
"""Bytes of a file whose values are read, by how long its parser takes; of YAML, its reader knows."""
MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Object:
    """An object of the cache that a hash names."""

    hash: str
    path: Path

    @property
    def exists(self) -> bool:
        """Whether it is there; DVC puts no links into its cache."""
        return self.path.is_file() and not self.path.is_symlink()


class Contents:
    """The bytes of one state's files.

    Args:
        state: a commit, an experiment, or the workspace.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._committed: dict[tuple[str, str, str | None], dict[str, str]] = {}

    def object(self, digest: str, algorithm: str = "md5") -> Object:
        """The place in DVC's cache of what a hash names, whether or not it is there."""
        caches = self.state.repository.dvc.cache
        cache = caches.legacy if algorithm == LEGACY else caches.local
        return Object(digest, Path(cache.oid_to_path(digest)))

    def read(self, file: File) -> bytes | None:
        """The bytes of a file, from the workspace, the commit or the cache; None where it is nowhere."""
        if file.is_folder or file.is_external:
            return None
        found = self.state.read(file.path)
        if found is None and file.hash is not None:
            kept = self.object(file.hash, file.algorithm)
            found = kept.path.read_bytes() if kept.exists else None
        return found

    def listing(self, file: File) -> dict[str, str] | None:
        """A folder's (path in it) -> hash as its run recorded it: the list or the files that make this hash.

        None where neither the cache, a kept record, the commit nor the workspace has such.
        """
        assert file.hash is not None
        kept = self.object(file.hash, file.algorithm)
        if kept.exists and (found := listed(kept.path.read_bytes(), file.hash)) is not None:
            return found
        entries = self.state.listing(file.path) if isinstance(self.state, Kept) else self.here(file)
        return next(
            (each for each in _without_added(entries, file.files) if folder_hash(each.items()) == file.hash), None
        )

    def files(self, file: File) -> Iterator[File]:
        """A file itself, or the files of a folder as its run recorded it, as far as its list is here."""
        if not file.is_folder or file.is_external:
            yield file
            return
        for path, digest in (self.listing(file) or {}).items():
            yield File(f"{file.path}/{path}", digest, file.algorithm)

    def here(self, file: File) -> dict[str, str]:
        """(Path below a folder, `` for a file) -> hash, made anew, of what the state itself has at a path."""
        if file.is_external:
            return {}
        if isinstance(self.state, Workspace):
            return {p: file_hash(f, file.algorithm) for p, f in self.state.files_under(file.path).items()}
        return self.committed(file)

    def committed(self, file: File) -> dict[str, str]:
        """(Path below a folder, `` for a file) -> hash of what the commit has at a path.

        In the form that makes the recorded hash, if git may lay it out so.
        """
        key = (file.path, file.algorithm, file.hash)
        if key not in self._committed:
            blob = self.state.blob(file.path)
            blobs = {"": blob} if blob is not None else self.state.committed_under(file.path)
            kept = {p: self.blob_hash(b, file.algorithm) for p, b in blobs.items()}
            others = (self._laid_out(file, blobs, form) for form in (Form if whole_hash(kept) != file.hash else ()))
            self._committed[key] = next((other for other in others if whole_hash(other) == file.hash), kept)
        return self._committed[key]

    def _laid_out(self, file: File, inside: Iterable[str], form: Form) -> dict[str, str]:
        """(Path below a folder, `` for a file) -> hash of what the commit has there, in a form."""
        places = {p: f"{file.path}/{p}" if p else file.path for p in inside}
        found = {p: self.state.committed(place, form) or b"" for p, place in places.items()}
        return {p: stream_hash(io.BytesIO(data), file.algorithm) for p, data in found.items()}

    def blob_hash(self, blob: str, algorithm: str = "md5") -> str:
        """The hash of a git blob's bytes."""

        def make() -> str:
            return stream_hash(io.BytesIO(self.state.repository.git[blob].read_raw()), algorithm)

        return str(remembered(f"blob {algorithm}", blob, make))

    def current_hash(self, file: File) -> str | None:
        """The hash, made anew, of what the state itself has at a path; None where it has nothing there."""
        return whole_hash(self.here(file))

    def value(self, file: File) -> Any:
        """What a file says, as `parsed` reads it; None where it is nowhere."""
        return parsed(self.read(file), file.path)


class Recorded(Contents):
    """The bytes that runs recorded and no others: what was edited since is read from the cache, or not at all."""

    def read(self, file: File) -> bytes | None:
        """The bytes that have the recorded hash; of a file that has none, what lies there."""
        if file.is_folder or file.is_external:
            return None
        if file.hash is None:
            return self.state.read(file.path)
        if (here := next((data for data in self.state.forms(file.path) if _is(data, file)), None)) is not None:
            return here
        kept = self.object(file.hash, file.algorithm)
        found = kept.path.read_bytes() if kept.exists else None
        return found if found is not None and _is(found, file) else None

    def hash_as(self, file: File, algorithm: str) -> str | None:
        """The hash of another kind that a file or folder has; None where not all of its bytes are here."""
        if not file.is_folder:
            data = self.read(file)
            return None if data is None else stream_hash(io.BytesIO(data), algorithm)
        listing = self.listing(file)
        if listing is None:
            return None
        inside = {p: self.hash_as(File(f"{file.path}/{p}", h, file.algorithm), algorithm) for p, h in listing.items()}
        known = {path: digest for path, digest in inside.items() if digest is not None}
        return folder_hash(known.items()) if len(known) == len(inside) else None


def _is(data: bytes, file: File) -> bool:
    return stream_hash(io.BytesIO(data), file.algorithm) == file.hash


def _without_added(entries: dict[str, str], count: int | None) -> Iterator[dict[str, str]]:
    """What a folder has had of its files, if few were added since.

    Args:
        count: how many it has had; None where that isn't known.
    """
    added = len(entries) - (count or len(entries))
    if added >= 0 and math.comb(len(entries), added) <= MOST:
        for names in combinations(entries, added):
            yield {path: digest for path, digest in entries.items() if path not in names}


def whole_hash(entries: Mapping[str, str]) -> str | None:
    """The hash of a file or a folder, by what is in it; None where nothing is.

    Args:
        entries: (path below a folder, `` for a file) -> hash.
    """
    return entries.get("", folder_hash(entries.items())) if entries else None


def listed(data: bytes, digest: str) -> dict[str, str] | None:
    """A folder object's (path) -> hash; None where its bytes aren't those that its name says, or are no such list."""
    if bytes_hash(data) + ".dir" != digest:
        return None
    try:
        entries = json.loads(data)
        found = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):  # DVC writes none of these, a person may
        return None
    return found if isinstance(entries, list) and all(map(_is_entry, found, found.values())) else None


def part_hash(listing: Mapping[str, str], path: str) -> str | None:
    """The hash of a file or folder inside a folder, by the folder's list; None where it has no such."""
    inner = {p[len(path) + 1 :]: digest for p, digest in listing.items() if p.startswith(path + "/")}
    return listing.get(path) or (folder_hash(inner.items()) if inner else None)


def _is_entry(path: Any, digest: Any) -> bool:
    """Whether it is a path inside a folder, and an MD5."""
    inside = isinstance(path, str) and not path.startswith("/") and ".." not in path.split("/")
    return inside and isinstance(digest, str) and MD5.fullmatch(digest) is not None


def parsed(data: bytes | None, path: str) -> Any:
    """What a file says, as `read_value` reads it; None where it isn't there, or can't be read."""
    try:
        return None if data is None else read_value(data, path)
    except Unreadable:
        return None


def read_value(data: bytes, path: str) -> Any:
    """What JSON, YAML, TOML, plain Python or a table with a heading says, in types that JSON has.

    A table (.csv, .tsv) is a list of its rows by column, all text.

    Raises:
        Unreadable: it is none of these, or nested or with numbers as nobody writes them.
    """
    most = LONGEST.get(posixpath.splitext(path)[1], len(data))
    if len(data) > most:
        raise Unreadable(too_long(data, most))
    try:
        if path.endswith((".csv", ".tsv")):
            lines = io.StringIO(data.decode(), newline="")
            return [*csv.DictReader(lines, delimiter="," if path.endswith(".csv") else "\t")]
        if path.endswith((".toml", ".py")):
            return _as_json(bounded(PARSERS[path[path.rindex(".") :]](data.decode(), path)))
        return bounded(json.loads(data)) if path.endswith(".json") else load(data)
    except (RecursionError, MemoryError):  # parsers' own ends
        raise Unreadable(TOO_DEEP) from None
    except (ValueError, ParseError, SyntaxError, csv.Error) as error:
        raise Unreadable(f"it can't be read: {error}") from None


def _as_json(value: Any) -> Any:
    """A value with lists for tuples and sets, and text for dates, as dvc.lock has them."""
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, set):
        return sorted(map(_as_json, value), key=str)
    if isinstance(value, list | tuple):
        return [*map(_as_json, value)]
    return value if isinstance(value, str | int | float | None) else str(value)


def at(value: Any, key: str) -> Any:
    """The value at a dotted key of nested mappings and lists; a key that holds dots itself is found too.

    Raises:
        KeyError: there is none.
    """
    if not key:
        return value
    if isinstance(value, Mapping):
        for end in (*(i for i in range(len(key) - 1, 0, -1) if key[i] == "."), len(key)):
            if key[:end] in value:
                with suppress(KeyError):
                    return at(value[key[:end]], key[end + 1 :])
    elif isinstance(value, list):
        head, _, rest = key.partition(".")
        if head.isdigit() and int(head) < len(value):
            return at(value[int(head)], rest)
    raise KeyError(key)
