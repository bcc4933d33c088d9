"""What all tests share. Property tests draw the same examples every time. `--golden-dir` is in pytest_golden.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.pipeline.clones import LIMIT, Clone, snapshot

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
def smoke_run(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, str]:
    """A fresh clone in which `dvc repro` of the smoke profile has run, and all that it said.

    Of several processes that run tests (xdist, which gives each a folder in one), one makes it.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke"
    folder.mkdir(exist_ok=True)
    said = folder / "said.txt"
    with FileLock(folder / "lock"):
        if said.exists():
            return Clone(folder / "clone"), said.read_text()
        clone = Clone.of(origin, folder / "clone")
        running = clone.start("dvc", "repro")
        assert running.process.wait(LIMIT) == 0, running.said()[-6000:]
        said.write_text(running.said())
        return clone, running.said()


@pytest.fixture(scope="session")
def smoke(smoke_run: tuple[Clone, str]) -> Clone:
    """The clone of `smoke_run`. To be read, not changed."""
    return smoke_run[0]
