"""Dream's decoder against its rules: batches, budgets, thresholds, end tokens, feedback, and where the head runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from softmask.backbones.dream import DreamModel
from softmask.decoding.dream_decoder import Decoded, DreamStepView, decode
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.decoding.dream_sampling import draw, perturbed, surest, transfer_share, truncated
from softmask.decoding.dream_settings import DreamDecoding
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule
from tests.softmask.test_memory_rule import CHUNK, VOCAB, bounded_memory
from tests.softmask.tiny_dream import MASK, PAD, VOCABULARY, tiny_dream

R = 8
"""Response length of these tests."""
SURE = [algorithm for algorithm in Algorithm if algorithm is not Algorithm.ORIGIN]
"""Algorithms with a confidence."""


def decoding(**changes: Any) -> DreamDecoding:
    """Greedy decoding, one token a step, of a whole response."""
    plain = DreamDecoding(
        algorithm=Algorithm.ENTROPY,
        steps=R,
        threshold=None,
        temperature=0.0,
        top_p=None,
        top_k=None,
        alg_temp=None,
        eps=1e-3,
        omega_schedule=OmegaSchedule.CONSTANT,
        eos_rule=EosRule.FREE,
        end_ids=(PAD,),
        stop_at_end=False,
        cache=CacheMode.NONE,
        block_length=None,
        refresh_every=None,
        head_chunk=3,
    )
    return replace(plain, **changes)


def soft_mask(kind: FeedbackKind = FeedbackKind.TOP_K, omega_s: float = 0.9) -> SoftMask:
    return SoftMask(
        omega_s=omega_s, omega_a=1.0, omega_b=-3.0, temperature=1.3, kind=kind, interpolation=Interpolation.LINEAR, k=3
    )


def shut() -> SoftMask:
    """A soft mask with omega_s = 0, which its parametrisation only approaches."""
    module = soft_mask()
    with torch.no_grad():
        module.raw_omega_s.fill_(float("-inf"))
    return module


class Biased(nn.Module):
    """A head that makes some tokens likelier, or unlikelier, than they are."""

    def __init__(self, head: nn.Module, bias: dict[int, float]) -> None:
        super().__init__()
        self.head, self.rows = head, 0
        self.bias = torch.zeros(VOCABULARY)
        for token, value in bias.items():
            self.bias[token] = value

    def forward(self, rows: Tensor) -> Tensor:
        self.rows += len(rows)
        logits: Tensor = self.head(rows)
        return logits + self.bias


def tiny(seed: int = 0, end: float = 0.0, **changes: Any) -> DreamModel:
    """A tiny Dream that never chooses the mask as a token, with its preference for the end token."""
    model = tiny_dream(seed, **changes)
    model.lm_head = Biased(model.lm_head, {MASK: -100.0, PAD: end})
    return model


def prompts_of(lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(0, PAD, (length,), generator=generator).tolist() for length in lengths]


def run(
    model: DreamModel, feedback: SoftMask | None, prompts: list[list[int]], how: DreamDecoding, seed: int = 0
) -> tuple[Decoded, list[DreamStepView]]:
    """The decode and its history. Each prompt's generator is seeded by its length, which tests keep unique."""
    views: list[DreamStepView] = []
    generators = [torch.Generator().manual_seed(1000 * seed + len(prompt)) for prompt in prompts]
    return decode(model, feedback, prompts, R, how, generators, views.append), views


def log_probs_of(model: DreamModel, prompt: list[int], response: Tensor) -> Tensor:
    """Log-probabilities `[R, V]` of the plain model, without any of the decoder's shortcuts."""
    ids = torch.cat([torch.tensor(prompt), response])[None]
    with torch.no_grad():
        logits: Tensor = model(ids).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)


FEEDBACK = st.sampled_from([None, *FeedbackKind])
HOW = st.builds(
    decoding,
    algorithm=st.sampled_from(list(Algorithm)),
    steps=st.sampled_from([2, 4, 8]),
    temperature=st.sampled_from([0.0, 0.7]),
    top_p=st.sampled_from([None, 0.8]),
    top_k=st.sampled_from([None, 5]),
    alg_temp=st.sampled_from([None, 0.3]),
    omega_schedule=st.sampled_from(list(OmegaSchedule)),
    stop_at_end=st.booleans(),
    eos_rule=st.sampled_from([EosRule.FREE, EosRule.NOT_FIRST]),
    cache=st.sampled_from(list(CacheMode)),
    block_length=st.sampled_from([None, 4]),
    refresh_every=st.sampled_from([None, 2]),
)


