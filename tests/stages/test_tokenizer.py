"""The tokenizer stage: both kinds of training, a hub tokenizer, the mask token as the extra last id."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from softmask.tokens import Vocabulary
from stages.params.corpus import ShardsParams
from stages.params.tokenizer import TokenizerKind, TokenizerParams, TrainTokenizerParams
from stages.sources.documents import Document, ShardWriter
from stages.tokenizer import END_OF_TEXT, MASK, UNKNOWN, Params, run, train_bpe

TEXTS = ["def f(x):\n    return x + 1\n", "def g(yy):\n\treturn yy * 2\n", "ein ß, ein ü und noch ein ü, ü\n"]


def make(folder: Path, train: dict[str, Any] | None = None, hub: dict[str, Any] | None = None) -> Path:
    """Run the stage on TEXTS; the tokenizer's folder."""
    with ShardWriter(folder / "corpus", ShardsParams(row_group_characters=30, shard_characters=60)) as writer:
        for number, text in enumerate(TEXTS):
            writer.write(Document(str(number), text))
    values = {
        "source": "hub" if hub else "train",
        "train": {"kind": "characters", "vocab_size": None, "min_count": 2, **(train or {})},
        "hub": {"path": "nowhere", "revision": "0" * 40, "eos_token": END_OF_TEXT, **(hub or {})},
    }
    params = Params(tokenizer=validate(TokenizerParams, values, "params.yaml"))
    outputs = {"tokenizer": folder / "tokenizer", "manifest": folder / "manifest.json"}
    run(Context(params, {"train": folder / "corpus"}, outputs, {}, Checkpoints(folder / "store", "key")))
    return outputs["tokenizer"]


def load(folder: Path) -> tuple[Tokenizer, Vocabulary]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")), Vocabulary.read(folder)


@pytest.mark.parametrize(("kind", "vocab_size"), [("characters", None), ("bpe", 262)])
def test_the_mask_token_is_the_extra_last_id(tmp_path: Path, kind: str, vocab_size: int | None) -> None:
    tokenizer, vocabulary = load(make(tmp_path, {"kind": kind, "vocab_size": vocab_size}))
    frequent = sum(count >= 2 for count in Counter("".join(TEXTS)).values())
    assert vocabulary.size == tokenizer.get_vocab_size() == (vocab_size or frequent + 2) + 1
    assert vocabulary.mask_token_id == vocabulary.size - 1 == tokenizer.token_to_id(MASK)
    assert vocabulary.eos_token_id == tokenizer.token_to_id(END_OF_TEXT)


@pytest.mark.parametrize("train", [{"min_count": 1}, {"kind": "bpe", "vocab_size": 262}])
def test_known_text_comes_back_as_it_was(tmp_path: Path, train: dict[str, Any]) -> None:
    tokenizer, _ = load(make(tmp_path, train))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_rare_character_is_one_unknown_token_and_shows(tmp_path: Path) -> None:
    tokenizer, vocabulary = load(make(tmp_path))  # ß occurs once, ü three times
    ids = tokenizer.encode("ein ß").ids
    assert len(ids) == 5
    assert ids[-1] == vocabulary.unknown_token_id
    assert tokenizer.decode(ids) == f"ein {UNKNOWN}"
    assert tokenizer.decode(tokenizer.encode("ü").ids) == "ü"


@given(text=st.text(max_size=40))
def test_bpe_knows_every_text(text: str) -> None:
    tokenizer = train_bpe(iter(TEXTS), TrainTokenizerParams(kind=TokenizerKind.BPE, vocab_size=260, min_count=2))
    tokenizer.encode_special_tokens = True
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("train", [{}, {"kind": "bpe", "vocab_size": 265}])
def test_training_gives_the_same_bytes_whatever_the_parallelism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any]
) -> None:
    hashes = []
    for parallelism in ("true", "false"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallelism)
        hashes.append(path_hash(make(tmp_path / parallelism, train)))
    assert hashes[0] == hashes[1]


def test_a_hub_tokenizer_keeps_its_ids_and_gets_the_mask(tmp_path: Path) -> None:
    source = train_bpe(iter(TEXTS), TrainTokenizerParams(kind=TokenizerKind.BPE, vocab_size=262, min_count=2))
    source.enable_truncation(4)
    (tmp_path / "hub").mkdir()
    source.save(str(tmp_path / "hub" / "tokenizer.json"))
    source.no_truncation()
    tokenizer, vocabulary = load(make(tmp_path, hub={"path": str(tmp_path / "hub")}))
    assert (vocabulary.size, vocabulary.mask_token_id, vocabulary.unknown_token_id) == (263, 262, None)
    for text in TEXTS:
        assert tokenizer.encode(text).ids == source.encode(text).ids


def test_an_unusable_hub_tokenizer_is_refused(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        make(tmp_path / "a", hub={"path": str(hub)})
    done = make(tmp_path / "b")
    with pytest.raises(InputError, match=r"has \[MASK\] as id"):
        make(tmp_path / "c", hub={"path": str(done)})
    train_bpe(iter(TEXTS), TrainTokenizerParams(kind=TokenizerKind.BPE, vocab_size=262, min_count=2)).save(
        str(hub / "tokenizer.json")
    )
    with pytest.raises(InputError, match=r"eos_token: it has no token '</s>'"):
        make(tmp_path / "d", hub={"path": str(hub), "eos_token": "</s>"})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"kind": "bpe", "vocab_size": 5000}, r"the corpus gives \d+ tokens, not 5000"),
        ({"min_count": 10**6}, "no character occurs 1000000 times"),
        ({"kind": "bpe"}, "vocab_size null with kind 'bpe' is impossible"),
        ({"vocab_size": 300}, "vocab_size 300 with kind 'characters' is impossible"),
        ({"kind": "bpe", "vocab_size": 100}, r"train\.vocab_size: 100 is wrong; expected at least 257"),
        ({"kind": "words"}, "train.kind: 'words' is wrong"),
    ],
)
def test_impossible_training_is_refused(tmp_path: Path, train: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, train)
