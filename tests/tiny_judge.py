"""Small real judges and small packed splits for tests: a character tokenizer, random causal models, rows of letters."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from artifacts.files import write_json
from softmask.evaluation.judge import Judge
from softmask.tokens import PackedTokens, Vocabulary
from stages.params.tokenizer import TokenizerKind, TrainTokenizerParams
from stages.params.tokens import TokensParams
from stages.tokenizer import END_OF_TEXT, UNKNOWN, add_mask, train_characters
from stages.tokens import pack

LETTERS = "abcdefgh "


def character_tokenizer(folder: Path) -> tuple[Tokenizer, Vocabulary]:
    """The tokenizer stage's output for `LETTERS`, written to `folder`."""
    params = TrainTokenizerParams(kind=TokenizerKind.CHARACTERS, vocab_size=None, min_count=1)
    tokenizer = train_characters(iter([LETTERS]), params)
    vocabulary = add_mask(tokenizer, END_OF_TEXT, UNKNOWN)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocabulary.json", vocabulary.to_dict())
    return tokenizer, vocabulary


def gpt2_folder(folder: Path, context: int = 16) -> Path:
    """A random GPT-2 with tied embeddings over `LETTERS`, in the hub's layout."""
    _, vocabulary = character_tokenizer(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary.size,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=context,
        initializer_range=0.5,
        bos_token_id=vocabulary.eos_token_id,
        eos_token_id=vocabulary.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def gpt2_judge(folder: Path, context: int = 16) -> Judge:
    """That GPT-2 as a judge."""
    return Judge.load(gpt2_folder(folder, context), "cpu")


def letters(length: int, seed: int) -> str:
    """A random text over `LETTERS`."""
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), size=length))


def packed_letters(folder: Path, tokenizer_folder: Path, lengths: list[int], length: int = 8) -> PackedTokens:
    """A packed split of random documents of the given lengths."""
    tokenizer, vocabulary = character_tokenizer(tokenizer_folder)
    texts = (letters(n, seed) for seed, n in enumerate(lengths))
    pack(texts, folder, tokenizer, vocabulary, TokensParams(length=length, batch_characters=100))
    return PackedTokens.open(folder)
