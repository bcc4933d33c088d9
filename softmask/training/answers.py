"""Chats as training items for Dream: their order, the noise on their answers, and batches of them.

Only the answer is masked; the prompt stays. All noise (t, padding, masks, the coin) is a function of seed and position,
each from a stream of its own. Knows no model and no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from softmask.seeds import mix_seed

ORDER, TIMES, PADS, MASKS, COIN = 1, 2, 3, 4, 5


class Chats(Protocol):
    """Tokenised chats; `softmask.training.chat_tokens.ChatTokens` is one."""

    def __len__(self) -> int: ...

    def item(self, index: int) -> tuple[NDArray[np.int64], int]:
        """Ids `[T]` of a chat, and how many of them are its prompt."""
        ...

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of each chat, and of each prompt; no chat is read."""
        ...


class Answer(TypedDict):
    """A chat at its place in the training."""

    position: int
    ids: NDArray[np.int64]
    prompt_length: int


class AnswerBatch(TypedDict):
    """What the objective takes: `x0`, `x_t` `[B, T]` int64, `t` `[B]`, `visible` `[B, T]` bool, `answer` `[B, T]` bool,
    `two_pass`."""

    x0: Tensor
    x_t: Tensor
    t: Tensor
    visible: Tensor
    answer: Tensor
    two_pass: bool


class AnswerStream(Dataset[Answer]):
    """`items` training items: the chats in a new order each epoch, neighbours of similar length.

    An epoch is a permutation; windows of it are sorted by length and cut into micro-batches, which are shuffled again,
    so that a batch has little padding. Item i is the same whenever it is read.

    Args:
        chats: of the training split.
        items: length of the run, steps x sequences a step.
        micro_batch: sequences of a micro-batch over all processes.
        window: micro-batches that are sorted together; 1 leaves the permutation as it is.
        seed: of the order.
    """

    def __init__(self, chats: Chats, items: int, micro_batch: int, window: int, seed: int) -> None:
        self._chats, self._items, self._seed = chats, items, seed
        self._micro_batch, self._window = micro_batch, window
        self._lengths, prompts = chats.sizes()
        self.mean_length = float(self._lengths.mean())
        """Tokens of a chat."""
        self.mean_answer = float((self._lengths - prompts).mean())
        """Tokens of an answer."""
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, position: int) -> Answer:
        epoch, place = divmod(position, len(self._chats))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._ordered(epoch)
        ids, prompt_length = self._chats.item(int(self._order[place]))
        return {"position": position, "ids": ids, "prompt_length": prompt_length}

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        choice = np.random.Generator(np.random.PCG64(mix_seed(self._seed, ORDER, epoch)))
        order = choice.permutation(len(self._chats))
        size = self._micro_batch * self._window
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), size):
            window = order[start : start + size]
            window = window[np.argsort(self._lengths[window], kind="stable")]
            cut = [window[i : i + self._micro_batch] for i in range(0, len(window), self._micro_batch)]
            batches += [cut[i] for i in choice.permutation(len(cut))]
        # a short batch goes last, so that the others stay whole
        return np.concatenate(sorted(batches, key=lambda batch: len(batch) < self._micro_batch))


@dataclass(frozen=True)
class AnswerNoise:
    """How answers are noised (official finetuning code; method.md, 3.1).

    Args:
        t_low, t_high: t is drawn between them, for each item.
        extra_pads: up to so many end tokens follow an answer in training, scored like the rest of it.
        multiple_of: lengths are rounded up to a multiple of it, with further end tokens.
        pad_token_id: the end token that pads.
        mask_token_id: the mask token.
        seed: of all noise.
    """

    t_low: float
    t_high: float
    extra_pads: int
    multiple_of: int
    pad_token_id: int
    mask_token_id: int
    seed: int

    def padded(self, item: Answer, extra: int) -> NDArray[np.int64]:
        """Ids with `extra` end tokens, and as many more as the multiple asks for."""
        length = len(item["ids"]) + extra
        length += -length % self.multiple_of
        return np.pad(item["ids"], (0, length - len(item["ids"])), constant_values=self.pad_token_id)

    def uniform(self, count: int, *purpose: int) -> Tensor:
        """`[count]` numbers in [0, 1) that belong to a purpose and a position."""
        return torch.rand(count, generator=torch.Generator().manual_seed(mix_seed(self.seed, *purpose)))

    def masks(self, answer: Tensor, t: float, position: int) -> Tensor:
        """Which of an item's positions are masked: those of its answer with probability t, and one at least.

        Args:
            answer: `[T]` bool.
        """
        uniform = self.uniform(len(answer), MASKS, position).masked_fill(~answer, 2.0)
        return (uniform < t) | (uniform == uniform.min())


