"""What all tests share. Property tests draw the same examples every time. `--golden-dir` is in pytest_golden.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.pipeline.clones import Clone, snapshot

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")


@pytest.fixture(scope="session")
def private_dvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DVC's machine-wide state (it remembers file hashes there) is a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        yield


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory, private_dvc: None) -> Path:
    """A repository to clone from: this checkout with its uncommitted changes."""
    return snapshot(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def smoke(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh clone in which `dvc repro` of the smoke profile has run. To be read, not changed."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("smoke") / "clone")
    clone.repro()
    return clone
