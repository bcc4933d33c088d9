"""One finished smoke run for all tests of the pipeline; tests that change something take a copy of it."""

from pathlib import Path

import pytest

from tests.pipeline.clones import Clone, snapshot


@pytest.fixture(scope="session", autouse=True)
def _dvc_keeps_to_itself(tmp_path_factory: pytest.TempPathFactory) -> object:
    """DVC's machine-wide state (it remembers file hashes there) is a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        yield


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository to clone from: this checkout with its uncommitted changes."""
    return snapshot(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def smoke(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh clone in which `dvc repro` of the smoke profile has run. To be read, not changed."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("smoke") / "clone")
    clone.repro()
    return clone


@pytest.fixture
def copy(smoke: Clone, tmp_path: Path) -> Clone:
    """A copy of the finished smoke run, free to be changed."""
    return smoke.copy(tmp_path / "copy")