# Batches


@settings(max_examples=30)
@given(how=HOW, kind=FEEDBACK, lengths=st.lists(st.integers(1, 6), min_size=2, max_size=4, unique=True))
def test_a_batch_of_prompts_equals_each_prompt_alone(
    how: DreamDecoding, kind: FeedbackKind | None, lengths: list[int]
) -> None:
    model, feedback, prompts = tiny(end=2.0), None if kind is None else soft_mask(kind), prompts_of(lengths)
    together, _ = run(model, feedback, prompts, how)
    alone = [run(model, feedback, [prompt], how)[0] for prompt in prompts]
    assert torch.equal(together.tokens, torch.cat([made.tokens for made in alone]))
    assert torch.equal(together.forwards, torch.cat([made.forwards for made in alone]))
    assert torch.equal(together.positions, torch.cat([made.positions for made in alone]))
    assert together.head_rows == sum(made.head_rows for made in alone)


@settings(max_examples=20)
@given(how=HOW, threshold=st.sampled_from([0.4, 0.7, 0.95]), kind=FEEDBACK, steps=st.sampled_from([None, 4]))
def test_so_does_a_batch_with_a_threshold_whose_rows_finish_at_different_steps(
    how: DreamDecoding, threshold: float, kind: FeedbackKind | None, steps: int | None
) -> None:
    how = replace(how, algorithm=Algorithm.MASKGIT_PLUS, threshold=threshold, steps=steps)
    model, feedback, prompts = tiny(end=2.0), None if kind is None else soft_mask(kind), prompts_of([1, 3, 6])
    together, _ = run(model, feedback, prompts, how)
    alone = [run(model, feedback, [prompt], how)[0] for prompt in prompts]
    assert torch.equal(together.tokens, torch.cat([made.tokens for made in alone]))
    assert torch.equal(together.forwards, torch.cat([made.forwards for made in alone]))


@settings(max_examples=10)
@given(how=HOW, seed=st.integers(0, 5))
def test_the_same_generator_state_gives_the_same_response(how: DreamDecoding, seed: int) -> None:
    first, second = (run(tiny(), soft_mask(), prompts_of([3, 4]), how, seed)[0] for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)


# Feedback


@settings(max_examples=20)
@given(how=HOW, seed=st.integers(0, 5))
def test_soft_masking_with_omega_s_0_is_binary_decoding_token_for_token(how: DreamDecoding, seed: int) -> None:
    binary, soft = (run(tiny(seed), feedback, prompts_of([2, 5]), how, seed) for feedback in (None, shut()))
    assert torch.equal(binary[0].tokens, soft[0].tokens)
    assert [view.tokens.tolist() for view in binary[1]] == [view.tokens.tolist() for view in soft[1]]


def test_feedback_changes_what_is_decoded() -> None:
    binary, soft = (run(tiny(1), feedback, prompts_of([2, 5]), decoding())[0] for feedback in (None, soft_mask()))
    assert not torch.equal(binary.tokens, soft.tokens)


@pytest.mark.parametrize("schedule", OmegaSchedule)
@pytest.mark.parametrize("kind", FeedbackKind)
def test_omega_s_follows_its_schedule_by_each_sequences_own_masks(kind: FeedbackKind, schedule: OmegaSchedule) -> None:
    how = decoding(omega_schedule=schedule, threshold=0.6, steps=None)
    feedback = soft_mask(kind)
    _, views = run(tiny(), feedback, prompts_of([2, 5]), how)
    assert any(view.lam is not None for view in views)
    for view in views:
        if view.guesses is None or view.lam is None:
            continue
        masked = (view.tokens == MASK).float().mean(1)
        factors = {"constant": torch.ones(2), "linear": masked, "stepwise": (masked > 0.5).float()}[schedule.value]
        with torch.no_grad():
            full = feedback.lam_of(view.guesses)
        torch.testing.assert_close(view.lam, full * factors[view.fed.nonzero()[:, 0]])


