"""Templates of what a model is asked: a problem's texts put into an instruction. Knows no tokenizer and no chat."""

import re

PLACEHOLDERS = ("request", "prompt")
"""What a template may hold in braces: what the user asks in English; the signature with its docstring."""
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


def fill_template(template: str, *, request: str, prompt: str) -> str:
    """`template` with `{request}` and `{prompt}` replaced, in one pass: braces inside of the texts stay as they are."""
    texts = {"request": request, "prompt": prompt}
    return _FIELD.sub(lambda field: texts.get(field[1], field[0]), template)


def fields_of(template: str) -> list[str]:
    """The names in braces of a template, in their order."""
    return _FIELD.findall(template)
