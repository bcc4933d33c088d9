"""Hashes of bytes and folders, as DVC computes them, made anew: nothing here trusts sizes, times or DVC's state."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from dvc_data.hashfile.hash import get_hash_stream

BLOCK = 1 << 20
LEGACY = "md5-dos2unix"
Progress = Callable[[int], object]
"""Is told how many bytes were read."""


def stream_hash(stream: BinaryIO, algorithm: str = "md5", progress: Progress | None = None) -> str:
    """The hash of a stream's bytes in hex; `md5-dos2unix` is the one of DVC before 3.0."""
    hashing = get_hash_stream(stream, name=algorithm)
    while block := hashing.read(BLOCK):
        if progress is not None:
            progress(len(block))
    return str(hashing.hash_value)


def file_hash(path: Path, algorithm: str = "md5", progress: Progress | None = None) -> str:
    """The hash of a file's bytes in hex."""
    with path.open("rb") as stream:
        return stream_hash(stream, algorithm, progress)


def bytes_hash(data: bytes) -> str:
    """MD5 in hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def folder_hash(entries: Iterable[tuple[str, str]]) -> str:
    """A folder's hash from (path in it, hash of the file) in any order, ending in `.dir`."""
    listed = [{"md5": digest, "relpath": path} for path, digest in sorted(entries)]
    return bytes_hash(json.dumps(listed, sort_keys=True).encode()) + ".dir"
