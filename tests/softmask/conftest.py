"""What the tests of the model share: one thread, since on tiny tensors a second one costs more than it helps."""

import logging
from collections.abc import Iterator

import pytest

from tests.threads import threads


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    # DVC's API, which other tests call, disables every logger that exists when it sets its own up
    logging.getLogger("softmask.training.resumable").disabled = False
