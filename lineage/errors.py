"""The one error that a person sees: what is wrong, where, what was expected, what to do."""


class AuditError(Exception):
    """A mistake of the user, or something that can't be read.

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
        super().__init__("\n  ".join(parts))


class Missing(AuditError):
    """What is asked for needs bytes that are not here: nothing is wrong, and the answer would be partial."""
