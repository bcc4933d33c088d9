"""What tests of the record share: nothing that they read or make is the user's."""

import os
from collections.abc import Iterator

import pytest

import lineage.cache


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory, private_dvc: None) -> Iterator[None]:
    """What lineage remembers, and DVC's machine-wide state, are temporary folders; git knows nobody here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINEAGE_CACHE_DIR", str(tmp_path_factory.mktemp("lineage")))
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "tests")
            patch.setenv(f"GIT_{role}_EMAIL", "tests@example.org")
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        lineage.cache._kept.cache_clear()
        yield
    lineage.cache._kept.cache_clear()
