"""The diffusion transformer with and without feedback: the binary limit, untouched rows, chunks, saving."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.diffusion import LogLinear
from softmask.feedback import FullGuesses, TopKGuesses
from softmask.feedback_kinds import FeedbackKind
from softmask.training.elbo import BinaryObjective
from softmask.training.soft_mask_objective import SoftMaskObjective, first_pass
from tests.softmask.tiny import MASK, close_gate, masked_rows, soft_mask_settings, tiny_mdlm

KINDS = pytest.mark.parametrize("kind", FeedbackKind)


@KINDS
def test_at_lambda_zero_a_forward_equals_the_binary_one_bit_for_bit(kind: FeedbackKind) -> None:
    binary, closed = tiny_mdlm(), close_gate(tiny_mdlm(soft_mask_settings(kind)))
    _, x_t = masked_rows(4, 6)
    with torch.no_grad():
        expected = binary(x_t)
        assert torch.equal(closed(x_t), expected)
        assert torch.equal(closed(x_t, first_pass(closed, x_t, 5)), expected)
        opened = tiny_mdlm(soft_mask_settings(kind))
        guesses = first_pass(opened, x_t, 5)
        assert not torch.equal(opened(x_t, guesses), expected)
        shut = opened.hidden(x_t, guesses, torch.zeros(int((x_t == MASK).sum())))
        assert torch.equal(shut, binary.hidden(x_t))


@KINDS
def test_at_lambda_zero_the_loss_and_its_gradients_equal_the_binary_ones_bit_for_bit(kind: FeedbackKind) -> None:
    x0, x_t = masked_rows(4, 6)
    t, noise, grads = torch.tensor([0.2, 0.4, 0.6, 0.8]), LogLinear(1e-3), []
    for objective in (
        BinaryObjective(tiny_mdlm(), noise, 5),
        SoftMaskObjective(close_gate(tiny_mdlm(soft_mask_settings(kind))), noise, 5),
    ):
        loss = objective(x0, x_t, t, True)
        loss.backward()
        grads.append(
            [loss, *[p.grad for n, p in objective.model.backbone.named_parameters() if "vocab_embed" not in n]]
        )
    assert all(torch.equal(ours, binary) for ours, binary in zip(*grads, strict=True))


def gradients(model: Mdlm, rows: torch.Tensor) -> list[torch.Tensor | None]:
    model.zero_grad()
    (rows * torch.linspace(-1, 1, rows.numel()).view_as(rows)).sum().backward()
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]


def test_hidden_states_of_the_masks_are_those_of_a_whole_pass_and_so_are_their_gradients() -> None:
    model = tiny_mdlm(soft_mask_settings())
    _, x_t = masked_rows(4, 6)
    guesses = first_pass(model, x_t, 5)
    rows, whole = model.hidden(x_t, guesses), model.backbone.trunk(model.embed(x_t, guesses))[x_t == MASK]
    torch.testing.assert_close(rows, whole)
    torch.testing.assert_close(gradients(model, rows), gradients(model, whole))


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_embeddings_and_their_gradients_are_those_of_tokens_and_mixtures_put_together(factor: float) -> None:
    model = tiny_mdlm(soft_mask_settings(k=2))
    _, x_t = masked_rows(4, 6)
    guesses, table = first_pass(model, x_t, 5), model.backbone.vocab_embed.embedding
    assert model.soft_mask is not None
    mixed = model.soft_mask(guesses, table, table[MASK], factor)
    apart = table[x_t].masked_scatter((x_t == MASK)[..., None], mixed)
    together = model.embed(x_t, guesses, factor)
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(gradients(model, together), gradients(model, apart))


@KINDS
def test_unmasked_rows_are_untouched_and_every_mask_gets_its_own_mixture(kind: FeedbackKind) -> None:
    model = tiny_mdlm(soft_mask_settings(kind))
    _, x_t = masked_rows(4, 6)
    masked, table = x_t == MASK, model.backbone.vocab_embed.embedding
    with torch.no_grad():
        guesses = first_pass(model, x_t, 5)
        embeddings = model.embed(x_t, guesses)
        assert model.soft_mask is not None
        mixed = model.soft_mask(guesses, table, table[MASK])
    assert torch.equal(embeddings[~masked], table[x_t[~masked]])
    torch.testing.assert_close(embeddings[masked], mixed)
    assert len(mixed.unique(dim=0)) == len(mixed)  # so that an exchange of rows would show


@KINDS
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_chunk_size_of_the_guesses_changes_nothing(kind: FeedbackKind, chunk: int) -> None:
    model = tiny_mdlm(soft_mask_settings(kind))
    _, x_t = masked_rows(4, 6)
    with torch.no_grad():
        guesses, whole = first_pass(model, x_t, chunk), first_pass(model, x_t, 7)
        torch.testing.assert_close(model(x_t, guesses), model(x_t, whole))
        if isinstance(guesses, TopKGuesses) and isinstance(whole, TopKGuesses):
            assert torch.equal(guesses.indices, whole.indices)


def test_full_feedback_stores_hidden_states_and_no_distributions() -> None:
    model = tiny_mdlm(soft_mask_settings(FeedbackKind.FULL))
    _, x_t = masked_rows(4, 6)
    guesses = first_pass(model, x_t, 5)
    assert isinstance(guesses, FullGuesses)
    assert guesses.hidden.shape == (int((x_t == MASK).sum()), 16)


def test_a_guess_is_what_the_head_gives_its_own_position() -> None:
    model = tiny_mdlm(soft_mask_settings(k=2))
    _, x_t = masked_rows(3, 6)
    with torch.no_grad():
        guesses = first_pass(model, x_t, 4)
        logits = model(x_t)[x_t == MASK]
    assert isinstance(guesses, TopKGuesses)
    assert torch.equal(guesses.indices, logits[:, :MASK].topk(2).indices)
    p = torch.softmax(logits[:, :MASK], -1)
    torch.testing.assert_close(guesses.neg_entropy, (p * p.log()).sum(-1))


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 7), st.sampled_from([(4, 2), (6, 3), (8, 1)]), st.integers(2, 6))
def test_logits_have_a_row_for_every_position(batch: int, length: int, shape: tuple[int, int], vocab_size: int) -> None:
    hidden_size, n_heads = shape
    config = MdlmConfig(
        vocab_size=vocab_size,
        mask_token_id=vocab_size - 1,
        length=length,
        hidden_size=hidden_size,
        n_blocks=1,
        n_heads=n_heads,
        cond_dim=4,
    )
    x_t = torch.full((batch, length), vocab_size - 1)
    assert Mdlm(config)(x_t).shape == (batch, length, vocab_size)


def test_attention_looks_both_ways_and_knows_positions() -> None:
    model, x = tiny_mdlm(), torch.arange(6)[None]
    with torch.no_grad():
        plain = model(x)
        for position in (0, 5):
            changed = x.clone()
            changed[0, position] = 7
            assert not torch.isclose(model(changed), plain).all(-1).any()  # every position sees the change
        assert not torch.allclose(model(x.flip(1)).flip(1), plain, atol=1e-3)


def test_rows_of_a_batch_do_not_see_one_another() -> None:
    model = tiny_mdlm()
    _, x_t = masked_rows(4, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(x_t)[2:3], model(x_t[2:3]))


def test_dropout_acts_in_training_only() -> None:
    model, x = tiny_mdlm(dropout=0.5), torch.arange(6)[None]
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))


def test_a_binary_model_takes_and_leaves_no_feedback() -> None:
    soft, binary = tiny_mdlm(soft_mask_settings()), tiny_mdlm()
    _, x_t = masked_rows(2, 6)
    with pytest.raises(AssertionError, match="binary model takes no feedback"):
        binary(x_t, first_pass(soft, x_t, 4))
    with pytest.raises(AssertionError, match="binary model leaves no feedback"):
        first_pass(binary, x_t, 4)


@KINDS
def test_a_saved_model_comes_back_with_its_weights_and_omegas(kind: FeedbackKind, tmp_path: Path) -> None:
    model = tiny_mdlm(soft_mask_settings(kind, k=2, omega_b=-1.234567))
    model.save_pretrained(tmp_path)
    loaded = Mdlm.from_pretrained(tmp_path)
    assert loaded.soft_mask is not None and loaded.soft_mask.kind is kind and loaded.soft_mask.k == 2
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys() and all(torch.equal(saved[name], read[name]) for name in saved)
    _, x_t = masked_rows(2, 6)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x_t, first_pass(loaded, x_t, 4)), model(x_t, first_pass(model, x_t, 4)))
