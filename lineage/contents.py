"""Where the bytes of a recorded file are: in the workspace, in git, in DVC's cache. Trusts no hash."""

import csv
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dvc.utils.serialize import PARSERS, ParseError

from lineage.hashing import LEGACY, bytes_hash, file_hash, folder_hash
from lineage.model import File
from lineage.states import Kept, State, Workspace
from lineage.yaml12 import Loader

MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Object:
    """An object of the cache that a hash names."""

    hash: str
    path: Path

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self.path.is_file()


class Contents:
    """The bytes of one state's files.

    Args:
        state: a commit, an experiment, or the workspace.
    """

    def __init__(self, state: State) -> None:
        self.state = state

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

        None where neither the cache, a kept record nor the workspace has such.
        """
        assert file.hash is not None
        kept = self.object(file.hash, file.algorithm)
        if kept.exists and (found := listed(kept.path.read_bytes(), file.hash)) is not None:
            return found
        entries = self._entries(file)
        return entries if entries is not None and folder_hash(entries.items()) == file.hash else None

    def _entries(self, file: File) -> dict[str, str] | None:
        if isinstance(self.state, Kept):
            return self.state.listing(file.path)
        if isinstance(self.state, Workspace) and not file.is_external:
            return {p: file_hash(f, file.algorithm) for p, f in self.state.files_under(file.path).items()}
        return None

    def value(self, file: File) -> Any:
        """What a file says, as `parsed` reads it; None where it is nowhere."""
        return parsed(self.read(file), file.path)


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


def _is_entry(path: Any, digest: Any) -> bool:
    """Whether it is a path inside a folder, and an MD5."""
    inside = isinstance(path, str) and not path.startswith("/") and ".." not in path.split("/")
    return inside and isinstance(digest, str) and MD5.fullmatch(digest) is not None


def parsed(data: bytes | None, path: str) -> Any:
    """What a file says; None where it isn't there, or isn't JSON, YAML, TOML, plain Python or a table with a heading.

    A table (.csv, .tsv) is a list of its rows by column, all text.
    """
    if data is None:
        return None
    try:
        if path.endswith((".csv", ".tsv")):
            lines = io.StringIO(data.decode(), newline="")
            return [*csv.DictReader(lines, delimiter="," if path.endswith(".csv") else "\t")]
        if path.endswith((".toml", ".py")):
            return listed_tuples(PARSERS[path[path.rindex(".") :]](data.decode(), path))
        return json.loads(data) if path.endswith(".json") else yaml.load(data, Loader=Loader)
    except (ValueError, yaml.YAMLError, ParseError, csv.Error, RecursionError):
        return None


def listed_tuples(value: Any) -> Any:
    """A value of Python as dvc.lock has it: tuples are lists there."""
    if isinstance(value, dict):
        return {key: listed_tuples(inner) for key, inner in value.items()}
    return [*map(listed_tuples, value)] if isinstance(value, list | tuple) else value


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
