"""A memory cgroup for a process and its children, where this user may make one; see cgroups(7)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_NAME = "softmask-"


def memory_group(process: int, most: int) -> Path | None:
    """Move a process into a new group, to be removed when all in it have ended; None where none can be had.

    Args:
        most: bytes that it and its children may hold together; who wants more is killed.
    """
    for parent, limit in _parents():
        _sweep(parent)
        folder = parent / f"{_NAME}{os.getpid()}-{process}"
        try:
            folder.mkdir()
            (folder / limit).write_text(str(most), encoding="ascii")
            (folder / "cgroup.procs").write_text(str(process), encoding="ascii")
        except OSError:
            remove(folder)
        else:
            return folder
    return None


def remove(folder: Path) -> None:
    """Remove a group, if nothing is left in it."""
    with suppress(OSError):
        folder.rmdir()


def _sweep(parent: Path) -> None:
    """Remove the groups of processes that were killed."""
    for folder in parent.glob(f"{_NAME}*-*"):
        if not Path("/proc", folder.name.removeprefix(_NAME).split("-")[0]).exists():
            remove(folder)


def _parents() -> Iterator[tuple[Path, str]]:
    """Groups below which one may be made, and the name of the limit: this process's own, or, in version 2, where
    groups with processes have none below them, the one above."""
    for own, version in _own():
        if version == "cgroup":
            yield own, "memory.limit_in_bytes"
        for parent in (own, own.parent) if version == "cgroup2" else ():
            with suppress(OSError):
                if "memory" in (parent / "cgroup.subtree_control").read_text(encoding="ascii").split():
                    yield parent, "memory.max"


def _own() -> Iterator[tuple[Path, str]]:
    """This process's groups, and their version; see proc_pid_mountinfo(5)."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    paths = {"cgroup2" if number == "0" else name: path for number, names, path in lines for name in names.split(",")}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, after = line.split(" - ")
        _, _, _, root, mounted, *_ = before.split()
        version, _, options = after.split(" ", 2)
        name = {"cgroup2": "cgroup2", "cgroup": "memory" if "memory" in options.split(",") else ""}.get(version)
        path = Path(paths.get(name or "", ""))
        if name and path.is_relative_to(root):
            yield Path(mounted, path.relative_to(root)), version
