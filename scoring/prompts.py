"""Templates of what a model is asked: a problem's texts put into an instruction. Knows no tokenizer and no chat."""

import re
from collections.abc import Mapping

PLACEHOLDERS = ("request", "prompt", "signature")
"""What a template may hold in braces: what the user asks in English; the signature with its docstring, and without."""
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


def fill_template(template: str, texts: Mapping[str, str]) -> str:
    """`template` with each placeholder replaced, in one pass: braces inside of the texts stay as they are."""
    return _FIELD.sub(lambda field: texts.get(field[1], field[0]), template)


def fields_of(template: str) -> list[str]:
    """The names in braces of a template, in their order."""
    return _FIELD.findall(template)


def listed() -> str:
    """The placeholders as messages name them: `{request}, {prompt} or {signature}`."""
    *others, last = (f"{{{name}}}" for name in PLACEHOLDERS)
    return f"{', '.join(others)} or {last}"
