"""Copies of the finished smoke run, for tests that change something."""

from pathlib import Path

import pytest

from tests.pipeline.clones import Clone


@pytest.fixture(scope="session", autouse=True)
def _private_dvc(private_dvc: None) -> None:
    """For all tests of the pipeline."""


@pytest.fixture
def copy(smoke: Clone, tmp_path: Path) -> Clone:
    """A copy of the finished smoke run, free to be changed."""
    return smoke.copy(tmp_path / "copy")
