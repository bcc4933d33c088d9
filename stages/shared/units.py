"""What intervals are resampled over: validation documents, or fixed-size passages where there are too few."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from softmask.tokens import PackedTokens
from stages.params.evaluation import EvaluationParams

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """The units of the evaluated rows.

    Args:
        kind: documents, or passages of equal size.
        indices: `[rows]` int64, the validation rows that are evaluated.
        unit_of: `[rows, L]` int64, the unit of each token.
        tokens: `[units]` int64, evaluated tokens.
        bytes: `[units]` int64, UTF-8 bytes of the evaluated text.
    """

    kind: Literal["documents", "passages"]
    indices: Int64Array
    unit_of: Int64Array
    tokens: Int64Array
    bytes: Int64Array

    @classmethod
    def of(cls, tokens: PackedTokens, tokenizer: Tokenizer, params: EvaluationParams) -> "Units":
        """The units of `max_rows` validation rows, spread evenly so that few rows still meet many documents."""
        rows = len(tokens) if params.max_rows is None else min(params.max_rows, len(tokens))
        indices = np.arange(rows) * len(tokens) // rows
        ids = tokens.rows(indices)
        _, unit_of = np.unique(tokens.documents_of(indices), return_inverse=True)
        kind: Literal["documents", "passages"] = "documents"
        if int(unit_of.max()) + 1 < params.min_documents:
            kind, unit_of = "passages", np.arange(ids.size) // params.passage_tokens
        unit_of = unit_of.reshape(ids.shape).astype(np.int64)
        counts = np.bincount(unit_of.ravel())
        return cls(
            kind, indices, unit_of, counts.astype(np.int64), _bytes(ids, unit_of, tokens.eos_token_id, tokenizer)
        )

    @property
    def rows(self) -> int:
        """Rows evaluated."""
        return len(self.indices)

    def totals(self) -> dict[str, int]:
        """Tokens, bytes and units evaluated."""
        return {"tokens": int(self.tokens.sum()), "bytes": int(self.bytes.sum()), self.kind: len(self.tokens)}

    def perplexity(self, nll: NDArray[np.float64]) -> dict[str, float]:
        """Per-token NLL in nats, perplexity, bits per byte and the Monte Carlo standard error of the NLL.

        Args:
            nll: `[draws, units]` summed NLL.
        """
        tokens = int(self.tokens.sum())
        draws = nll.sum(1) / tokens
        mean = float(draws.mean())
        return {
            "nll": mean,
            "ppl": math.exp(mean),
            "bits_per_byte": mean * tokens / math.log(2) / int(self.bytes.sum()),
            "monte_carlo_se": float(draws.std(ddof=1) / math.sqrt(len(draws))),
        }


def _bytes(ids: Int64Array, unit_of: Int64Array, eos: int, tokenizer: Tokenizer) -> Int64Array:
    # units are runs of consecutive tokens: decoding a run gives its text
    flat, units = ids.ravel(), unit_of.ravel()
    ends = np.flatnonzero(np.diff(units)) + 1
    runs = (run[run != eos].tolist() for run in np.split(flat, ends))
    return np.array([len(tokenizer.decode(run, skip_special_tokens=False).encode()) for run in runs], dtype=np.int64)
