"""The chat_tokenizer stage: trained on chats, or a published folder, local or fetched; both in one layout."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.files import write_lines
from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.backbones.chat_tokenizer import FILES, ChatTokenizer, load_chat_tokenizer
from softmask.errors import InputError
from stages.chat_tokenizer import Params, run, train_chat_tokenizer
from stages.params.code.tokenizer import ChatTokenizerParams, TrainChatTokenizerParams
from tests.softmask.tiny_chat import write_published_tokenizer
from tests.stages.test_base_checkpoint import REVISION, hub_of

CHATS: list[dict[str, Any]] = [
    {
        "id": str(number),
        "messages": [
            {"role": "user", "content": f"Write a function that adds {number} to a number."},
            {"role": "assistant", "content": f"def add(x):\n    return x + {number}\n"},
        ],
    }
    for number in range(100, 140)
]
PUBLISHED = {"path": None, "repo": None, "revision": None}


def params(**changes: Any) -> ChatTokenizerParams:
    values = {"source": "train", "train": {"vocab_size": 300, "min_count": 2}, "published": PUBLISHED}
    return validate(ChatTokenizerParams, {**values, **changes}, "params.yaml")


def make(folder: Path, chosen: ChatTokenizerParams, chats: list[dict[str, Any]] = CHATS) -> Context[Params]:
    """Run the stage."""
    write_lines(folder / "train.jsonl", chats)
    context = Context(
        Params(tokenizer=chosen),
        {"instructions": folder / "train.jsonl"},
        {"tokenizer": folder / "tokenizer", "manifest": folder / "manifest.json"},
        {"family": "tiny"},
        Checkpoints(folder / "store", "key"),
    )
    run(context)
    return context


def test_a_trained_tokenizer_has_its_size_and_special_tokens_as_the_last_ids(tmp_path: Path) -> None:
    context = make(tmp_path, params())
    found = load_chat_tokenizer(context.outputs["tokenizer"])
    assert found.size == 300 and found.mask_token_id == 299
    assert [found.decode([number]) for number in range(296, 300)] == [
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>")
    ]
    assert found.pad_token_id == 296 and found.end_token_ids == (296, 298)
    assert context.counts == {"size": 300, "mask_token_id": 299, "pad_token_id": 296, "end_token_ids": [296, 298]}


def test_a_trained_tokenizer_speaks_chatml_and_keeps_digits_apart(tmp_path: Path) -> None:
    found = load_chat_tokenizer(make(tmp_path, params()).outputs["tokenizer"])
    ids, prompt_length = found.chat_ids(CHATS[0]["messages"])
    assert found.decode(ids[:prompt_length]) == (
        "<|im_start|>user\nWrite a function that adds 100 to a number.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert found.decode(ids[prompt_length:]) == "def add(x):\n    return x + 100\n<|im_end|>\n"
    assert [found.decode([number]) for number in found.encode("100")] == ["1", "0", "0"]
    assert len(found.encode("Write a function")) < len("Write a function"), "something was learnt"


def trained() -> ChatTokenizer:
    texts = iter(message["content"] for chat in CHATS for message in chat["messages"])
    return train_chat_tokenizer(texts, TrainChatTokenizerParams(vocab_size=280, min_count=2), "params.yaml")


TRAINED = trained()


@given(text=st.text(max_size=40))
def test_a_trained_tokenizer_knows_every_text(text: str) -> None:
    if not TRAINED.has_special_tokens(text):
        plain = TRAINED.backend.backend_tokenizer.normalizer.normalize_str(text)
        assert TRAINED.decode(TRAINED.encode(text)) == plain


def test_training_gives_the_same_bytes_whatever_the_parallelism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for parallelism in ("true", "false"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallelism)
        hashes.append(path_hash(make(tmp_path / parallelism, params()).outputs["tokenizer"]))
    assert hashes[0] == hashes[1]


def test_a_published_folder_becomes_one_file_with_the_same_ids(tmp_path: Path) -> None:
    folder = write_published_tokenizer(tmp_path / "published")
    context = make(tmp_path, params(source="path", published={**PUBLISHED, "path": str(folder)}))
    made = context.outputs["tokenizer"]
    assert sorted(path.name for path in made.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    ours, theirs = load_chat_tokenizer(made), load_chat_tokenizer(folder)
    assert ours.chat_ids(CHATS[0]["messages"]) == theirs.chat_ids(CHATS[0]["messages"])


def test_what_an_earlier_run_left_is_gone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{}")
    assert not (make(tmp_path, params()).outputs["tokenizer"] / "vocab.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"vocab_size": 3000, "min_count": 2}}, r"the instructions give \d+ tokens, not 3000"),
        ({"source": "path", "published": {**PUBLISHED, "path": "nowhere"}}, r"tiny\.tokenizer\.published\.path: 'now"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, params(**changes))


def test_no_chats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl: no chat"):
        make(tmp_path, params(), [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "path"}, "source 'path' with published.path null is impossible"),
        ({"source": "hub"}, "source 'hub' with published.repo null is impossible"),
        ({"source": "hub", "published": {**PUBLISHED, "repo": "a/b"}}, "published.revision null is impossible"),
        ({"published": {**PUBLISHED, "revision": "main"}}, "published.revision: 'main' is wrong; expected a commit's"),
        ({"published": {**PUBLISHED, "repo": "Dream"}}, "published.repo: 'Dream' is wrong"),
        ({"train": {"vocab_size": 200, "min_count": 1}}, "train.vocab_size: 200 is wrong; expected at least 260"),
        ({"source": "web"}, "source: 'web' is wrong"),
    ],
)
def test_impossible_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        params(**changes)
    assert message in str(caught.value)


FETCH = """
import json, sys
from runner.stage import run_command
from stages.params.code.published import PublishedParams, Source
from stages.sources.published import published_folder
found, patterns = PublishedParams.model_validate_json(sys.argv[1]), json.loads(sys.argv[2])
run_command(lambda: print(published_folder(found, Source.HUB, patterns, "params.yaml: code.settings.dream.base")))
"""


def fetch(
    endpoint: str, home: Path, patterns: Sequence[str] = FILES, revision: str = REVISION
) -> "subprocess.CompletedProcess[str]":
    """Fetch in a process of its own: the client reads its settings when it is imported."""
    published = json.dumps({"path": None, "repo": "a/b", "revision": revision})
    return subprocess.run(
        [sys.executable, "-c", FETCH, published, json.dumps(list(patterns))],
        env={"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pinned_repository_gives_its_tokenizer_and_none_of_its_code(tmp_path: Path) -> None:
    repository = write_published_tokenizer(tmp_path / "repository")
    (repository / "model-00001-of-00001.safetensors").write_text("large")
    asked: list[str] = []
    with hub_of(repository, asked) as endpoint:
        done = fetch(endpoint, tmp_path / "home")
    folder = Path(done.stdout.strip())
    assert sorted(path.name for path in folder.iterdir()) == [
        *("added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    ]
    assert load_chat_tokenizer(folder).encode("ret") == load_chat_tokenizer(repository).encode("ret")
    assert not any(name.endswith((".py", ".safetensors")) for name in asked)


def test_a_revision_that_is_not_there_is_a_clear_message(tmp_path: Path) -> None:
    revision = "f" * 40
    with hub_of(write_published_tokenizer(tmp_path / "repository"), []) as endpoint:
        done = fetch(endpoint, tmp_path / "home", revision=revision)
    assert done.returncode == 75 and "Traceback" not in done.stderr
    assert f"error: params.yaml: code.settings.dream.base.published.repo: a/b at {revision} can't be" in done.stderr
