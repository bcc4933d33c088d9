"""The checkpoint store (design, rule 7): unfinished work of a stage, keyed by the hash of its inputs.

The store lives outside DVC's outputs, because DVC deletes a stage's outputs before it runs. One writer at a
time holds a key; whoever runs the stage next with the same inputs goes on from what is there.
"""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from artifacts.files import dump_json, write_text
from softmask.errors import InputError, Unavailable
from softmask.refused import refusal

LOCAL_CONFIG = Path("local.toml")
DEFAULT_ROOT = ".checkpoints"
WANTED = '[checkpoints] with path = "a folder", which may be shared'


def location(config: Path = LOCAL_CONFIG) -> Path:
    """The store: the folder that local.toml names (no parameter, not in git), else `.checkpoints`.

    Raises:
        InputError: local.toml can't be read or names none.
    """
    if not config.exists():
        return Path(DEFAULT_ROOT)
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))["checkpoints"]
        ((key, value),) = table.items()
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error!r})", where=str(config), expected=WANTED) from None
    if key != "path" or not isinstance(value, str):
        raise InputError(f"checkpoints.{key} is {value!r}", where=str(config), expected=WANTED)
    return Path(value).expanduser()


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
        text = dump_json({"key": self.key, "value": compute()}, str(file))
        write_text(file, text)
        return json.loads(text)["value"]

    def bound_to(self, read: Mapping[str, Any]) -> "Checkpoints":
        """The same store for work that also depends on `read`, path -> hash: inputs that are `collections`.

        Units of other contents are computed again.
        """
        text = json.dumps([self.key, read], sort_keys=True)
        return replace(self, key=hashlib.sha256(text.encode()).hexdigest())

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
        Unavailable: another process holds it.
        InputError: the folder can't be made.
    """
    path = root / f"{instance}-{key[:16]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f"{path.name}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise Unavailable(
            f"{instance} is running in another process (it holds {path}.lock)",
            todo="Wait for it, or stop it; then run again",
        ) from None
    except OSError as error:
        raise (refusal(error) or InputError(f"the checkpoint store can't be used: {error}", where=str(root))) from None
    try:
        yield Checkpoints(path, key)
    finally:
        lock.release()
