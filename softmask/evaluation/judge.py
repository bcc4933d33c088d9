"""The judge: an autoregressive model that scores texts and gives MAUVE its features.

A text is retokenised with the judge's own tokenizer; no tensor over batch, positions and vocabulary is ever made.
Knows nothing of who wrote the texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from softmask.backbones.causal_lm import chunked_nll, forward_flops, load_causal_lm, load_tokenizer, output_head
from softmask.errors import InputError
from softmask.evaluation.rules import EosRule, FirstToken, ScoringRules

PADDING = 0
"""Padding stands to the right, where a causal model's earlier positions can't see it: any id will do."""

T = TypeVar("T")


class JudgeCost(TypedDict):
    """What judging cost; by formula, so that it is the same for every run."""

    forwards: int
    """Sequences that went through the judge."""
    tokens: int
    """Positions read, padding left out."""
    flops: int
    """Floating-point operations of the matrix products, 2 a multiply-add, attention scores left out."""


class Scores(TypedDict):
    """Scores of n texts; plain lists, so that they can be kept as JSON."""

    nll: list[float]
    """`[n]` summed negative log-likelihood of each text's scored tokens, in nats."""
    tokens: list[int]
    """`[n]` how many tokens of each text were scored."""
    cost: JudgeCost


@dataclass(frozen=True)
class Window:
    """A stretch of one text that the judge reads at once."""

    text: int
    """Index of the text."""
    inputs: list[int]
    """Tokens read."""
    targets: list[int]
    """The token after each of them."""
    scored: list[bool]
    """Which targets count here; each token counts in one window at most."""


