"""What tests of the record share: nothing that they read or make is the user's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lineage.cache
from tests.lineage import model_projects, projects
from tests.lineage.simulated import Project


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


@pytest.fixture(scope="session")
def broad(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """All that DVC knows, in one project. To be read, not changed, as those below."""
    return projects.broad(tmp_path_factory.mktemp("broad"))


@pytest.fixture(scope="session")
def monorepo(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project in a folder of a git repository that has another one, too."""
    return projects.monorepo(tmp_path_factory.mktemp("monorepo"))


@pytest.fixture(scope="session")
def without_commits(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project that was run and never committed."""
    return projects.without_commits(tmp_path_factory.mktemp("without_commits"))


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project as DVC 2 left it."""
    return projects.legacy(tmp_path_factory.mktemp("legacy"))


@pytest.fixture(scope="session")
def shallow(broad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of `broad` without older commits and cache."""
    return projects.shallow(broad, tmp_path_factory.mktemp("shallow"))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project that makes a model and a metric."""
    return model_projects.plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def nasty(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project whose names hold spaces, quotes, markup and unicode, without commits."""
    return model_projects.nasty(tmp_path_factory.mktemp("nasty"))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Project:
    """A project whose stages are run in this process, run once and committed."""
    return Project.new(tmp_path_factory.mktemp("simulated") / "first")
