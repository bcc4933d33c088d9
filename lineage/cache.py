"""What was read once and can't change: by the hash of what it was read from, in the user's cache folder.

Entries are JSON, so that a foreign file there can give wrong text and run nothing.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import diskcache
from platformdirs import user_cache_dir

FORMAT = 3
"""Raised when what is kept changes its shape."""
LIMIT = 1 << 30
"""Bytes; older entries go first."""


@cache
def _kept() -> diskcache.Cache:
    folder = Path(os.environ.get("LINEAGE_CACHE_DIR") or user_cache_dir("lineage"))
    return diskcache.Cache(str(folder / str(FORMAT)), disk=diskcache.JSONDisk, size_limit=LIMIT)


@contextmanager
def at_once() -> Iterator[None]:
    """Writes all that is remembered meanwhile together, which is a hundred times as fast."""
    with ExitStack() as stack:
        with suppress(OSError, diskcache.Timeout):
            stack.enter_context(_kept().transact())
        yield


def remembered(kind: str, key: str, make: Callable[[], Any]) -> Any:
    """`make()`, or what it gave before for the same content.

    Args:
        kind: what is kept, such as `lock`.
        key: the hash of the content that `make` reads. `make` must depend on nothing else.
    """
    name = f"{kind}:{key}"
    try:
        found = _kept().get(name)
        if found is None:
            found = make()
            if json.loads(json.dumps(found)) == found:  # a key that is a number would come back as text
                _kept().set(name, found)
    except (OSError, diskcache.Timeout):  # a full disk, or a cache folder that can't be written
        return make()
    return found