def test_every_mask_is_fed_from_the_first_step_on() -> None:
    _, views = run(tiny(), soft_mask(), prompts_of([2]), decoding(block_length=2, cache=CacheMode.DUAL))
    assert all(torch.equal(view.fed, view.tokens == MASK) for view in views)


# Budgets


@settings(max_examples=20)
@given(algorithm=st.sampled_from(list(Algorithm)), steps=st.sampled_from([1, 2, 4, 8, 16]), seed=st.integers(0, 9))
def test_so_many_steps_are_so_many_forwards_and_leave_no_mask(algorithm: Algorithm, steps: int, seed: int) -> None:
    made, views = run(tiny(seed), None, prompts_of([2, 5]), decoding(algorithm=algorithm, steps=steps))
    assert not (made.tokens == MASK).any()
    assert int(made.forwards.max()) == len(views) <= steps
    if algorithm is not Algorithm.ORIGIN:  # which may by chance be done early
        assert made.forwards.tolist() == [steps, steps]
    assert made.positions.tolist() == [(length + R) * n for length, n in zip([2, 5], made.forwards, strict=True)]


def test_steps_are_dealt_evenly_to_blocks_which_are_decoded_from_the_left() -> None:
    _, views = run(tiny(), None, prompts_of([3]), decoding(steps=4, block_length=2))
    assert [(view.block, view.step) for view in views] == [(block, 0) for block in range(4)]
    for view in views:
        assert not (view.tokens[:, : 2 * view.block + 2] == MASK).any()
        assert bool((view.tokens[:, 2 * view.block + 2 :] == MASK).all())


def test_the_share_of_each_step_is_the_official_one() -> None:
    times = torch.linspace(1, 1e-3, 9)
    shares = [transfer_share(step, 8, 1e-3) for step in range(8)]
    assert all(torch.equal(shares[i], 1 - times[i + 1] / times[i]) for i in range(7)) and shares[7] == 1


@pytest.mark.parametrize("rule", [EosRule.FREE, EosRule.LAST])
@settings(max_examples=20)
@given(threshold=st.floats(0.2, 0.99), algorithm=st.sampled_from(SURE), seed=st.integers(0, 9))
def test_a_threshold_unmasks_all_above_it_and_the_surest_at_least(
    rule: EosRule, threshold: float, algorithm: Algorithm, seed: int
) -> None:
    model, prompts = tiny(seed, end=1.0), prompts_of([3])
    how = decoding(algorithm=algorithm, threshold=threshold, steps=None, eos_rule=rule)
    _, views = run(model, None, prompts, how)
    before = torch.full((R,), MASK)
    for view in views:
        probs, tokens = log_probs_of(model, prompts[0], before).exp().max(-1)
        candidates = before == MASK
        eligible = candidates & (tokens != PAD) if rule is EosRule.LAST else candidates
        eligible = eligible if eligible.any() else candidates
        expected = eligible & (probs > threshold)
        expected[probs.masked_fill(~eligible, 0).argmax()] = True
        assert torch.equal(view.unmasked[0], expected)
        before = torch.where(expected, tokens, before)
        assert torch.equal(view.tokens[0], before)
    assert not (before == MASK).any()


def test_a_threshold_that_everything_passes_takes_one_forward() -> None:
    made, _ = run(tiny(), None, prompts_of([2, 4]), decoding(threshold=1e-9, steps=None))
    assert made.forwards.tolist() == [1, 1] and not (made.tokens == MASK).any()


def test_a_threshold_that_nothing_passes_takes_one_forward_a_token_or_the_steps_that_are_given() -> None:
    alone, _ = run(tiny(), None, prompts_of([2, 4]), decoding(threshold=1.0, steps=None))
    bounded, _ = run(tiny(), None, prompts_of([2, 4]), decoding(threshold=1.0, steps=2))
    assert alone.forwards.tolist() == [R, R] and bounded.forwards.tolist() == [2, 2]
    assert not (bounded.tokens == MASK).any()


def test_a_model_that_only_chooses_masks_comes_to_an_end() -> None:
    model = tiny_dream()
    model.lm_head = Biased(model.lm_head, {MASK: 100.0})
    made, _ = run(model, soft_mask(), prompts_of([2]), decoding(threshold=0.9, steps=None))
    assert made.forwards.tolist() == [R] and bool((made.tokens == MASK).all())


