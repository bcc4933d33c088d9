"""The exception for a mistake, and its kind that may pass: what is wrong, where, what was expected, what to do."""


class InputError(Exception):
    """A mistake in the input that a person can mend. Shown as plain text, never as a traceback.

    Args:
        what: what is wrong, with the offending value.
        where: the file and the field or record.
        expected: what would have been right.
        todo: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", todo: str = "") -> None:
        self.what, self.where, self.expected, self.todo = what, where, expected, todo
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.expected:
            text += f"; expected {self.expected}"
        return text + (f". {self.todo}" if self.todo else "")


class Unavailable(InputError):
    """Something outside isn't there now and may be there later: a hub, a lock that another process holds.

    Whoever runs unattended may try again.
    """
