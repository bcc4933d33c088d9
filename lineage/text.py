"""Text that somebody else wrote, as a terminal, a file or a page may get it: what steers or hides is spelled out."""

import json


def printable(text: str) -> str:
    """Text on one line: line ends, control characters and marks that turn the direction of writing are spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def visible(text: str) -> str:
    """Text of several lines, each as `printable` has it. JSON says the same afterwards."""
    return "\n".join(map(printable, text.split("\n")))