# End tokens


@settings(max_examples=20)
@given(how=HOW, seed=st.integers(0, 9))
def test_stopping_at_the_end_changes_nothing_before_it_and_saves_forwards(how: DreamDecoding, seed: int) -> None:
    model, prompts = tiny(seed, end=4.0), prompts_of([2, 5])
    full, _ = run(model, soft_mask(), prompts, replace(how, stop_at_end=False))
    stopped, _ = run(model, soft_mask(), prompts, replace(how, stop_at_end=True))
    assert bool((stopped.forwards <= full.forwards).all()) and not (stopped.tokens == MASK).any()
    for ours, theirs in zip(stopped.tokens.tolist(), full.tokens.tolist(), strict=True):
        assert (PAD in ours) == (PAD in theirs)
        end = ours.index(PAD) + 1 if PAD in ours else R
        assert ours[:end] == theirs[:end]


def test_a_finished_sequence_is_not_forwarded_any_more_while_others_are() -> None:
    found = [run(tiny(seed, end=3.0), None, prompts_of([2, 5]), decoding(stop_at_end=True)) for seed in range(20)]
    early = [made for made, _ in found if len(set(made.forwards.tolist())) == 2]
    assert early
    for made in early:
        row = int(made.forwards.argmin())
        tokens = made.tokens[row].tolist()
        assert PAD in tokens and made.positions[row] == made.forwards[row] * ([2, 5][row] + R)


@settings(max_examples=20)
@given(seed=st.integers(0, 9), algorithm=st.sampled_from(list(Algorithm)), temperature=st.sampled_from([0.0, 1.0]))
def test_no_response_begins_with_an_end_token_where_the_rule_forbids_it(
    seed: int, algorithm: Algorithm, temperature: float
) -> None:
    how = decoding(algorithm=algorithm, temperature=temperature, steps=4)
    model, prompts = tiny(seed, end=9.0), prompts_of([2, 5])
    assert bool((run(model, None, prompts, how)[0].tokens[:, 0] == PAD).any())
    ruled, _ = run(model, None, prompts, replace(how, eos_rule=EosRule.NOT_FIRST))
    assert not (ruled.tokens[:, 0] == PAD).any() and bool((ruled.tokens[:, 1:] == PAD).any())


@settings(max_examples=20)
@given(seed=st.integers(0, 9), algorithm=st.sampled_from(SURE), block=st.sampled_from([None, 4]))
def test_end_tokens_come_after_all_others_where_the_rule_says_so(
    seed: int, algorithm: Algorithm, block: int | None
) -> None:
    model, prompts = tiny(seed, end=2.0), prompts_of([3])
    how = decoding(algorithm=algorithm, eos_rule=EosRule.LAST, block_length=block)
    _, views = run(model, None, prompts, how)
    before, length = torch.full((R,), MASK), block or R
    for view in views:
        likeliest = log_probs_of(model, prompts[0], before).argmax(-1)
        place = torch.arange(R) // length == view.block
        others = place & (before == MASK) & (likeliest != PAD)
        ends = view.unmasked[0] & (view.tokens[0] == PAD)
        assert not ends.any() or not (others & ~view.unmasked[0]).any()
        before = view.tokens[0]


# Distributions