class Judge:
    """A causal language model with its tokenizer.

    Args:
        model: in evaluation mode, float32, with `last_hidden_state` from its trunk and a linear head.
        tokenizer: its own.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.eos_token_id = int(model.config.eos_token_id)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> Self:
        """The judge in a folder with config.json, model.safetensors and tokenizer.json.

        Raises:
            InputError: the folder holds no sound judge.
        """
        return cls(load_causal_lm(folder).to(device), load_tokenizer(folder))  # type: ignore[arg-type]

    @property
    def context(self) -> int:
        """Most tokens that the model can read at once."""
        return int(self.model.config.max_position_embeddings)

    @property
    def eos_token(self) -> str:
        """The text of its end-of-text token."""
        return str(self.tokenizer.id_to_token(self.eos_token_id))

    def check_length(self, tokens: int, where: str) -> None:
        """Raise an InputError that names the setting `where` if the judge can't read so many tokens at once."""
        if tokens > self.context:
            raise InputError(
                f"{tokens} tokens are more than the judge can read at once",
                where=where,
                expected=f"at most {self.context}",
            )

    @torch.inference_mode()
    def score(self, texts: Sequence[str], rules: ScoringRules) -> Scores:
        """Score texts: what generative perplexity exp(sum of nll / sum of tokens) is made from.

        Long texts are read in windows of `rules.max_length`; how texts are batched changes nothing but rounding.
        """
        self.check_length(rules.max_length, "max_length")
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        windows = [w for i, one in enumerate(found) for w in plan(i, one.ids, self.eos_token_id, rules)]
        windows.sort(key=lambda window: len(window.inputs))  # little padding; the sort is stable
        nll, tokens = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        for batch in _slices(windows, rules.batch_size):
            values, owners = self._window_nll(batch, rules.head_chunk)
            nll += np.bincount(owners, weights=values, minlength=len(texts))
            tokens += np.bincount(owners, minlength=len(texts))
        rows = int(tokens.sum())
        return {"nll": nll.tolist(), "tokens": tokens.tolist(), "cost": self._cost((w.inputs for w in windows), rows)}

    @torch.inference_mode()
    def features(
        self, texts: Sequence[str], max_text_length: int, batch_size: int
    ) -> tuple[NDArray[np.float32], JudgeCost]:
        """MAUVE's features: the final hidden state at each text's last token (mauve-text's own convention).

        Args:
            texts: n texts; of an empty one the end-of-text token is read.
            max_text_length: tokens of a text that are read; what follows is left out.
            batch_size: texts a batch.

        Returns:
            `[n, d]` float32 and what it cost.
        """
        self.check_length(max_text_length, "max_text_length")
        encoded = [one.ids for one in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        read = [ids[:max_text_length] or [self.eos_token_id] for ids in encoded]
        features = np.empty((len(texts), int(self.model.config.hidden_size)), dtype=np.float32)
        for batch in _slices(sorted(range(len(read)), key=lambda i: len(read[i])), batch_size):
            hidden = self._hidden([read[i] for i in batch])
            last = torch.tensor([len(read[i]) - 1 for i in batch], device=hidden.device)
            features[batch] = hidden[torch.arange(len(batch), device=hidden.device), last].float().cpu().numpy()
        return features, self._cost(read, 0)

    def _hidden(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """`[B, L, H]`: the trunk's output on right-padded sequences."""
        length = max(map(len, sequences))
        padded = [[*ids, *[PADDING] * (length - len(ids))] for ids in sequences]
        hidden: Tensor = self.model.base_model(torch.tensor(padded, device=self.model.device)).last_hidden_state
        return hidden

    def _window_nll(self, batch: Sequence[Window], head_chunk: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """NLL `[M]` of each scored token of a batch of windows, and the index `[M]` of its text."""
        hidden = self._hidden([window.inputs for window in batch])
        places = [(row, i) for row, window in enumerate(batch) for i, counts in enumerate(window.scored) if counts]
        rows, columns = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).to(hidden.device).unbind(1)
        targets = torch.tensor([batch[row].targets[i] for row, i in places], device=hidden.device, dtype=torch.int64)
        values = chunked_nll(hidden[rows, columns], output_head(self.model), targets, head_chunk)
        owners = np.array([batch[row].text for row, _ in places], dtype=np.int64)
        return values.double().cpu().numpy(), owners

    def _cost(self, sequences: Iterable[Sequence[int]], head_rows: int) -> JudgeCost:
        lengths = [len(ids) for ids in sequences]
        tokens = sum(lengths)
        return {"forwards": len(lengths), "tokens": tokens, "flops": forward_flops(self.model, tokens, head_rows)}


def add_costs(costs: Iterable[JudgeCost]) -> JudgeCost:
    """The sum of costs."""
    total = JudgeCost(forwards=0, tokens=0, flops=0)
    for cost in costs:
        total = JudgeCost(
            forwards=total["forwards"] + cost["forwards"],
            tokens=total["tokens"] + cost["tokens"],
            flops=total["flops"] + cost["flops"],
        )
    return total


def plan(text: int, ids: list[int], eos_token_id: int, rules: ScoringRules) -> Iterator[Window]:
    """The windows that one text is scored in.

    Args:
        text: its index.
        ids: its tokens, without anything added.
        eos_token_id: the end-of-text token.
        rules: which tokens count, and how long a window is.
    """
    if rules.eos_rule is EosRule.TRUNCATE_AT_FIRST and eos_token_id in ids[1:]:
        ids = ids[: ids.index(eos_token_id, 1) + 1]
    counts = [True] * len(ids)
    if rules.eos_rule is EosRule.FIRST_ONLY and eos_token_id in ids:
        first = ids.index(eos_token_id)
        counts = [i <= first or token != eos_token_id for i, token in enumerate(ids)]
    if rules.first_token is FirstToken.AFTER_EOS:
        inputs, targets = [eos_token_id, *ids[:-1]], ids
    else:
        inputs, targets, counts = ids[:-1], ids[1:], counts[1:]
    done = 0
    for start in range(0, len(targets), rules.stride):
        end = min(start + rules.max_length, len(targets))
        if end > done:
            scored = [start + i >= done and counts[start + i] for i in range(end - start)]
            yield Window(text, inputs[start:end], targets[start:end], scored)
            done = end


def _slices(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
