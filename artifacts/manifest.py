"""manifest.json: what a stage says of its run. One type for the runner that writes it and for all who read it.

Deterministic: without times, hosts and absolute paths.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from artifacts.files import dump_json, write_text
from artifacts.hashing import file_md5

LOCK_FILES = (Path("requirements.lock"), Path("requirements-cuda.lock"))
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")


class _Part(BaseModel):
    """A part of a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Hash(_Part):
    """A path's hash, as in dvc.lock."""

    md5: str
    size: int | None = None


class Environment(_Part):
    """What the numbers were made with."""

    locks: dict[str, str]
    """Lock file -> MD5."""
    python: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Self:
        """The current folder's locks and the versions of the libraries that make the numbers."""
        return cls(
            locks={str(path): file_md5(path) for path in LOCK_FILES if path.exists()},
            python=sys.version.split()[0],
            versions={name: version(name) for name in LIBRARIES},
        )


class Outside(_Part):
    """Something from outside the repository."""

    source: str
    """Its name, such as that of a package."""
    revision: str
    sha256: str
    """Of the bytes that were read."""


class Manifest(_Part):
    """What a stage says of its run."""

    stage: str
    """With its matrix values, such as `arm@binary-1`."""
    params: dict[str, Any]
    """Dotted key in params.yaml -> value, as in dvc.lock."""
    inputs: dict[str, Hash]
    code: dict[str, str]
    """Path -> MD5."""
    outputs: dict[str, Hash]
    """But the manifest itself."""
    counts: dict[str, Any]
    environment: Environment
    sources: list[Outside]

    def text(self) -> str:
        """The file's content."""
        return dump_json(self.model_dump(mode="json", exclude_unset=True))

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_text(path, self.text())
