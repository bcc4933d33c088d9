"""`tokens`: how documents become rows of fixed length."""

from pydantic import Field

from runner.section import Section


class TokensParams(Section):
    """Packing."""

    length: int = Field(ge=2, le=1 << 20)
    """Tokens in a row: the length of everything that is trained and generated."""
    batch_characters: int = Field(ge=1)
    """Documents are encoded together until they reach this. It bounds memory and changes no byte."""
