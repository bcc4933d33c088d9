"""Files of the hub, or a plain message why they aren't here."""

from collections.abc import Callable
from pathlib import Path

from softmask.errors import Unavailable


def fetched(download: Callable[[], str], name: str, where: str, todo: str) -> Path:
    """Where the hub's client has put what it was asked for.

    Args:
        download: asks the client.
        name: of what is fetched, with its revision.
        where: the section of params.yaml, for errors.
        todo: what else the user can do.

    Raises:
        Unavailable: it can't be fetched.
    """
    try:
        return Path(download())
    except Exception as error:  # the hub's client lets errors of its HTTP library through
        raise Unavailable(f"{name} can't be fetched: {' '.join(str(error).split())}", where=where, todo=todo) from None
