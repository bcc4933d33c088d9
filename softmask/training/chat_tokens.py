"""Chats as token ids on disk, of different lengths, each with how much of it is the prompt. Knows no tokenizer.

A folder holds `chats.safetensors`: ids int32 [tokens], offsets int64 [chats + 1] (where each chat begins, and the
end), prompt_lengths int64 [chats]; and `info.json`: the counts and the vocabulary's special ids.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from softmask.errors import InputError

Int64Array = npt.NDArray[np.int64]
CHATS, INFO = "chats.safetensors", "info.json"


class ChatVocabulary(BaseModel):
    """What training has to know of the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    vocab_size: int = Field(ge=1)
    """Ids in all; a model's vocabulary may be larger."""
    mask_token_id: int = Field(ge=0)
    """Never occurs in a chat."""
    pad_token_id: int = Field(ge=0)
    """Fills up behind a response; it ends a response, too."""
    end_token_ids: tuple[int, ...] = Field(min_length=1)
    """Tokens that end a response."""


class ChatInfo(ChatVocabulary):
    """Content of info.json."""

    chats: int = Field(ge=1)
    tokens: int = Field(ge=1)


class ChatTokens:
    """The chats of a folder. Opening reads no chat; one is read when it is asked for."""

    def __init__(self, folder: Path, info: ChatInfo, ids: Any, offsets: Int64Array, prompt_lengths: Int64Array) -> None:
        """Use `ChatTokens.open`."""
        self.info, self.offsets, self.prompt_lengths = info, offsets, prompt_lengths
        self._folder, self._ids = folder, ids

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the folder itself: a mapped file can't be sent."""
        return ChatTokens.open, (self._folder,)

    @classmethod
    def open(cls, folder: Path) -> "ChatTokens":
        """Open a folder.

        Raises:
            InputError: a file is missing or damaged, or the two don't fit together.
        """
        info, path = _read_info(folder / INFO), folder / CHATS
        if not path.is_file():
            raise InputError("the file is missing", where=str(path))
        try:
            file: Any = safe_open(str(path), framework="numpy")
            offsets, prompt_lengths = file.get_tensor("offsets"), file.get_tensor("prompt_lengths")
            ids = file.get_slice("ids")
        except (SafetensorError, OSError) as error:
            raise InputError(f"damaged ({error})", where=str(path)) from None
        dtypes = (ids.get_dtype(), offsets.dtype, prompt_lengths.dtype)
        shapes = (tuple(ids.get_shape()), offsets.shape, prompt_lengths.shape)
        fits = dtypes == ("I32", np.int64, np.int64)
        fits = fits and shapes == ((info.tokens,), (info.chats + 1,), (info.chats,))
        if not (fits and _consistent(info, offsets, prompt_lengths)):
            raise InputError(f"it doesn't fit its {INFO}", where=str(path))
        return cls(folder, info, ids, offsets, prompt_lengths)

    @staticmethod
    def write(folder: Path, chats: Iterable[tuple[Sequence[int], int]], vocabulary: ChatVocabulary) -> ChatInfo:
        """Write chats, each its ids and its prompt's length, into an existing folder.

        Raises:
            ValueError: there is no chat, or one that can't be trained on: no prompt, no response, an id that the
                vocabulary hasn't, or the mask token.
        """
        ids, offsets, prompt_lengths = array("i"), array("q", [0]), array("q")
        for number, (chat, prompt_length) in enumerate(chats):
            if not 0 < prompt_length < len(chat):
                raise ValueError(f"chat {number} has {len(chat)} tokens, {prompt_length} of them prompt")
            if not 0 <= min(chat) <= max(chat) < vocabulary.vocab_size or vocabulary.mask_token_id in chat:
                raise ValueError(f"chat {number} has ids that no chat may have")
            ids.extend(chat)
            offsets.append(len(ids))
            prompt_lengths.append(prompt_length)
        if not prompt_lengths:
            raise ValueError("there is no chat")
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids": np.asarray(ids, dtype=np.int32),
            "offsets": np.asarray(offsets, dtype=np.int64),
            "prompt_lengths": np.asarray(prompt_lengths, dtype=np.int64),
        }
        save_file(arrays, folder / CHATS)
        info = ChatInfo(**vocabulary.model_dump(), chats=len(prompt_lengths), tokens=len(ids))
        text = json.dumps(info.model_dump(), indent=2, sort_keys=True) + "\n"
        (folder / INFO).write_text(text, encoding="utf-8")
        return info

    def __len__(self) -> int:
        """Number of chats."""
        return self.info.chats

    def sizes(self) -> tuple[Int64Array, Int64Array]:
        """Tokens of each chat, and of each prompt, int64 [chats]; no ids are read."""
        return np.diff(self.offsets), self.prompt_lengths

    def item(self, number: int) -> tuple[Int64Array, int]:
        """A chat's ids, int64 [L], and how many of them are the prompt.

        Raises:
            IndexError: there is no such chat.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"chat {number} of {len(self)}")
        start, end = int(self.offsets[number]), int(self.offsets[number + 1])
        return self._ids[start:end].astype(np.int64), int(self.prompt_lengths[number])

    @property
    def vocab_size(self) -> int:
        """Ids in all; a model's vocabulary may be larger."""
        return self.info.vocab_size

    @property
    def mask_token_id(self) -> int:
        """The mask token, which no chat has."""
        return self.info.mask_token_id

    @property
    def pad_token_id(self) -> int:
        """Fills up behind a response."""
        return self.info.pad_token_id

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        return self.info.end_token_ids


def _consistent(info: ChatInfo, offsets: Int64Array, prompt_lengths: Int64Array) -> bool:
    lengths = np.diff(offsets)
    inside = bool(np.all((prompt_lengths > 0) & (prompt_lengths < lengths)))
    return inside and int(offsets[0]) == 0 and int(offsets[-1]) == info.tokens


def _read_info(path: Path) -> ChatInfo:
    try:
        return ChatInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path)) from None
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"damaged ({place}: {first['msg']})", where=str(path)) from None
