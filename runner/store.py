"""The checkpoint store (design, rule 7): unfinished work of a stage, keyed by the hash of its inputs.

The store lives outside DVC's outputs, because DVC deletes a stage's outputs before it runs. One writer at a
time holds a key; whoever runs the stage next with the same inputs goes on from what is there.
"""

import hashlib
import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from artifacts.files import dump_json, write_text
from runner.remote_store import Mirror
from softmask.errors import InputError, Unavailable
from softmask.refused import refusal

LOCAL_CONFIG = Path("local.toml")
DEFAULT_ROOT = ".checkpoints"
WANTED = '[checkpoints] with path = "a folder" or url = "an fsspec URL"'


@dataclass(frozen=True)
class Location:
    """Where the store is: a folder, and for an fsspec URL the mirror of that folder."""

    root: Path
    url: str | None


def location(config: Path = LOCAL_CONFIG) -> Location:
    """The store that local.toml names (no parameter, not in git), else `.checkpoints`.

    `[checkpoints]` holds `path`, a folder that may be shared, or `url`, an fsspec URL such as `s3://bucket/checkpoints`.

    Raises:
        InputError: local.toml can't be read or names neither or both.
    """
    if not config.exists():
        return Location(Path(DEFAULT_ROOT), None)
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))["checkpoints"]
        ((kind, value),) = table.items()
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error!r})", where=str(config), expected=WANTED) from None
    if kind not in ("path", "url") or not isinstance(value, str):
        raise InputError(f"checkpoints.{kind} is {value!r}", where=str(config), expected=WANTED)
    if kind == "path":
        return Location(Path(value).expanduser(), None)
    if "://" not in value:
        raise InputError(f"checkpoints.url is {value!r}", where=str(config), expected="a URL; for a folder use path")
    return Location(Path(DEFAULT_ROOT), value)


@dataclass(frozen=True)
class Checkpoints:
    """The unfinished work of one stage instance, held by one writer."""

    path: Path
    key: str
    mirror: Mirror | None = None

    @classmethod
    def at(cls, path: Path, key: str) -> "Checkpoints":
        """The work under `path`, mirrored if the store is a URL."""
        url = location().url
        return cls(path, key, None if url is None else Mirror(url, path.name, path))

    def published(self, path: Path) -> None:
        """A file or folder under `path` is finished: copy it to the mirror, if there is one."""
        if self.mirror is not None:
            self.mirror.publish(path)

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
        self.published(file)
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
        if self.mirror is not None:
            self.mirror.clear()


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
    checkpoints = Checkpoints.at(path, key)
    try:
        if checkpoints.mirror is None:
            yield checkpoints
        else:
            with checkpoints.mirror.leased(_stop):
                checkpoints.mirror.fetch()
                yield checkpoints
    finally:
        lock.release()


def _stop() -> None:
    """Another machine took the lease: this one must not write on."""
    os.kill(os.getpid(), signal.SIGTERM)
