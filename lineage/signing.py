"""Ed25519 keys in local files, and signed DSSE envelopes. Knows nothing of what is signed.

A private key is PEM (PKCS 8, not encrypted), a public key PEM (SubjectPublicKeyInfo). No key server, no network.
"""

import binascii
import json
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from lineage.errors import AuditError, Wrong

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Forged(Wrong):
    """What is signed is not what lies here: edited, cut short, or signed by somebody else."""


def generate_key(file: Path) -> Path:
    """Write a new private key, which only its owner can read, and its public key beside it as FILE.pub.

    Returns:
        The public key's file.

    Raises:
        AuditError: one of the files is there already, or can't be written.
    """
    public = file.with_name(file.name + ".pub")
    for place in (file, public):
        if place.exists() or place.is_symlink():
            raise AuditError("it is there already, and a key is never written over", str(place), todo="Name a new file")
    key = Ed25519PrivateKey.generate()
    _write_new(file, CryptoSigner(key).private_bytes, 0o600)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return public


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(data)
    except OSError as error:
        raise AuditError(f"it can't be written: {error.strerror}", where=str(file)) from None


def sign(payload: bytes, key: Path) -> bytes:
    """A DSSE envelope around a payload, as JSON; the same payload and key give the same bytes.

    Raises:
        AuditError: the key can't be read, or is no private Ed25519 key.
    """
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(_signer(key))
    return json.dumps(envelope.to_dict(), sort_keys=True).encode() + b"\n"


def opened(data: bytes, key: Path) -> tuple[bytes, str]:
    """The payload of an envelope whose signature holds, and the id of the key that signed it.

    Raises:
        Forged: it is no whole envelope, another key has signed it, or the signature doesn't hold.
        AuditError: the key can't be read, or is no public Ed25519 key.
    """
    public = _public_key(key)
    try:
        envelope = Envelope.from_dict(json.loads(data))
        signers = ", ".join(envelope.signatures)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, Error, binascii.Error):
        raise Forged("it is no whole DSSE envelope: another file, cut short, or edited") from None
    if public.keyid not in envelope.signatures:
        raise Forged(f"this key ({public.keyid[:16]}) has not signed it", expected=f"the key {signers or '(no one)'}")
    try:
        envelope.verify([public], 1)
    except VerificationError:
        raise Forged("the signature doesn't hold: the statement was edited after it was signed") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise AuditError(f"it holds {envelope.payload_type!r}", expected=PAYLOAD_TYPE)
    return envelope.payload, public.keyid


def _signer(file: Path) -> CryptoSigner:
    try:
        key = load_pem_private_key(_read(file), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(
            "it is no private Ed25519 key",
            where=str(file),
            expected="PEM without a password",
            todo="Make one: dvc-lineage keygen FILE",
        )
    return CryptoSigner(key)


def _public_key(file: Path) -> SSlibKey:
    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise AuditError(
            "it is no public Ed25519 key", where=str(file), expected="the FILE.pub that keygen has written"
        )
    return SSlibKey.from_crypto(key)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AuditError(f"the key can't be read: {error.strerror}", where=str(file)) from None
