"""`card`: a model card from the record."""

from lineage.card import card
from lineage.commands.common import Output, Revision, Target, end, here, working, write


def card_command(target: Target, rev: Revision = None, output: Output = None) -> None:
    """Write a model card in the Hugging Face hub's format: what it is, how it was made, its results, how to verify.

    Exit code 3: not all could be read.
    """
    with working():
        made = card(here(), target, rev)
    write(made.text.encode(), output)
    end(partial=not made.complete)
