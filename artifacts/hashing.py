"""Content hashes as DVC writes them into dvc.lock, so that a manifest and the lock can be compared by eye."""

import hashlib
import json
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
LEFT_OUT = ("run.json",)
"""As in .dvcignore: times and hosts are in no hash."""


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes, as in dvc.lock."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def path_hash(path: Path) -> dict[str, Any]:
    """`{"md5": ..., "size": ...}` of a file or folder; a folder's as DVC computes it, ending in `.dir`."""
    if path.is_file():
        return {"md5": file_md5(path), "size": path.stat().st_size}
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in LEFT_OUT)
    entries = [{"md5": file_md5(p), "relpath": p.relative_to(path).as_posix()} for p in files]
    entries.sort(key=lambda entry: entry["relpath"])
    digest = hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return {"md5": digest + ".dir", "size": sum(p.stat().st_size for p in files)}