def test_inversion_draws_from_the_distribution_and_never_what_has_no_probability() -> None:
    probs = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0])
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = draw(probs.expand(len(uniform), -1), uniform).bincount(minlength=6)
    assert counts[probs == 0].sum() == 0
    assert chisquare(counts[probs > 0], probs[probs > 0].double() * len(uniform), sum_check=False).pvalue > 0.01
    extremes = draw(probs.expand(2, -1), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert extremes.tolist() == [1, 4]


def test_the_nucleus_holds_the_token_that_crosses_it_and_top_k_the_likeliest() -> None:
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = truncated(log_probs, 0.0, 0.6, None).exp()
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    torch.testing.assert_close(truncated(log_probs, 0.0, None, 1).exp(), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    squared = log_probs.exp() ** 2
    torch.testing.assert_close(truncated(log_probs, 0.5, None, None).exp(), squared / squared.sum())
    assert truncated(log_probs, 0.0, 1.0, 4) is log_probs


def test_alg_temp_draws_positions_without_replacement_from_the_softmax_of_confidence() -> None:
    confidence, generator = torch.tensor([0.0, 0.4, 0.8]), torch.Generator().manual_seed(0)
    p = (confidence.double() / 0.5).softmax(0)
    pairs: dict[tuple[int, ...], int] = {}
    for _ in range(4000):
        uniform = torch.rand(3, dtype=torch.float64, generator=generator)
        pair = tuple(perturbed(confidence, 0.5, uniform).topk(2).indices.tolist())
        pairs[pair] = pairs.get(pair, 0) + 1
    law = {(i, j): float(p[i] * p[j] / (1 - p[i])) for i in range(3) for j in range(3) if i != j}
    assert chisquare([pairs[key] for key in law], [4000 * value for value in law.values()]).pvalue > 0.01


def test_origin_unmasks_each_position_with_the_share_of_the_step() -> None:
    steps, found = 4, torch.zeros(4)
    for seed in range(80):
        views = run(tiny(), None, prompts_of([2]), decoding(algorithm=Algorithm.ORIGIN, steps=steps), seed)[1]
        found[: len(views)] += torch.stack([view.unmasked.sum() for view in views])
    expected = R * 80 / steps * torch.ones(4)  # t falls linearly, so that every step has the same share of all
    assert chisquare(found, expected).pvalue > 0.01


def test_the_surest_are_the_left_ones_of_equals_and_rows_with_too_few_give_all() -> None:
    confidence = torch.tensor([[0.5, 0.5, 0.9, 0.5], [9.0, 0.1, 9.0, 0.2]])
    candidates = torch.tensor([[True, True, True, True], [False, True, False, True]])
    last = torch.tensor([[False, False, True, False], [False] * 4])
    chosen = surest(confidence, candidates, last, torch.tensor([2, 3]))
    assert chosen.tolist() == [[True, True, False, False], [False, True, False, True]]


# The head


@settings(max_examples=20)
@given(how=HOW, kind=FEEDBACK)
def test_the_head_runs_on_masked_positions_only(how: DreamDecoding, kind: FeedbackKind | None) -> None:
    model, feedback = tiny(end=1.0), None if kind is None else soft_mask(kind)
    made, views = run(model, feedback, prompts_of([2, 5]), how)
    head = model.lm_head
    assert isinstance(head, Biased)
    if kind is None:
        assert made.head_rows == head.rows
    masked = [torch.full((2, R), MASK), *(view.tokens for view in views[:-1])]
    most = sum(int((tokens == MASK).sum()) for tokens in masked)
    assert made.head_rows <= most * (2 if kind is FeedbackKind.FULL else 1)
    if kind is None and how.block_length is None and how.algorithm is not Algorithm.ORIGIN and not how.stop_at_end:
        assert made.head_rows == most


@pytest.mark.parametrize("kind", [None, *FeedbackKind])
def test_decoding_fits_where_the_logits_of_all_positions_would_not(kind: FeedbackKind | None, tmp_path: Path) -> None:
    length, shape = 2_700, {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1}
    model = tiny_dream(vocab_size=VOCAB, num_attention_heads=1, num_key_value_heads=1, mask_token_id=VOCAB - 1, **shape)
    prompts, feedback = [[1] * length] * 40, None if kind is None else soft_mask(kind)
    assert len(prompts) * length * VOCAB * 4 > 200 * 2**30
    generators = [torch.Generator() for _ in prompts]
    how = decoding(steps=2, head_chunk=CHUNK, temperature=1.0)
    with bounded_memory(tmp_path):
        made = decode(model, feedback, prompts, 2, how, generators)
    assert made.head_rows >= 40 * (2 + 1)


# What can't be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "neither steps nor threshold"),
        ({"steps": 0}, "steps is 0"),
        ({"algorithm": Algorithm.ORIGIN, "threshold": 0.9}, "no confidence"),
        ({"algorithm": Algorithm.ORIGIN, "eos_rule": EosRule.LAST}, "no confidence"),
        ({"block_length": 3}, "no divisor"),
        ({"block_length": 2, "steps": 3}, "not the same number"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tiny(), None, prompts_of([2]), decoding(**changes))


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="one token and more"):
        run(tiny(), None, [[]], decoding())
