"""A server with workers for the tests of a file."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.serve import HOST, SETTINGS, serving
from runner.imported import PACKAGES

ROOT = Path(__file__).parents[2]
LIMITS = {"cpu": 2, "memory": 8, "gpu": 2}
WORKERS = 3
"""For stages without a GPU: as many as LIMITS lets work, and one for each that tests kill."""


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def checkout(root: Path) -> Path:
    """A folder that server and workers can start in, with this checkout's code."""
    root.mkdir()
    for name in ("prefect.yaml", "pipelines", "commands", *PACKAGES):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.fixture(scope="session", autouse=True)
def patient_workers() -> Iterator[None]:
    """Workers ask for work half as often: so many of them keep the server busy otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "PREFECT_WORKER_QUERY_SECONDS", "1")
        yield


@pytest.fixture(scope="session")
def code_for_all(private_dvc: None) -> Iterator[None]:
    """Projects that have no code of their own run with this checkout's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, code_for_all: None) -> Iterator[None]:
    """A real server, workers for stages without a GPU and two for those with one (which need no real GPU).

    It ends with the file: server and workers take a good part of a core while they wait.
    """
    root = checkout(tmp_path_factory.mktemp("server") / "checkout")
    port = free_port()
    settings = {PREFECT_API_URL: f"http://{HOST}:{port}/api", PREFECT_HOME: root / ".prefect"}
    with serving(root, port, WORKERS, 1, LIMITS), temporary_settings(settings):
        yield
