"""Which model is in use: DVC's registry, whose versions and assignments are git tags that GTO writes and reads."""

from dataclasses import dataclass
from pathlib import Path

import gto.api
from gto.exceptions import ArtifactNotFound, GTOException
from gto.registry import GitRegistry

from softmask.errors import InputError

ARTIFACT = "mdlm"
"""The model that retrains promote, by its name in dvc.yaml."""
STAGE = "champion"
"""GTO's name for the version that is in use."""


@dataclass(frozen=True)
class Version:
    """A version of the artifact."""

    name: str
    """Such as `v0.0.2`."""
    commit: str


def champion(root: Path) -> Version | None:
    """The version that is in use in a repository, if there is any.

    Raises:
        InputError: the tags can't be read.
    """
    try:
        found = gto.api.find_versions_in_stage(str(root), ARTIFACT, STAGE)
    except ArtifactNotFound:  # it has no version yet
        return None
    except GTOException as error:
        raise InputError(f"the model registry can't be read: {error}", where=str(root), todo="See `gto show`") from None
    return Version(found[0].version, found[0].commit_hexsha) if found else None


def was_in_use(root: Path, commit: str) -> bool:
    """Whether a commit's model is or has been in use."""
    with GitRegistry.from_url(str(root)) as registry:
        version = registry.find_artifact(ARTIFACT, create_new=True).find_version(commit_hexsha=commit)
        return version is not None and bool(version.stages)


def promote(root: Path, commit: str, message: str) -> Version:
    """Put a commit's model into use: a tag for the version, and one for its assignment, both on that commit.

    Raises:
        InputError: the tags can't be written.
    """
    try:
        gto.api.assign(str(root), ARTIFACT, STAGE, ref=commit, message=message)
    except GTOException as error:
        raise InputError(f"{commit} can't be promoted: {error}", where=str(root), todo="See `gto show`") from None
    promoted = champion(root)
    assert promoted is not None and promoted.commit == commit
    return promoted
