"""The checkpoint store (design, rule 7): unfinished work of a stage, keyed by the hash of its inputs.

The store lives outside DVC's outputs, because DVC deletes a stage's outputs before it runs. One writer at a
time holds a key; whoever runs the stage next with the same inputs goes on from what is there.
"""

import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from softmask.errors import InputError
from stages.files import dump_json, write_text

LOCAL_CONFIG = Path("local.toml")
DEFAULT_ROOT = ".checkpoints"


def store_root(config: Path = LOCAL_CONFIG) -> Path:
    """The store's folder: `checkpoints.path` of local.toml (not a parameter, not in git), else `.checkpoints`."""
    if not config.exists():
        return Path(DEFAULT_ROOT)
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
        path = table["checkpoints"]["path"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"can't be read ({error!r})", where=str(config), expected='[checkpoints]\npath = "..."'
        ) from None
    if not isinstance(path, str):
        raise InputError(f"checkpoints.path is {path!r}", where=str(config), expected="a path in quotes")
    return Path(path).expanduser()


@dataclass(frozen=True)
class Checkpoints:
    """The unfinished work of one stage instance, held by one writer."""

    path: Path
    key: str

    def unit(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of work that is computed once: its JSON value is kept, and read back when the stage runs again.

        The value passes through JSON in both cases, so that a resumed run sees the same bytes as an undisturbed one.
        """
        file = self.path / "units" / f"{name}.json"
        if file.exists():
            try:
                record = json.loads(file.read_text(encoding="utf-8"))
                if record["key"] == self.key:
                    return record["value"]
            except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
                pass  # torn: written by something else than write_text; compute it again
        text = dump_json({"key": self.key, "value": compute()})
        write_text(file, text)
        return json.loads(text)["value"]

    def clear(self) -> None:
        """Remove everything under this key: the stage has finished."""
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def hold(root: Path, instance: str, key: str) -> Iterator[Checkpoints]:
    """Hold a key of the store as its only writer.

    Args:
        instance: the stage and its matrix values, such as `arm@binary-1`, for people who look into the store.
        key: hash of the stage's inputs.

    Raises:
        InputError: another process holds it, or the folder can't be made.
    """
    path = root / f"{instance}-{key[:16]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f"{path.name}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{instance} is running in another process (it holds {path}.lock)",
            todo="Wait for it, or stop it; then run again",
        ) from None
    except OSError as error:
        raise InputError(f"the checkpoint store can't be used: {error}", where=str(root)) from None
    try:
        yield Checkpoints(path, key)
    finally:
        lock.release()
