"""The code of the current folder as it was when this process began, before any of it was imported.

Imports take seconds, in which somebody may edit a file: what runs is then not what lies there.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("softmask", "scoring", "artifacts", "runner", "reporting", "stages")
"""What stages run."""
VERSION = "runner/version.yaml"
"""Stands for the runner in every stage's dependencies."""
CODE = tuple(f"{package}/" for package in PACKAGES)
_AT_START = {
    path.as_posix(): path.read_bytes()
    for package in PACKAGES
    for path in Path(package).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}


def runner_hash() -> str:
    """MD5 of all files of the runner that were there."""
    files = sorted((file, code) for file, code in _AT_START.items() if file.startswith("runner/"))
    return hashlib.md5(repr(files).encode(), usedforsecurity=False).hexdigest()


def imported(files: Iterable[str]) -> dict[str, str]:
    """MD5 of those of these files that were there."""
    known = {file: _AT_START[file] for file in files if file in _AT_START}
    return {file: hashlib.md5(code, usedforsecurity=False).hexdigest() for file, code in known.items()}
