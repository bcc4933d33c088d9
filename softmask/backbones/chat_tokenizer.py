"""A chat model's tokenizer: chat template, special tokens, and text as ids; from tokenizer.json, or from vocab.json and
merges.txt as the published Dream folders have it. No code of the folder is run. Knows no model and no data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from softmask.errors import InputError
from softmask.plain_json import read_object

END_OF_TURN = "<|im_end|>"
"""ChatML's end of a message; Dream's instruct models end an answer with it and fill up with end-of-text."""
TOKENIZER, CONFIG, VOCABULARY, MERGES = "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"
FILES = (
    *(TOKENIZER, CONFIG, VOCABULARY, MERGES),
    *("added_tokens.json", "special_tokens_map.json", "chat_template.jinja"),
)
"""All that a tokenizer's folder may hold."""

Message = Mapping[str, str]
"""`{"role": ..., "content": ...}`."""


@dataclass(frozen=True)
class ChatTokenizer:
    """Text to ids and back.

    Special tokens in a text are read as what they stand for, as the official code does: a chat whose content holds
    them is no clean chat (`has_special_tokens`).
    """

    backend: PreTrainedTokenizerFast
    size: int
    """Ids in all; a model's vocabulary may be larger."""
    mask_token_id: int
    pad_token_id: int
    """Fills up behind an answer; Dream's is end-of-text."""
    end_token_ids: tuple[int, ...]
    """Tokens that end an answer: end-of-text, the padding, and the end of a turn where there is one."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text; nothing is put before or after it."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens shown, no space added or taken."""
        return str(self.backend.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def prompt_ids(self, messages: Sequence[Message], prefill: str = "") -> list[int]:
        """The ids that a model answers to.

        Args:
            messages: the chat so far, the user's turn last.
            prefill: how the answer begins; its ids follow the template's.

        Raises:
            InputError: the template refuses the messages.
        """
        return self.encode(self._render(messages, answer=True)) + self.encode(prefill)

    def chat_ids(self, messages: Sequence[Message]) -> tuple[list[int], int]:
        """The ids of a chat that ends with an answer, and how many of them are the prompt.

        The answer's ids begin where the prompt's end, even where a tokenizer would join both: so it is when the model
        answers.

        Raises:
            InputError: the template refuses the messages, or changes the prompt when the answer comes.
        """
        whole, prompt = self._render(messages, answer=False), self._render(messages[:-1], answer=True)
        if not whole.startswith(prompt):
            raise InputError("the chat template's prompt is not how its chat with the answer begins")
        ids = self.encode(prompt)
        return ids + self.encode(whole.removeprefix(prompt)), len(ids)

    def has_special_tokens(self, text: str) -> bool:
        """Whether a text holds a special token in writing."""
        added = self.backend.added_tokens_decoder.values()
        return any(token.special and token.content in text for token in added)

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json (with the chat template), which transformers reads, too."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.backend_tokenizer.save(str(folder / TOKENIZER))
        config = {
            **self.backend.special_tokens_map,
            "chat_template": self.backend.chat_template,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.backend.model_max_length,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")

    def _render(self, messages: Sequence[Message], answer: bool) -> str:
        try:
            return str(
                self.backend.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=answer
                )
            )
        except Exception as error:  # a template may do anything that an expression of Python can
            reason = str(error) or type(error).__name__
            raise InputError(f"the chat template refuses the messages: {reason}") from None


def load_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer in a folder.

    Without tokenizer.json it is Qwen2's of vocab.json and merges.txt, whose slow form the published Dream folders
    carry as code of their own; the added tokens keep the ids that tokenizer_config.json gives them.

    Raises:
        InputError: a file is missing or damaged, added tokens have other ids than it says, or it has no
            chat template, mask token, padding or end of text.
    """
    kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    if not (folder / TOKENIZER).is_file():
        absent = [name for name in (VOCABULARY, MERGES, CONFIG) if not (folder / name).is_file()]
        if absent:
            raise InputError(
                f"{' and '.join(absent)} missing",
                where=str(folder),
                expected=f"{TOKENIZER} and {CONFIG}, or {VOCABULARY}, {MERGES} and {CONFIG}",
            )
        kind = Qwen2Tokenizer
    try:
        backend: Any = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises no narrower one
        reason = " ".join(str(error).split())
        raise InputError(f"the tokenizer can't be loaded: {reason}", where=str(folder), todo="Fetch it again") from None
    found = chat_tokenizer(backend, folder)
    _require_ids(folder, found)
    return found


def chat_tokenizer(backend: PreTrainedTokenizerFast, where: Path) -> ChatTokenizer:
    """Check transformers' tokenizer and read its special ids.

    Args:
        backend: the tokenizer.
        where: what errors name.

    Raises:
        InputError: it has no chat template, mask token, padding or end of text.
    """
    for name in ("chat_template", "mask_token", "pad_token", "eos_token"):
        if not getattr(backend, name, None):
            raise InputError("missing", where=f"{where / CONFIG}: {name}", expected="an instruct model's tokenizer")
    backend.backend_tokenizer.no_truncation()
    backend.backend_tokenizer.no_padding()
    vocabulary: dict[str, int] = backend.get_vocab()
    for token in (backend.mask_token, backend.pad_token, backend.eos_token):
        if str(token) not in vocabulary:
            raise InputError(f"{str(token)!r} has no id", where=str(where), expected="every special token's id")
    ends = {vocabulary[str(token)] for token in (backend.eos_token, backend.pad_token)}
    return ChatTokenizer(
        backend=backend,
        size=max(vocabulary.values()) + 1,
        mask_token_id=vocabulary[str(backend.mask_token)],
        pad_token_id=vocabulary[str(backend.pad_token)],
        end_token_ids=tuple(sorted(ends | {vocabulary[END_OF_TURN]} if END_OF_TURN in vocabulary else ends)),
    )


def _require_ids(folder: Path, found: ChatTokenizer) -> None:
    """Added tokens have the ids that tokenizer_config.json gives them."""
    declared = read_object(folder / CONFIG, expected="a tokenizer's config").get("added_tokens_decoder") or {}
    vocabulary = found.backend.get_vocab()
    for number, token in declared.items():
        content = token["content"]  # transformers has read it
        if str(vocabulary.get(content)) != number:
            raise InputError(
                f"{content} has become id {vocabulary.get(content)}",
                where=f"{folder / CONFIG}: added_tokens_decoder",
                expected=number,
                todo="Fetch the folder again: its files are of different versions",
            )
