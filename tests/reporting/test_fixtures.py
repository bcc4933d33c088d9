"""The fixtures of finished runs invent numbers, and no shape: every key that they write, a real run has."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lineage.records import files_of
from tests.pipeline.clones import ROOT, Clone
from tests.reporting.code_run import CodeRun

FILES = {"data": ("json", "jsonl"), "models": ("json",)}


def keys(value: Any, at: str = "") -> Iterator[str]:
    """Every place in a value, without the numbers of lists."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys(inner, f"{at}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{at}[]")


def shapes(root: Path) -> dict[str, set[str]]:
    """Kind of file, such as `data/samples/trace.json` -> the keys that any of them has."""
    found: dict[str, set[str]] = {}
    for folder, suffixes in FILES.items():
        for file in (file for suffix in suffixes for file in (root / folder).rglob(f"*.{suffix}")):
            lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text()]
            parts = file.relative_to(root).parts
            kind = f"{'/'.join(parts[:2])}/{file.name}"
            found.setdefault(kind, set()).update(key for line in lines for key in keys(json.loads(line)))
    return found


@pytest.mark.slow
def test_a_real_run_has_every_key_of_the_fixtures(smoke: Clone, new_run: Callable[[Path], Any], tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        new_run(tmp_path)
        CodeRun(tmp_path).write()
    invented, real, kept = shapes(tmp_path), shapes(smoke.root), shapes(files_of(ROOT / "reports/study"))
    assert len(invented) > 12
    odd = {kind: found - real.get(kind, set()) - kept.get(kind, set()) for kind, found in invented.items()}
    assert {kind: found for kind, found in odd.items() if found} == {}
