"""A checkpoint store behind an fsspec URL: a mirror of the local folder, and a lease for one writer at a time.

Knows files and folders only. What is unfinished is worked on locally; each finished piece is copied to the mirror,
a folder's seal last, so that a copy that broke off is recognised as torn.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from softmask.errors import InputError, Unavailable

LEASE_SECONDS = 60.0
"""A writer that has not renewed its lease for so long is taken for dead."""
LAST = "seal.json"


class Mirror:
    """The mirror of one stage instance's unfinished work.

    Args:
        url: fsspec URL of the store, such as `s3://bucket/checkpoints`.
        name: folder of the instance and key.
        local: the local folder that is mirrored.
    """

    def __init__(self, url: str, name: str, local: Path) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"the checkpoint store {url!r} can't be opened: {error}", where="local.toml") from None
        self._folder, self._local = f"{root.rstrip('/')}/{name}", local
        self._lease, self._owner, self._lost = f"{self._folder}.lease", uuid.uuid4().hex, False

    def fetch(self) -> None:
        """Copy what is in the mirror and not here."""
        self._fs.invalidate_cache()
        if not self._fs.exists(self._folder):
            return
        for remote in self._fs.find(self._folder):
            local = self._local / remote[len(self._folder) :].lstrip("/")
            if not local.exists():
                local.parent.mkdir(parents=True, exist_ok=True)
                draft = local.with_name(f".{local.name}.fetched")
                self._fs.get_file(remote, str(draft))
                draft.replace(local)

    def publish(self, path: Path) -> None:
        """Copy a finished file, or a finished folder with its seal last; its siblings that are gone here go there too.

        Raises:
            Unavailable: another writer has taken the lease.
        """
        if self._lost:
            raise Unavailable(f"another machine has taken over this stage (lease {self._lease})", todo="Let it finish")
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        for file in sorted(files, key=lambda p: (p.name == LAST, p.as_posix())):
            remote = self._remote(file)
            self._fs.makedirs(remote.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(file), remote)
        if path.is_dir():
            kept = {folder.name for folder in path.parent.iterdir()}
            for remote in self._fs.ls(self._remote(path.parent), detail=False, refresh=True):
                if remote.rstrip("/").rsplit("/", 1)[-1] not in kept:
                    self._fs.rm(remote, recursive=True)

    def clear(self) -> None:
        """Remove the mirror: the stage has finished."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._folder, recursive=True)

    @contextmanager
    def leased(self, lost: Callable[[], None]) -> Iterator[None]:
        """Hold the lease, renewing it from a thread.

        Args:
            lost: called when another writer has taken the lease; must end the work.

        Raises:
            Unavailable: another writer holds it.
        """
        self._take()
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(done, lost), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            if self._holder().get("owner") == self._owner:
                with suppress(FileNotFoundError):
                    self._fs.rm(self._lease)

    def _take(self) -> None:
        holder = self._holder()
        if holder and time.time() - float(holder["renewed"]) < LEASE_SECONDS:
            raise Unavailable(
                f"another machine is working on this stage (lease {self._lease})",
                todo=f"Wait for it; a dead writer's lease ends after {LEASE_SECONDS:.0f} seconds",
            )
        self._renew()
        time.sleep(0.2)  # of two that take it at once, the later write wins and the other sees that here
        if self._holder().get("owner") != self._owner:
            raise Unavailable(f"another machine has just begun this stage (lease {self._lease})", todo="Wait for it")

    def _keep(self, done: threading.Event, lost: Callable[[], None]) -> None:
        while not done.wait(LEASE_SECONDS / 4):
            if self._holder().get("owner") != self._owner:
                self._lost = True
                lost()
                return
            with suppress(OSError):  # such as a full disk, for a while: the next time, or another writer takes it
                self._renew()

    def _holder(self) -> dict[str, Any]:
        self._fs.invalidate_cache()
        try:
            record: dict[str, Any] = json.loads(self._fs.cat_file(self._lease))
            return record if "renewed" in record else {}
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, TypeError):
            return {}

    def _renew(self) -> None:
        self._fs.makedirs(self._lease.rsplit("/", 1)[0], exist_ok=True)
        record = {"owner": self._owner, "renewed": time.time()}
        self._fs.pipe_file(self._lease, json.dumps(record).encode())

    def _remote(self, path: Path) -> str:
        relative = path.relative_to(self._local).as_posix()
        return f"{self._folder}/{relative}"
