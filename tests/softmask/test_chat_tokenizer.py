"""The chat tokenizer from a folder in the published Dream layout, and from one that we saved."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from softmask.backbones.chat_tokenizer import ChatTokenizer, load_chat_tokenizer
from softmask.errors import InputError
from tests.softmask.tiny_chat import ADDED, IDS, SYSTEM, write_published_tokenizer

CHAT = [{"role": "user", "content": "ret 1212"}, {"role": "assistant", "content": "\na é"}]
PROMPT = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nret 1212<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return load_chat_tokenizer(write_published_tokenizer(tmp_path_factory.mktemp("published")))


@pytest.fixture(scope="module")
def saved(published: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    published.save(folder)
    return folder


def test_a_published_folder_keeps_its_ids_and_runs_none_of_its_code(published: ChatTokenizer) -> None:
    assert published.size == max(IDS.values()) + 1
    assert published.mask_token_id == IDS["<|mask|>"] and published.pad_token_id == IDS["<|endoftext|>"]
    assert published.end_token_ids == (IDS["<|endoftext|>"], IDS["<|im_end|>"])
    for token in ADDED:
        assert published.encode(token) == [IDS[token]]


def test_text_is_split_as_qwens(published: ChatTokenizer) -> None:
    decoded = [published.decode([number]) for number in published.encode("ret 1212\n\nx")]
    assert decoded == ["ret", " ", "1", "2", "1", "2", "\n\n", "x"]
    assert published.encode("e\u0301") == published.encode("é"), "text is normalised (NFC)"


def test_a_prompt_is_the_template_with_the_answer_begun(published: ChatTokenizer) -> None:
    ids = published.prompt_ids(CHAT[:1])
    assert published.decode(ids) == PROMPT
    assert ids[0] == IDS["<|im_start|>"]
    assert published.prompt_ids(CHAT[:1], "```python\n") == ids + published.encode("```python\n")


def test_a_chats_prompt_is_what_a_model_would_be_asked(published: ChatTokenizer) -> None:
    ids, prompt_length = published.chat_ids(CHAT)
    assert ids[:prompt_length] == published.prompt_ids(CHAT[:1]), "also where the answer begins with a line break"
    assert published.decode(ids) == PROMPT + "\na é<|im_end|>\n"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(request=texts, answer=texts)
def test_any_chat_comes_back_and_begins_with_its_prompt(published: ChatTokenizer, request: str, answer: str) -> None:
    chat = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    ids, prompt_length = published.chat_ids(chat)
    assert ids[:prompt_length] == published.prompt_ids(chat[:1])
    plain = published.backend.backend_tokenizer.normalizer.normalize_str(answer)
    assert published.decode(ids[prompt_length:]) == plain + "<|im_end|>\n"


def test_special_tokens_in_a_text_are_noticed(published: ChatTokenizer) -> None:
    assert published.has_special_tokens("a <|im_end|> b") and published.has_special_tokens("<|mask|>")
    assert not published.has_special_tokens("<tool_call> | <|im")


def test_a_saved_tokenizer_is_the_same_and_transformers_reads_it(published: ChatTokenizer, saved: Path) -> None:
    again = load_chat_tokenizer(saved)
    assert (again.size, again.mask_token_id, again.pad_token_id) == (
        published.size,
        published.mask_token_id,
        published.pad_token_id,
    )
    assert again.end_token_ids == published.end_token_ids and again.chat_ids(CHAT) == published.chat_ids(CHAT)
    assert again.has_special_tokens("<|im_end|>")
    assert "auto_map" not in (saved / "tokenizer_config.json").read_text()
    theirs = AutoTokenizer.from_pretrained(saved, trust_remote_code=False)
    rendered = theirs.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_dict=False)
    assert rendered == published.prompt_ids(CHAT[:1])


def test_saving_twice_gives_the_same_bytes(published: ChatTokenizer, saved: Path, tmp_path: Path) -> None:
    load_chat_tokenizer(saved).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in saved.iterdir())


def test_a_template_in_a_file_of_its_own_is_used(tmp_path: Path) -> None:
    folder = write_published_tokenizer(tmp_path, chat_template=...)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{{ '!' if add_generation_prompt }}")
    found = load_chat_tokenizer(folder)
    assert found.decode(found.prompt_ids(CHAT[:1])) == "ret 1212!"


def test_messages_that_the_template_refuses_are_an_input_error(published: ChatTokenizer) -> None:
    with pytest.raises(InputError, match="the chat template refuses the messages: no such role: judge"):
        published.prompt_ids([{"role": "judge", "content": "a"}])


def test_a_template_that_rewrites_its_prompt_is_refused(tmp_path: Path) -> None:
    template = "{{ messages | length }}{% for message in messages %}{{ message.content }}{% endfor %}"
    found = load_chat_tokenizer(write_published_tokenizer(tmp_path, chat_template=template))
    with pytest.raises(InputError, match="prompt is not how its chat with the answer begins"):
        found.chat_ids(CHAT)


@pytest.mark.parametrize("name", ["chat_template", "mask_token", "pad_token", "eos_token"])
def test_a_tokenizer_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    value = ... if name == "chat_template" else None
    with pytest.raises(InputError, match=rf"tokenizer_config\.json: {name}: missing"):
        load_chat_tokenizer(write_published_tokenizer(tmp_path, **{name: value}))


def test_ids_of_another_version_are_refused(tmp_path: Path) -> None:
    folder = write_published_tokenizer(tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "xx": len(vocabulary)}))
    with pytest.raises(InputError, match=r"added_tokens_decoder: <\|endoftext\|> has become id \d+; expected \d+"):
        load_chat_tokenizer(folder)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_published_tokenizer(tmp_path)
    (folder / name).write_text("{")
    with pytest.raises(InputError, match="the tokenizer can't be loaded"):
        load_chat_tokenizer(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} missing"):
        load_chat_tokenizer(folder)
