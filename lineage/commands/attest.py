"""`keygen`, `attest` and `check`: sign where an artifact came from, and say later whether it still holds."""

from pathlib import Path
from typing import Annotated

import typer

from lineage.attestation import Checked, attest, check, check_file
from lineage.commands.common import (
    AsJson,
    Output,
    Revision,
    Target,
    answer,
    end,
    escape,
    hashing,
    here,
    out,
    write,
)
from lineage.errors import AuditError, Wrong
from lineage.signing import Forged, generate_key


def keygen_command(
    file: Annotated[Path, typer.Argument(help="The private key's new file; FILE.pub gets the public key.")],
) -> None:
    """Make an Ed25519 key to sign with. Keep FILE secret; give FILE.pub to whoever checks."""
    public = generate_key(file)
    out.print(f"private key: {escape(str(file))} (keep it secret, and out of git)\npublic key:  {escape(str(public))}")


def attest_command(
    target: Target,
    key: Annotated[Path, typer.Option(help="The private key that `keygen` made.", show_default=False)],
    rev: Revision = None,
    output: Output = None,
) -> None:
    """Sign what a target is and every file that it came from: an in-toto statement with SLSA provenance.

    All bytes are hashed anew. What isn't as dvc.lock says (exit code 1) or is missing (3) is refused; but of what a
    kept record left out, the recorded hash is signed. Who can change files can change hashes and an unsigned record
    with them: what your public key signs is what others need not take on trust.
    """
    with hashing() as progress:
        made = attest(here(), target, key, rev, progress)
    write(made, output)


def check_command(
    attestation: Annotated[
        Path,
        typer.Argument(
            help="The file that `attest` wrote; with --statement, the file or folder to check.", show_default=False
        ),
    ],
    key: Annotated[Path, typer.Option(help="The signer's public key, FILE.pub.", show_default=False)],
    rev: Revision = None,
    statement: Annotated[
        Path | None,
        typer.Option(help="What `attest` wrote, to hold a file or folder against it: no repository is needed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the signature of an attestation, then hash every file that it names, or the one that is given.

    Exit code 1: it was tampered with, or a file differs. 3: nothing differs, but not every file is here.
    """
    signed = statement or attestation
    try:
        data = signed.read_bytes()
    except OSError as error:
        raise AuditError(f"it can't be read: {error.strerror}", where=str(signed)) from None
    if statement is not None and rev is not None:
        raise AuditError("these exclude each other", where="--statement, --rev", todo="Give one of them")
    try:
        with hashing() as progress:
            if statement is None:
                found = check(here(), data, key, rev, progress)
            else:
                found = check_file(attestation, data, key, progress)
    except Forged as error:
        raise Wrong(str(error), where=str(signed)) from None
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found, "is not here" if statement is not None else f"neither in {found.revision} nor in the cache")
    end(wrong=not found.holds, partial=not found.complete)


def _print(found: Checked, missing: str) -> None:
    for differing in found.differing:
        out.print(f"[red]{escape(f'{differing.path}: {differing.what}')}")
    for path in found.missing:
        out.print(f"[yellow]{escape(f'{path}: {missing}')}")
    verdict = "[green]holds" if found.holds and found.complete else "[red]does not hold" if not found.holds else ""
    partial = "" if found.complete else "[yellow]not every file is here"
    out.print(f"{escape(found.target)}: {verdict or partial}")
    if found.by_hash:
        outputs = "output is" if found.by_hash == 1 else "outputs are"
        out.print(f"{found.by_hash} {outputs} known only by hash, as when it was signed")
    out.print(f"[dim]signed by {found.signer[:16]}, commit {(found.commit or 'none')[:10]}, {found.files} files")
