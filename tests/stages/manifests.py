"""Manifests in the current folder for tests of what reads them, made by the stages' own writer."""

from pathlib import Path
from typing import Any

from artifacts.manifest import Environment, Manifest


def write_manifest(folder: str, counts: dict[str, Any]) -> None:
    """What the stage that makes a folder says of itself, as far as others read it: its counts and its environment."""
    environment = Environment.here()
    said = Manifest(
        stage=folder, params={}, inputs={}, code={}, outputs={}, counts=counts, environment=environment, sources=[]
    )
    said.write(Path(folder) / "manifest.json")
