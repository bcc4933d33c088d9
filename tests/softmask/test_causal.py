"""Training a judge: what it is shown, and its loss."""

from pathlib import Path

import numpy as np
import pytest
import torch

from softmask.backbones.causal_lm import load_causal_lm
from softmask.training.causal import CausalObjective, RowsAndNext, collate
from softmask.training.stream import TrainingStream
from tests.tiny_judge import gpt2_folder, packed_letters


def test_each_row_comes_with_the_token_that_follows_it(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [50, 30])
    stream = tokens.rows(range(len(tokens))).ravel()
    rows = RowsAndNext(tokens)
    assert (len(rows), rows.length) == (len(tokens) - 1, 9)
    for row in range(len(rows)):
        np.testing.assert_array_equal(rows.rows(np.array([row]))[0], stream[row * 8 : row * 8 + 9])


def test_the_loss_is_transformers_own_over_every_position_of_the_row(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [50, 30])
    model = load_causal_lm(gpt2_folder(tmp_path / "gpt2"))
    stream = TrainingStream(RowsAndNext(tokens), items=4, seed=1)
    batch = collate([stream[position] for position in range(4)])
    assert batch["input_ids"].shape == (4, 9)
    with torch.no_grad():
        own = model(batch["input_ids"], labels=batch["input_ids"]).loss
        ours = CausalObjective(model, head_chunk=5)(batch["input_ids"])
    assert float(ours) == pytest.approx(float(own), rel=1e-5)
