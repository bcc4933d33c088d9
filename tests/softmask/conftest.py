"""What the tests of the model share: one thread, since on tiny tensors a second one costs more than it helps."""

import logging
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    # DVC's API, which other tests call, disables every logger that exists when it sets its own up
    logging.getLogger("softmask.training.resumable").disabled = False
