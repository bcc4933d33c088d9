"""The judge: what it counts, in windows and batches, and what it refuses to load."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import Gemma2Config, Gemma2ForCausalLM

from softmask.backbones.causal_lm import chunked_nll, forward_flops, load_causal_lm, output_head
from softmask.errors import InputError
from softmask.evaluation.judge import Judge, plan
from softmask.evaluation.rules import EosRule, FirstToken, ScoringRules
from tests.tiny_judge import character_tokenizer, gpt2_folder, gpt2_judge, letters

EOS = 99
RULES = ScoringRules(
    max_length=16,
    stride=8,
    eos_rule=EosRule.KEEP_ALL,
    first_token=FirstToken.SKIP,
    batch_size=4,
    head_chunk=5,
)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return gpt2_judge(tmp_path_factory.mktemp("judge"))


def scored(ids: list[int], rules: ScoringRules) -> list[int]:
    """The targets that count, in order."""
    windows = plan(0, ids, EOS, rules)
    return [t for w in windows for t, counts in zip(w.targets, w.scored, strict=True) if counts]


def test_the_score_is_the_models_own_loss(judge: Judge) -> None:
    text = letters(12, 1)
    ids = torch.tensor([judge.tokenizer.encode(text).ids])
    with torch.no_grad():
        loss = judge.model(ids, labels=ids).loss
    scores = judge.score([text], RULES)
    assert scores["tokens"] == [11]
    assert scores["nll"][0] == pytest.approx(float(loss) * 11, rel=1e-5)


def test_batching_changes_nothing_but_rounding(judge: Judge) -> None:
    texts = [letters(n, n) for n in (1, 40, 3, 17, 16, 2, 33)]
    together = judge.score(texts, RULES)
    alone = [judge.score([text], replace(RULES, batch_size=1, head_chunk=1000)) for text in texts]
    assert together["tokens"] == [one["tokens"][0] for one in alone] == [0, 39, 2, 16, 15, 1, 32]
    np.testing.assert_allclose(together["nll"], [one["nll"][0] for one in alone], rtol=1e-5)
    assert together == judge.score(texts, RULES)


def test_a_long_text_is_scored_window_by_window_with_the_context_before(judge: Judge) -> None:
    text = letters(30, 5)
    ids = judge.tokenizer.encode(text).ids
    expected = 0.0
    for target in range(1, 30):
        start = 0 if target <= 16 else 8 if target <= 24 else 16
        with torch.no_grad():
            logits = judge.model(torch.tensor([ids[start:target]])).logits[0, -1]
        expected += float(F.cross_entropy(logits, torch.tensor(ids[target])))
    assert judge.score([text], RULES)["nll"][0] == pytest.approx(expected, rel=1e-5)


@given(
    n=st.integers(0, 60),
    max_length=st.integers(1, 20),
    share=st.floats(0, 1),
    first=st.sampled_from(FirstToken),
)
def test_every_token_counts_once_and_has_its_context(n: int, max_length: int, share: float, first: FirstToken) -> None:
    stride = max(1, round(share * max_length))
    rules = replace(RULES, max_length=max_length, stride=stride, first_token=first)
    ids = list(range(n))
    windows = list(plan(0, ids, EOS, rules))
    assert scored(ids, rules) == (ids if first is FirstToken.AFTER_EOS else ids[1:])
    assert all(len(window.inputs) <= max_length for window in windows)
    for window in windows[1:]:
        assert window.scored.index(True) >= max_length - stride


A, B, C = 1, 2, 3
TEXT = [A, EOS, B, EOS, EOS, C]


@pytest.mark.parametrize(
    ("rule", "first", "ids", "counted"),
    [
        (EosRule.KEEP_ALL, FirstToken.SKIP, TEXT, [EOS, B, EOS, EOS, C]),
        (EosRule.KEEP_ALL, FirstToken.AFTER_EOS, TEXT, TEXT),
        (EosRule.FIRST_ONLY, FirstToken.SKIP, TEXT, [EOS, B, C]),
        (EosRule.FIRST_ONLY, FirstToken.SKIP, [EOS, A, EOS, B], [A, B]),
        (EosRule.FIRST_ONLY, FirstToken.AFTER_EOS, [EOS, A, EOS, B], [EOS, A, B]),
        (EosRule.TRUNCATE_AT_FIRST, FirstToken.SKIP, TEXT, [EOS]),
        (EosRule.TRUNCATE_AT_FIRST, FirstToken.AFTER_EOS, TEXT, [A, EOS]),
        (EosRule.TRUNCATE_AT_FIRST, FirstToken.SKIP, [EOS, A, B, EOS, C], [A, B, EOS]),
        (EosRule.TRUNCATE_AT_FIRST, FirstToken.SKIP, [A, B], [B]),
    ],
)
def test_the_end_of_text_rule_says_what_counts(
    rule: EosRule, first: FirstToken, ids: list[int], counted: list[int]
) -> None:
    assert scored(ids, replace(RULES, eos_rule=rule, first_token=first)) == counted


def test_the_first_only_rule_is_the_weight_of_mdlms_evaluation() -> None:
    ids = torch.tensor(np.random.default_rng(3).choice([A, B, EOS], size=16))
    first_eos = (ids == EOS).cumsum(-1) == 1
    weight = (first_eos | (ids != EOS))[1:]
    assert scored(ids.tolist(), replace(RULES, eos_rule=EosRule.FIRST_ONLY)) == ids[1:][weight].tolist()


def test_truncated_text_is_not_read_either(judge: Judge) -> None:
    rules = replace(RULES, eos_rule=EosRule.TRUNCATE_AT_FIRST)
    long, short = judge.score(["abc<|endoftext|>hgf", "abc<|endoftext|>"], rules)["nll"]
    assert long == pytest.approx(short, rel=1e-6)


def test_the_letters_of_end_of_text_are_read_as_one_token(judge: Judge) -> None:
    assert judge.score(["ab<|endoftext|>c"], RULES)["tokens"] == [3]
    assert judge.eos_token == "<|endoftext|>"


def test_no_logits_for_more_than_a_chunk_of_positions_exist(judge: Judge) -> None:
    rows: list[int] = []
    head = output_head(judge.model)
    hook = head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[0]))
    judge.score([letters(16, 1), letters(9, 2)], RULES)
    hook.remove()
    assert max(rows) == RULES.head_chunk
    assert sum(rows) == 15 + 8


def test_chunks_change_neither_loss_nor_gradients() -> None:
    torch.manual_seed(0)
    head, targets = torch.nn.Linear(6, 11), torch.randint(11, (17,))
    gradients = []
    for chunk in (17, 4):
        hidden = torch.linspace(-1, 1, 17 * 6).reshape(17, 6).requires_grad_()
        head.zero_grad()
        nll = chunked_nll(hidden, head, targets, chunk)
        nll.mean().backward()
        assert hidden.grad is not None and head.weight.grad is not None
        gradients.append([nll.detach(), hidden.grad, head.weight.grad.clone()])
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, pieces)


def test_features_are_mauves_own(judge: Judge) -> None:
    from mauve.utils import featurize_tokens_from_model

    texts = [letters(n, n) for n in (5, 1, 16, 9)]
    ids = [torch.tensor([judge.tokenizer.encode(text).ids]) for text in texts]
    features, cost = judge.features(texts, max_text_length=16, batch_size=3)
    np.testing.assert_allclose(
        features, featurize_tokens_from_model(judge.model.base_model, ids, 2).numpy(), rtol=1e-4, atol=1e-5
    )
    assert features.dtype == np.float32
    assert cost == {"forwards": 4, "tokens": 31, "flops": forward_flops(judge.model, 31, 0)}


def test_features_read_no_more_than_max_text_length_and_an_empty_text_is_an_end_of_text(judge: Judge) -> None:
    features, _ = judge.features(["abcdef", "abc", "", "<|endoftext|>"], max_text_length=3, batch_size=1)
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_array_equal(features[2], features[3])
    assert not np.allclose(features[0], features[2])


def test_flops_are_two_for_each_multiply_add(judge: Judge) -> None:
    blocks = 2 * (16 * 48 + 16 * 16 + 2 * 16 * 64)
    assert forward_flops(judge.model, 7, 3) == 2 * (7 * blocks + 3 * 16 * judge.model.config.vocab_size)


def test_more_tokens_than_the_judge_can_read_are_refused(judge: Judge) -> None:
    with pytest.raises(InputError, match=r"max_length: 17 tokens .* at most 16"):
        judge.score(["abc"], replace(RULES, max_length=17))
    with pytest.raises(InputError, match=r"max_text_length"):
        judge.features(["abc"], max_text_length=17, batch_size=1)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    gpt2_folder(tmp_path)
    model = load_causal_lm(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"can't be loaded.*expected .* safetensors"):
        Judge.load(tmp_path, "cpu")


def test_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    gpt2_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(InputError, match=r"weights are missing .*transformer\.h\.2"):
        Judge.load(tmp_path, "cpu")
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_positions": 32}))
    with pytest.raises(InputError, match=r"wpe|size mismatch|can't be loaded"):
        Judge.load(tmp_path, "cpu")


@pytest.mark.parametrize("eos", [None, [1, 2], 4711])
def test_a_judge_without_one_end_of_text_is_refused(tmp_path: Path, eos: object) -> None:
    gpt2_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": eos}))
    with pytest.raises(InputError, match="eos_token_id is"):
        Judge.load(tmp_path, "cpu")


def test_a_judge_that_changes_its_logits_after_the_head_is_refused(tmp_path: Path) -> None:
    _, vocabulary = character_tokenizer(tmp_path)
    config = Gemma2Config(
        vocab_size=vocabulary.size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=0.01,
        eos_token_id=vocabulary.eos_token_id,
        bos_token_id=vocabulary.eos_token_id,
        pad_token_id=0,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="changes its logits after the output head"):
        Judge.load(tmp_path, "cpu")


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    gpt2_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json: the judge's tokenizer can't be read"):
        Judge.load(tmp_path, "cpu")
