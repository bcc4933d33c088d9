"""The chat_tokens stage and the folders it writes: what becomes of a chat, what is left out, damage that is found."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.files import write_lines
from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.backbones.chat_tokenizer import load_chat_tokenizer
from softmask.errors import InputError
from softmask.training.chat_tokens import ChatTokens, ChatVocabulary
from stages.chat_tokens import Params, run
from stages.params.code.instructions import InstructionsParams
from tests.softmask.tiny_chat import IDS, write_published_tokenizer

VALUES: dict[str, Any] = {
    "seed": 1,
    "validation_examples": 1,
    "max_examples": None,
    "drop_tool_calls": True,
    "tool_call_markers": ["<tool_call>"],
    "max_length": 200,
    "min_response_tokens": 3,
}
VOCABULARY = ChatVocabulary(vocab_size=10, mask_token_id=9, pad_token_id=8, end_token_ids=(7, 8))


def chat(answer: str = "return a", prefill: str = "", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": prefill + answer}]
    return {"id": "one", "messages": messages, "prefill": prefill, **changes}


def make(folder: Path, train: list[dict[str, Any]], **changes: Any) -> Context[Params]:
    """Run the stage; validation is one plain chat."""
    write_lines(folder / "train.jsonl", train)
    write_lines(folder / "validation.jsonl", [chat()])
    inputs = {split: folder / f"{split}.jsonl" for split in ("train", "validation")}
    outputs = {split: folder / split for split in ("train", "validation")}
    context = Context(
        Params(instructions=validate(InstructionsParams, {**VALUES, **changes}, "params.yaml")),
        {**inputs, "tokenizer": write_published_tokenizer(folder / "tokenizer")},
        {**outputs, "manifest": folder / "manifest.json"},
        {"family": "tiny"},
        Checkpoints(folder / "store", "key"),
    )
    run(context)
    return context


def read(context: Context[Params], number: int = 0) -> tuple[str, str]:
    """Prompt and response of a training chat, as text."""
    ids, prompt_length = ChatTokens.open(context.outputs["train"]).item(number)
    assert ids.dtype == np.int64
    tokenizer = load_chat_tokenizer(context.inputs["tokenizer"])
    return tokenizer.decode(list(ids[:prompt_length])), tokenizer.decode(list(ids[prompt_length:]))


def test_a_response_is_the_answer_and_the_end_of_its_turn(tmp_path: Path) -> None:
    prompt, response = read(make(tmp_path, [chat()]))
    assert prompt.endswith("<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n")
    assert response == "return a<|im_end|>"


def test_a_prompt_is_what_the_model_is_given_when_it_is_asked(tmp_path: Path) -> None:
    context = make(tmp_path, [chat(prefill="```python\n")])
    ids, prompt_length = ChatTokens.open(context.outputs["train"]).item(0)
    tokenizer = load_chat_tokenizer(context.inputs["tokenizer"])
    asked = tokenizer.prompt_ids([{"role": "user", "content": "Add."}], prefill="```python\n")
    assert list(ids[:prompt_length]) == asked and read(context)[1] == "return a<|im_end|>"


def test_only_the_last_answer_of_a_longer_chat_is_the_response(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1, of course"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2, of course"},
    ]
    prompt, response = read(make(tmp_path, [chat(messages=messages)]))
    assert "1, of course<|im_end|>" in prompt and response == "2, of course<|im_end|>"


def test_what_cannot_be_trained_on_is_left_out_and_counted(tmp_path: Path) -> None:
    chats = [chat(), chat("<|mask|> a"), chat("x" * 300), chat("a"), chat("b" * 20)]
    context = make(tmp_path, chats)
    dropped = {"short_response": 1, "special_tokens": 1, "too_long": 1}
    assert context.counts["train"]["dropped"] == dropped and context.counts["train"]["chats"] == 2
    assert read(context, 1)[1] == "b" * 20 + "<|im_end|>"


@pytest.mark.parametrize(("extra", "kept"), [(0, 1), (-1, 0)])
def test_the_longest_chat_has_exactly_max_length_tokens(tmp_path: Path, extra: int, kept: int) -> None:
    long = chat("x" * 30)
    length = make(tmp_path / "any", [long]).counts["train"]["longest"]
    context = make(tmp_path, [long, chat()], max_length=length + extra)
    assert context.counts["train"]["chats"] == 1 + kept


def test_no_chat_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no chat is left: \{'short_response': 1\}"):
        make(tmp_path, [chat("a")])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (chat(messages=[{"role": "robot", "content": "x"}, {"role": "assistant", "content": "abc"}]), "no such role"),
        ({**chat(), "prefill": "def"}, "doesn't begin with its prefill"),
    ],
)
def test_a_chat_that_is_none_is_named(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(tmp_path, [chat(), broken])
    assert "train.jsonl, line 2" in str(caught.value)


def test_the_same_chats_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, [chat(), chat("b" * 9)]).outputs["train"] for name in ("a", "b"))
    assert path_hash(first) == path_hash(second)


def test_a_folder_says_what_training_needs_of_the_tokenizer(tmp_path: Path) -> None:
    tokens = ChatTokens.open(make(tmp_path, [chat()]).outputs["train"])
    assert tokens.mask_token_id == IDS["<|mask|>"] and tokens.pad_token_id == IDS["<|endoftext|>"]
    assert IDS["<|im_end|>"] in tokens.end_token_ids and tokens.vocab_size == max(IDS.values()) + 1


@st.composite
def encoded(draw: st.DrawFn) -> tuple[list[int], int]:
    ids = draw(st.lists(st.integers(0, 8), min_size=2, max_size=12))
    return ids, draw(st.integers(1, len(ids) - 1))


@given(chats=st.lists(encoded(), min_size=1, max_size=8))
def test_chats_come_back_as_they_were_written(
    chats: list[tuple[list[int], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chats")
    ChatTokens.write(folder, chats, VOCABULARY)
    tokens = pickle.loads(pickle.dumps(ChatTokens.open(folder)))
    found = [tokens.item(number) for number in range(len(tokens))]
    lengths, prompts = tokens.sizes()
    assert [(len(ids), prompt) for ids, prompt in found] == list(zip(lengths, prompts, strict=True))
    assert [(list(ids), prompt_length) for ids, prompt_length in found] == chats


@pytest.mark.parametrize("bad", [([1, 2], 2), ([1, 2], 0), ([1, 10], 1), ([1, -1], 1), ([1, 9], 1)])
def test_chats_that_cannot_be_trained_on_are_not_written(tmp_path: Path, bad: tuple[list[int], int]) -> None:
    with pytest.raises(ValueError, match="chat 1 has"):
        ChatTokens.write(tmp_path, [([1, 2], 1), bad], VOCABULARY)


def test_there_is_no_chat_behind_the_last(tmp_path: Path) -> None:
    ChatTokens.write(tmp_path, [([1, 2], 1)], VOCABULARY)
    for number in (-1, 1):
        with pytest.raises(IndexError, match="of 1"):
            ChatTokens.open(tmp_path).item(number)


@pytest.mark.parametrize("name", ["chats.safetensors", "info.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "of another folder"])
def test_damaged_folders_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    folder, other = tmp_path / "one", tmp_path / "other"
    for path, chats in ((folder, [([1, 2, 3], 1)]), (other, [([1, 2, 3], 1), ([4, 5], 1)])):
        path.mkdir()
        ChatTokens.write(path, chats, VOCABULARY)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut":
        (folder / name).write_bytes(content[:-1])
    elif damage == "garbage":
        (folder / name).write_bytes(b"garbage" * 9)
    elif damage == "of another folder":
        (folder / name).write_bytes((other / name).read_bytes())
    if name == "info.json" and damage == "cut":
        return  # the final line break alone
    with pytest.raises(InputError, match=r"one/(chats\.safetensors|info\.json)"):
        ChatTokens.open(folder)
