"""The errors that a person sees: what is wrong, where, what was expected, what to do."""

import re

FREE_LINE = re.compile(r"\n(?!  )")
"""A line that no message has: it came with a name."""


class AuditError(Exception):
    """A mistake of the user.

    Args:
        what: what is wrong, in one sentence without a full stop.
        where: file, revision or option.
        expected: what would have been right.
        todo: what to do.
    """

    def __init__(self, what: str, where: str = "", expected: str = "", todo: str = "") -> None:
        parts = [f"{where}: {what}" if where else what]
        parts += [f"expected: {expected}"] if expected else []
        parts += [todo] if todo else []
        super().__init__(FREE_LINE.sub(r"\\n", "\n  ".join(parts)))


class Missing(AuditError):
    """What an answer needs isn't here, or can't be read; no mistake of the user."""


class Wrong(AuditError):
    """What is asked about isn't as its record or signature says; no mistake of the user."""


class Unreadable(Exception):
    """A file that can't be understood; its text says why."""