class AnswerCollator:
    """Items of an `AnswerStream` -> `AnswerBatch`, right-padded to the longest; that padding is not visible.

    Args:
        noise: of the answers.
        micro_batch: sequences of a micro-batch over all processes.
        p_sm: probability of the two-pass step, drawn once a micro-batch, the same on every process.
    """

    def __init__(self, noise: AnswerNoise, micro_batch: int, p_sm: float) -> None:
        self._noise, self._micro_batch, self._p_sm = noise, micro_batch, p_sm

    def __call__(self, items: list[Answer]) -> AnswerBatch:
        noise = self._noise
        positions = [item["position"] for item in items]
        draws = [float(noise.uniform(1, TIMES, position)) for position in positions]
        times = [noise.t_low + (noise.t_high - noise.t_low) * draw for draw in draws]
        extras = [int(float(noise.uniform(1, PADS, position)) * (noise.extra_pads + 1)) for position in positions]
        rows = [noise.padded(item, extra) for item, extra in zip(items, extras, strict=True)]
        return batch_of(noise, rows, items, times, self.two_pass(positions[0] // self._micro_batch))

    def two_pass(self, micro: int) -> bool:
        """The coin of micro-batch number `micro` of the run."""
        return bool(self._noise.uniform(1, COIN, micro) < self._p_sm)

    def forwards(self, micro_batches: int) -> int:
        """Forward passes that the first `micro_batches` micro-batches take."""
        return micro_batches + sum(self.two_pass(micro) for micro in range(micro_batches))


def batch_of(
    noise: AnswerNoise, rows: Sequence[NDArray[np.int64]], items: Sequence[Answer], times: Sequence[float], coin: bool
) -> AnswerBatch:
    """The batch of padded rows at their times."""
    shape = (len(rows), max(map(len, rows)))
    x0 = torch.full(shape, noise.pad_token_id)
    visible, answer = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    masked = torch.zeros(shape, dtype=torch.bool)
    for place, (row, item, t) in enumerate(zip(rows, items, times, strict=True)):
        x0[place, : len(row)] = torch.from_numpy(row)
        visible[place, : len(row)] = True
        answer[place, item["prompt_length"] : len(row)] = True
        masked[place, : len(row)] = noise.masks(answer[place, : len(row)], t, item["position"])
    x_t = torch.where(masked, noise.mask_token_id, x0)
    drawn = torch.tensor(times, dtype=torch.float32)
    return {"x0": x0, "x_t": x_t, "t": drawn, "visible": visible, "answer": answer, "two_pass": coin}


def evaluation_batches(chats: Chats, noise: AnswerNoise, count: int, batch_size: int) -> list[AnswerBatch]:
    """The first `count` chats at fixed times, spread evenly from t_low to t_high, with fixed masks; two-pass batches.

    No end tokens are added but those of the multiple.
    """
    count = min(count, len(chats))
    times = np.linspace(noise.t_low, noise.t_high, count).tolist()
    items: list[Answer] = []
    for index in range(count):
        ids, prompt_length = chats.item(index)
        items.append({"position": index, "ids": ids, "prompt_length": prompt_length})
    rows = [noise.padded(item, 0) for item in items]
    parts = [slice(start, start + batch_size) for start in range(0, count, batch_size)]
    return [batch_of(noise, rows[part], items[part], times[part], True) for part in parts]
