"""When two documents are the same, or nearly so. Knows nothing of sources or files."""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from datasketch import LeanMinHash, MinHash, MinHashLSH

from stages.params.corpus import DuplicatesParams

_SHINGLES_AT_ONCE = 4096
"""Bounds the shingles x permutations array; a minimum over parts is the minimum, so no result depends on it."""

_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """The text that identity is decided on: Unicode NFKC, case folded, white space runs as one space, ends stripped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(normalised: str) -> bytes:
    """16 bytes that stand for a normalised text."""
    return blake2b(normalised.encode("utf-8"), digest_size=16).digest()


def position(text_digest: bytes) -> float:
    """A digest as a number in [0, 1): the same document always gets the same one, whatever else is in the corpus."""
    return int.from_bytes(text_digest[:6], "big") / 2**48


class NearDuplicates:
    """An index of validation documents that is asked about training documents.

    MinHash over word shingles, candidates by locality-sensitive hashing, then the estimated Jaccard similarity
    against the threshold (Broder 1997; datasketch). Memory grows with the indexed documents alone.
    """

    def __init__(self, params: DuplicatesParams) -> None:
        self._params = params
        self._lsh = MinHashLSH(threshold=params.threshold, num_perm=params.permutations)
        self._signatures: list[LeanMinHash] = []
        self._permutations = MinHash(num_perm=params.permutations, seed=params.seed).permutations

    def add(self, normalised: str) -> None:
        """Index a normalised document; one without words is like no other."""
        signature = self._signature(normalised)
        if signature is not None:
            self._lsh.insert(len(self._signatures), signature)
            self._signatures.append(signature)

    def matches(self, normalised: str) -> bool:
        """Whether an indexed document is a near duplicate of this normalised one."""
        signature = self._signature(normalised)
        if signature is None:
            return False
        candidates: Sequence[int] = self._lsh.query(signature)
        return any(signature.jaccard(self._signatures[key]) >= self._params.threshold for key in candidates)

    def _signature(self, normalised: str) -> LeanMinHash | None:
        shingles = _shingle_hashes(normalised, self._params.shingle_words)
        if not len(shingles):
            return None
        minhash = MinHash(
            num_perm=self._params.permutations,
            seed=self._params.seed,
            hashfunc=int,
            permutations=self._permutations,
            scheme="affine32",
        )
        for start in range(0, len(shingles), _SHINGLES_AT_ONCE):
            minhash.update_batch(shingles[start : start + _SHINGLES_AT_ONCE].tolist())
        return LeanMinHash(minhash)


def _shingle_hashes(normalised: str, words: int) -> np.ndarray:
    """Distinct 32-bit hashes of the runs of `words` words, uint32 [shingles]; a shorter text is one shingle.

    Words are hashed once and combined as a polynomial mod 2^64: hashing each run's text costs several times more.
    """
    hashes = np.array([zlib.crc32(word.encode("utf-8")) for word in _WORD.findall(normalised)], dtype=np.uint64)
    words = min(words, len(hashes))
    if words == 0:
        return np.empty(0, dtype=np.uint32)
    combined = np.zeros(len(hashes) - words + 1, dtype=np.uint64)
    for offset in range(words):
        combined = combined * np.uint64(0x9E3779B97F4A7C15) + hashes[offset : len(hashes) - words + 1 + offset]
    return np.unique((combined >> np.uint64(32)).astype(np.uint32))
