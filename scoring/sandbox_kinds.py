"""The kinds of sandbox that parameters name; knows nothing of how they are made."""

from enum import StrEnum


class Isolation(StrEnum):
    """How strongly generated code is walled in."""

    NAMESPACES = "namespaces"
    """Linux namespaces: no network, no files but Python's own, no other processes; limits on everything."""
    PROCESS = "process"
    """A process with limits, without sockets and child processes. Where the kernel has no Landlock, it can read and
    write the user's files."""
