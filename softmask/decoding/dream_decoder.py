"""Decoding with Dream: from a prompt and masks to a response, with or without feedback, block-wise caches, thresholds.

One forward gives a step's tokens and, with a soft mask, the guesses that the next forward is fed with. The head runs
on masked response positions only, in chunks. Every sequence of a batch gets what it would get alone: its own
generator, its own counts, and no forward once it has finished.

Blocks and the shift: the token at position i is predicted from the hidden state at i - 1, so the first position of a
block gets its logits, and by them its feedback, from the position before the block. With a cache a step therefore
computes that one position beside the block. (Fast-dLLM leaves it out and instead unmasks a block's first position at
once, from the whole forward at the block's start.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from softmask.backbones.dream import DreamModel, position_ids_of
from softmask.decoding.block_cache import BlockCache
from softmask.decoding.dream_head import read
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.decoding.dream_sampling import Choice, perturbed, surest, transfer_share
from softmask.decoding.dream_settings import DreamDecoding
from softmask.decoding.kept_guesses import KeptGuesses
from softmask.feedback import FullGuesses, Guesses, SoftMask


@dataclass(frozen=True)
class DreamStepView:
    """What an observer sees after a step.

    Args:
        block: number of the block, from 0.
        step: number of the step in it, from 0.
        tokens: `[B, R]` responses after the step.
        unmasked: `[B, R]` bool, what this step unmasked.
        fed: `[B, R]` bool, masks in `tokens` for which there are guesses.
        guesses: for these, row-major, or None where nothing is fed back.
        lam: `[M]` their lambda, or None.
    """

    block: int
    step: int
    tokens: Tensor
    unmasked: Tensor
    fed: Tensor
    guesses: Guesses | None
    lam: Tensor | None


Observer = Callable[[DreamStepView], None]


@dataclass(frozen=True)
class Decoded:
    """What decoding gives, and what it took.

    Args:
        tokens: `[B, R]` int64 responses. A mask can only stand there if the model chose the mask as a token.
        forwards: `[B]` int64, real forward passes of each sequence.
        positions: `[B]` int64, positions that the trunk computed for it, its padding left out.
        head_rows: rows that the head computed for the batch.
    """

    tokens: Tensor
    forwards: Tensor
    positions: Tensor
    head_rows: int


@dataclass(frozen=True)
class Pass:
    """What a forward computes.

    Args:
        rows: `[A]` sequences of the batch.
        first, last: the trunk computes positions first to last - 1.
        seen: the response positions whose tokens these predict.
        age: steps since the cache was made; 0 for a forward of the whole sequence.
    """

    rows: Tensor
    first: int
    last: int
    seen: slice
    age: int


@torch.no_grad()
def decode(
    model: DreamModel,
    soft_mask: SoftMask | None,
    prompts: Sequence[Sequence[int]],
    response_length: int,
    settings: DreamDecoding,
    generators: Sequence[torch.Generator],
    observer: Observer | None = None,
) -> Decoded:
    """Decode one response to each prompt.

    Args:
        model: in eval mode.
        soft_mask: the feedback; None decodes the binary way.
        prompts: B lists of token ids, of any lengths above 0.
        response_length: R.
        settings: how.
        generators: one a prompt, all on one device; the same state gives the same response, whatever else is in the
            batch.
        observer: called after every step.

    Raises:
        ValueError: settings that don't fit the response length, an empty prompt, or too few generators.
    """
    return DreamRun(model, soft_mask, prompts, response_length, settings, generators).decode(observer)


class DreamRun:
    """The state of one batch: tokens, guesses to feed back, the cache, and counts. `decode` is what to call."""

    def __init__(
        self,
        model: DreamModel,
        soft_mask: SoftMask | None,
        prompts: Sequence[Sequence[int]],
        response_length: int,
        settings: DreamDecoding,
        generators: Sequence[torch.Generator],
    ) -> None:
        if not all(prompts) or len(prompts) != len(generators):
            raise ValueError("expected prompts of one token and more, and one generator for each")
        self.model, self.soft_mask, self.settings, self._generators = model, soft_mask, settings, generators
        self.blocks = settings.blocks(response_length)
        # without a number, as many as a block has positions, since a step unmasks one at least
        steps = response_length if settings.steps is None else settings.steps
        self._steps_a_block = steps // len(self.blocks)
        self._mask_id = int(model.config.mask_token_id)
        self._end_ids = torch.tensor(settings.end_ids, dtype=torch.long, device=model.device)
        batch, self.prompt_length = len(prompts), max(len(prompt) for prompt in prompts)
        padding = [self.prompt_length - len(prompt) for prompt in prompts]
        left = torch.tensor([[0] * n + list(prompt) for n, prompt in zip(padding, prompts, strict=True)])
        self._ids = F.pad(left, (0, response_length), value=self._mask_id).to(model.device)
        self.response = self._ids[:, self.prompt_length :]
        self._padding = torch.tensor(padding, device=model.device)
        places = torch.arange(self._ids.shape[1], device=model.device)
        visible = places >= self._padding[:, None]
        self._visible, self._position_ids = (visible if any(padding) else None), position_ids_of(visible)
        self.kept: KeptGuesses | None = None
        self.cache: BlockCache | None = None
        if soft_mask is not None:
            self.kept = KeptGuesses(model, soft_mask, batch, response_length, settings.head_chunk)
        if settings.cache is not CacheMode.NONE:
            self.cache = BlockCache(model.config, batch, self._ids.shape[1], model.dtype, model.device)
        self._in_cache = torch.arange(0, device=model.device)
        self._finished = torch.zeros(batch, dtype=torch.bool, device=model.device)
        self._unmasked = torch.zeros_like(self.response, dtype=torch.bool)
        self._forwards, self._positions = torch.zeros_like(self._padding), torch.zeros_like(self._padding)
        self._head_rows = 0

    def decode(self, observer: Observer | None = None) -> Decoded:
        """Run all steps of all blocks."""
        for block, step in self._schedule():
            self._step(block, step)
            if observer is not None:
                observer(self._view(block, step))
        return Decoded(self.response.clone(), self._forwards, self._positions, self._head_rows)

    def forward(self, now: Pass) -> Tensor:
        """One forward; the hidden states `[A, seen, H]` that predict the tokens at `now.seen`."""
        whole = now.last - now.first == self._ids.shape[1]
        cache = None if self.cache is None else self.cache.window(now.first, now.last)
        hidden = self.hidden(now, cache)
        self._forwards[now.rows] += 1
        self._positions[now.rows] += now.last - now.first - (self._padding[now.rows] if whole else 0)
        return hidden

    def hidden(self, now: Pass, cache: BlockCache | None) -> Tensor:
        """The computation of `forward`: it reads the state and, but for the cache, changes nothing except head rows."""
        embeddings = self._embed(now)
        visible = None if self._visible is None else self._visible[now.rows]
        position_ids = self._position_ids[now.rows, now.first : now.last]
        hidden = self.model.hidden(embeddings, visible, position_ids, cache)
        start = self.prompt_length - 1 - now.first  # minus 1: Dream's shift
        return hidden[:, start + now.seen.start : start + now.seen.stop]

    def whole(self, rows: Tensor) -> Pass:
        """The forward of all positions."""
        return Pass(rows, 0, self._ids.shape[1], slice(0, self.response.shape[1]), 0)

    def _schedule(self) -> Iterator[tuple[int, int]]:
        """Blocks and steps, each as long as there is a sequence with something left to unmask."""
        for number, block in enumerate(self.blocks):
            for step in range(self._steps_a_block):
                if not len(self._unfinished(block)):
                    break
                yield number, step

    def _unfinished(self, block: slice) -> Tensor:
        masked = (self.response[:, block] == self._mask_id).any(1)
        return (masked & ~self._finished).nonzero().flatten()

    def _step(self, number: int, step: int) -> None:
        block = self.blocks[number]
        now = self._pass(block, step)
        hidden = self.forward(now)
        masked = self.response[now.rows, now.seen] == self._mask_id
        candidates = self._candidates(now, block, masked, step)
        choice = self._read(now, hidden, masked, candidates)
        unmask = self._unmask(now, choice, candidates, step)
        rows, columns = unmask.nonzero(as_tuple=True)
        tokens = choice.tokens[unmask[candidates]]
        at = (now.rows[rows], columns + now.seen.start)
        self.response[at] = tokens
        self._unmasked.zero_()
        self._unmasked[at] = tokens != self._mask_id
        if self.settings.stop_at_end and self.settings.end_ids:
            self._finish()

    def _pass(self, block: slice, step: int) -> Pass:
        """What this step computes, with the cache brought into line with the rows."""
        rows = self._unfinished(block)
        age = step % (self.settings.refresh_every or self._steps_a_block)
        if self.cache is None or age == 0:
            self._in_cache = rows
            return self.whole(rows)
        if len(rows) < len(self._in_cache):
            self.cache.keep(torch.isin(self._in_cache, rows).nonzero().flatten())
            self._in_cache = rows
        stop = block.stop if self.settings.cache is CacheMode.DUAL else self.response.shape[1]
        first = self.prompt_length + block.start - 1
        return Pass(rows, first, self.prompt_length + stop, slice(block.start, stop), age)

    def _embed(self, now: Pass) -> Tensor:
        """Input embeddings `[A, last - first, H]`, mixed where there are guesses for a mask."""
        ids = self._ids[now.rows, now.first : now.last]
        if self.kept is None:
            return self.model.embed(ids)
        prompt = max(self.prompt_length - now.first, 0)  # positions of the prompt among those computed
        columns = slice(now.first + prompt - self.prompt_length, now.last - self.prompt_length)
        fed = (ids[:, prompt:] == self._mask_id) & self.kept.known[now.rows, columns]
        rows, places = fed.nonzero(as_tuple=True)
        if not len(rows):
            return self.model.embed(ids)
        guesses = self.kept.get(now.rows[rows], places + columns.start)
        if isinstance(guesses, FullGuesses):
            self._head_rows += len(rows)  # the mixture computes their distributions anew
        factor = self._factors()[now.rows[rows]]
        return self.model.embed(ids, self.soft_mask, guesses, F.pad(fed, (prompt, 0)), factor)

    def _candidates(self, now: Pass, block: slice, masked: Tensor, step: int) -> Tensor:
        """Where this step may unmask: masks of the block; for `origin` those that chance has chosen."""
        places = torch.arange(now.seen.start, now.seen.stop, device=masked.device)
        candidates: Tensor = masked & (places >= block.start) & (places < block.stop)
        if self.settings.algorithm is not Algorithm.ORIGIN:
            return candidates
        share = transfer_share(step, self._steps_a_block, self.settings.eps)
        chosen = torch.zeros_like(candidates)
        chosen[candidates] = (self._uniform(now.rows, candidates) < share).to(chosen.device)
        return chosen

    def _read(self, now: Pass, hidden: Tensor, masked: Tensor, candidates: Tensor) -> Choice:
        """Tokens for the candidates, row-major; with feedback, all masks that the pass has seen leave their guesses."""
        where = candidates if self.kept is None else masked
        columns = candidates.nonzero()[:, 1] + now.seen.start
        uniform = self._uniform(now.rows, candidates) if self.settings.temperature > 0 else None
        takes = candidates[where]
        reading = read(self.model, self.soft_mask, hidden[where], takes, columns == 0, uniform, self.settings)
        self._head_rows += reading.head_rows
        if self.kept is not None and reading.guesses is not None:
            rows, places = masked.nonzero(as_tuple=True)
            self.kept.put(now.rows[rows], places + now.seen.start, reading.guesses)
        return reading.choice

    def _unmask(self, now: Pass, choice: Choice, candidates: Tensor, step: int) -> Tensor:
        """`[A, seen]` bool: which candidates become tokens."""
        settings = self.settings
        if settings.algorithm is Algorithm.ORIGIN:
            return candidates
        order = choice.confidence
        if settings.alg_temp and settings.threshold is None:
            order = perturbed(order, settings.alg_temp, self._uniform(now.rows, candidates))
        confidence = order.new_zeros(candidates.shape).masked_scatter(candidates, order)
        last = torch.zeros_like(candidates)
        if settings.eos_rule is EosRule.LAST:
            last = last.masked_scatter(candidates, torch.isin(choice.tokens, self._end_ids))
        return surest(confidence, candidates, last, self._numbers(confidence, candidates, last, step))

    def _numbers(self, confidence: Tensor, candidates: Tensor, last: Tensor, step: int) -> Tensor:
        """`[A]`: how many positions of each sequence this step unmasks."""
        numbers = torch.zeros(len(candidates), dtype=torch.long, device=candidates.device)
        if self.settings.steps is not None:
            share = transfer_share(step, self._steps_a_block, self.settings.eps).to(candidates.device)
            numbers = (candidates.sum(1).float() * share).long()  # cut to whole numbers in float32, as officially
        if self.settings.threshold is None:
            return numbers
        others = candidates & ~last
        eligible = torch.where(others.any(1, keepdim=True), others, candidates)
        above = (eligible & (confidence > self.settings.threshold)).sum(1)
        return torch.maximum(numbers, above.clamp(min=1))

    def _finish(self) -> None:
        """Sequences with nothing masked before their first end token have finished; the rest is that token."""
        ends = torch.isin(self.response, self._end_ids)
        first = ends.long().argmax(1, keepdim=True)
        masked = self.response == self._mask_id
        before = torch.arange(self.response.shape[1], device=first.device) < first
        self._finished = ends.any(1) & ~(masked & before).any(1)
        rest = masked & self._finished[:, None]
        self.response[rest] = self.response.gather(1, first).expand_as(rest)[rest]

    def _uniform(self, rows: Tensor, where: Tensor) -> Tensor:
        """A uniform number for each true entry of `where` `[A, n]`, row-major, from each sequence's own generator."""
        made = []
        for row, count in zip(rows.tolist(), where.sum(1).tolist(), strict=True):
            generator = self._generators[row]
            made.append(torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device))
        return torch.cat(made).to(where.device)

    def _factors(self) -> Tensor:
        """`[B]`: omega_s's factor by the share of each response that is masked."""
        masked = (self.response == self._mask_id).float()
        return self.settings.omega_schedule.factor(masked.mean(1))

    def _view(self, block: int, step: int) -> DreamStepView:
        fed, guesses, lam = torch.zeros_like(self._unmasked), None, None
        if self.kept is not None and self.soft_mask is not None:
            fed = (self.response == self._mask_id) & self.kept.known
            rows, columns = fed.nonzero(as_tuple=True)
            guesses = self.kept.get(rows, columns) if len(rows) else None
            lam = None if guesses is None else self.soft_mask.lam_of(guesses, self._factors()[rows])
        return DreamStepView(block, step, self.response.clone(), self._unmasked.clone(), fed, guesses, lam)
