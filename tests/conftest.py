"""What all tests share. Property tests draw the same examples every time. `--golden-dir` is in pytest_golden.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.pipeline.clones import LIMIT, Clone, snapshot

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

COSTLY = ("server", "smoke_run")
"""Fixtures that are made once, since all tests that use them run in one process: minutes of work each."""


def group(item: pytest.Item) -> str:
    """What a test is run together with, in one process of several (xdist)."""
    used = getattr(item, "fixturenames", ())
    return next((name for name in COSTLY if name in used), item.path.name)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Say so to xdist, which reads it when all are collected."""
    item.add_marker(pytest.mark.xdist_group(group(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is costly comes first: it takes longest."""
    items.sort(key=lambda item: group(item) not in COSTLY)


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
    """A fresh clone in which `dvc repro` of the smoke profile has run, and all that it said."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("smoke") / "clone")
    running = clone.start("dvc", "repro")
    assert running.process.wait(LIMIT) == 0, running.said()[-6000:]
    return clone, running.said()


@pytest.fixture(scope="session")
def smoke(smoke_run: tuple[Clone, str]) -> Clone:
    """The clone of `smoke_run`. To be read, not changed."""
    return smoke_run[0]
