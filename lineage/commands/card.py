"""`card`: a model card from the record."""

from lineage.card import card_of
from lineage.commands.common import Output, Revision, Target, end, here, write
from lineage.trace import trace


def card_command(target: Target, rev: Revision = None, output: Output = None) -> None:
    """Write a model card in the Hugging Face hub's format: what it is, how it was made, its results, how to verify.

    Exit code 3: not all could be read.
    """
    repository = here()
    traced = trace(repository, target, rev)
    text, is_whole = card_of(repository, traced)
    write(text.encode(), output)
    end(partial=not is_whole)
