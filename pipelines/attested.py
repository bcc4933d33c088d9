"""What a promotion leaves beside the model: a signed statement of where it came from, and a model card.

Both are made by `lineage` from the record alone.
"""

from pathlib import Path

import pygit2

from lineage.attestation import attest
from lineage.card import card
from lineage.errors import AuditError
from lineage.repository import Repository
from lineage.signing import generate_key
from pipelines.checkout import add_files, has
from softmask.errors import InputError

KEY = "retrain.key"
"""Signs promotions; in .git, which nobody commits, and made when there is none. Its public key lies beside it."""
ATTESTATION, PUBLIC_KEY = Path("reports/attestation.json"), Path("reports/attestation.pub")
CARD = Path("reports/model_card.md")


def signing_key(home: Path) -> Path:
    """Where a repository keeps the key that signs its promotions."""
    return Path(pygit2.Repository(str(home)).path) / KEY


def attested(home: Path, name: str, commit: str, target: str) -> str:
    """The commit of a candidate that has its attestation and model card, a new one on its branch if need be.

    Args:
        home: the repository.
        name: of the experiment.
        commit: its last one.
        target: what is attested, as `python -m lineage` understands it.

    Raises:
        InputError: a file of the closure is missing or isn't what was recorded, or the key can't be used.
    """
    if has(home, commit, ATTESTATION):
        return commit
    key = signing_key(home)
    try:
        if not key.exists():
            generate_key(key)
        repository = Repository(home)
        signed, text = attest(repository, target, key, commit), card(repository, target, commit).text
    except AuditError as error:
        raise InputError(f"the model can't be attested: {error}", where=name) from None
    public = key.with_name(f"{key.name}.pub").read_bytes()
    files = {ATTESTATION: signed, PUBLIC_KEY: public, CARD: text.encode()}
    return add_files(home, name, commit, files, f"attest {name}")
