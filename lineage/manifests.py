"""The manifests that stages leave beside their outputs, where a project has them: what a run says of itself.

A manifest is an output named manifest.json: `stage`, and `inputs` and `outputs` as path -> {md5, size}; `code` as
path -> MD5; `params` as dotted key -> value; `environment` and `sources` where there are any. Other projects have none,
and lose only the checks that need one.
"""

import posixpath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lineage.contents import Contents
from lineage.model import Run

NAME = "manifest.json"


class Recorded(BaseModel):
    """A path's hash and size."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    md5: str
    size: int | None = None


class Environment(BaseModel):
    """What the run was made with."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    locks: dict[str, str] = {}
    """Lock file -> MD5."""
    python: str | None = None
    versions: dict[str, str] = {}


class Source(BaseModel):
    """Something from outside the repository that a run read."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    source: str
    revision: str
    sha256: str | None = None


class Manifest(BaseModel):
    """What a run says of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    stage: str
    inputs: dict[str, Recorded]
    outputs: dict[str, Recorded]
    code: dict[str, str] = {}
    params: dict[str, Any] | None = None
    environment: Environment = Environment()
    sources: list[Source] = []


def manifest_of(run: Run, contents: Contents) -> Manifest | None:
    """A run's manifest; None where it has none, or it is nowhere, or it isn't one."""
    for file in run.outputs:
        if posixpath.basename(file.path) == NAME:
            try:
                return Manifest.model_validate(contents.value(file))
            except ValidationError:
                return None
    return None


def is_manifest(path: str) -> bool:
    """Whether an output is a manifest: a record of the run, which changes with the code, not a result."""
    return posixpath.basename(path) == NAME
