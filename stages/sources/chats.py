"""Chats of a source, found by number, and whether each can be trained on. Knows no order, no split and no token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from scoring.problems import Problem, read_problems
from scoring.prompts import fill_template
from softmask.errors import InputError
from stages.params.code.instructions import (
    ChatFieldsParams,
    ChatFilesParams,
    ChatTemplateParams,
    InstructionsParams,
    MicroChatsParams,
    Role,
)
from stages.sources.local import matching
from stages.sources.records import file_records

_TOOL_FIELDS = ("tools", "tool_calls", "function_call", "functions")
"""Where records of the usual layouts keep tools, beside a message's text or beside the messages."""
_TOOL_ROLES = ("tool", "function", "ipython")
"""What they call a tool that answers."""


class Dropped(StrEnum):
    """Why a chat is left out."""

    TOOL_CALLS = "tool_calls"
    NO_ANSWER = "no_answer"
    """It doesn't end with an assistant's text, or nobody asked."""


@dataclass(frozen=True)
class Chat:
    """A chat that ends with the assistant's answer.

    Args:
        id: leads back to where it came from.
        messages: each with `role` and `content`.
        prefill: how the answer begins that is given to the model.
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    prefill: str = ""

    def record(self) -> dict[str, Any]:
        """What is written."""
        return {"id": self.id, "messages": [dict(message) for message in self.messages], "prefill": self.prefill}


class Chats(Protocol):
    """The chats of a source."""

    def __len__(self) -> int: ...

    def chat(self, number: int) -> Chat | Dropped:
        """A chat, or why it is left out."""
        ...


@dataclass(frozen=True)
class MicroChats:
    """The chats that are made of problems: a request, and the solution that is taught."""

    chats: Sequence[Chat]

    @classmethod
    def read(cls, params: MicroChatsParams, micro: Path, arithmetic: Path, where: str) -> "MicroChats":
        """All micro problems, and the first arithmetic ones.

        Args:
            where: the section of params.yaml, for messages.

        Raises:
            InputError: a file is missing or damaged, or has too few problems.
        """
        exercises = read_problems(arithmetic) if params.arithmetic.count else []
        if len(exercises) < params.arithmetic.count:
            raise InputError(
                f"{params.arithmetic.count} is more than the {len(exercises)} training problems",
                where=f"{where}.micro.arithmetic.count",
                expected="at most code.arithmetic.train",
            )
        chats = [_asked(problem, params) for problem in read_problems(micro)]
        chats += [_asked(problem, params.arithmetic) for problem in exercises[: params.arithmetic.count]]
        return cls(chats)

    def __len__(self) -> int:
        return len(self.chats)

    def chat(self, number: int) -> Chat:
        """A chat; all of them can be trained on."""
        return self.chats[number]


def _asked(problem: Problem, template: ChatTemplateParams) -> Chat:
    texts = problem.texts()
    asked, prefill = (fill_template(text, texts) for text in (template.instruction, template.prefill))
    given = texts["signature"] if prefill.endswith(texts["signature"]) else ""  # not to be written a second time
    answer = prefill + problem.canonical_solution.removeprefix(given)
    return Chat(
        problem.task_id,
        ({"role": Role.USER, "content": asked}, {"role": Role.ASSISTANT, "content": answer}),
        prefill,
    )


@dataclass(frozen=True)
class FileChats:
    """The user's own chats. One without an answer is a mistake, not something to leave out."""

    records: Sequence[tuple[str, Mapping[str, Any]]]
    params: ChatFilesParams
    kept: InstructionsParams

    @classmethod
    def read(cls, params: ChatFilesParams, kept: InstructionsParams, where: str) -> "FileChats":
        """All records of all files, the files sorted by name.

        Args:
            where: the section of params.yaml, for messages.

        Raises:
            InputError: no file matches, or one can't be read; a record is no object.
        """
        records = []
        globs = [(pattern, f"{where}.files.paths.{number}") for number, pattern in enumerate(params.paths)]
        for path in sorted({path for one in globs for path in matching(*one, "data/chats/*.jsonl")}):
            found = list(file_records(path, f"{where}.files.paths"))
            if not found:
                raise InputError("the file has no chat", where=str(path), todo="Take it out, or put chats in")
            records += found
        return cls(records, params, kept)

    def __len__(self) -> int:
        return len(self.records)

    def chat(self, number: int) -> Chat | Dropped:
        """A chat, or that it has tool calls.

        Raises:
            InputError: the record is no chat, or has no answer.
        """
        where, record = self.records[number]
        found = chat_of(record, f"files#{number + 1}", self.params, self.kept, where)
        if found is Dropped.NO_ANSWER:
            raise InputError(
                "no answer",
                where=where,
                expected="a user's message, and an assistant's with text as the last one",
                todo="Mend it, or take it out",
            )
        return found


def chat_of(record: Any, name: str, fields: ChatFieldsParams, kept: InstructionsParams, where: str) -> Chat | Dropped:
    """A record's chat, or why it is left out.

    Args:
        record: what the source has.
        name: the chat's id.
        fields: where the record keeps its messages.
        kept: which chats are left out.
        where: the record stands, for messages.

    Raises:
        InputError: the record is no chat.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"holds {type(record).__name__}", where=where, expected="an object")
    messages = record.get(fields.messages)
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise InputError(
            f"the field {fields.messages!r} has no list of messages",
            where=where,
            expected=f"a list; its fields are {sorted(map(str, record))}",
        )
    if kept.drop_tool_calls and _has_tools(record, messages, kept.tool_call_markers):
        return Dropped.TOOL_CALLS
    plain = [_message(message, fields, where, place) for place, message in enumerate(messages, start=1)]
    roles = [message["role"] for message in plain]
    if Role.USER not in roles or roles[-1] != Role.ASSISTANT or not plain[-1]["content"].strip():
        return Dropped.NO_ANSWER
    return Chat(name, tuple(plain))


def _message(message: Any, fields: ChatFieldsParams, where: str, place: int) -> dict[str, str]:
    at = f"{where}, message {place}"
    if not isinstance(message, Mapping):
        raise InputError(f"holds {type(message).__name__}", where=at, expected="an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in fields.roles:
        raise InputError(
            f"the role {role!r} is unknown",
            where=at,
            expected=f"one of {', '.join(fields.roles)}",
            todo="Add it to the section's roles if it is one of ours",
        )
    if not isinstance(content, str):
        raise InputError(f"the content is {type(content).__name__}", where=at, expected="text")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"not valid Unicode: {error.reason} (character {error.start})", where=at) from None
    return {"role": fields.roles[role].value, "content": content}


def _has_tools(record: Mapping[str, Any], messages: Sequence[Any], markers: Sequence[str]) -> bool:
    holders = [record, *(message for message in messages if isinstance(message, Mapping))]
    if any(holder.get(name) for holder in holders for name in _TOOL_FIELDS):
        return True
    if any(holder.get("role") in _TOOL_ROLES for holder in holders):
        return True
    texts = (holder.get("content") for holder in holders)
    return any(marker in text for text in texts if isinstance(text, str) for marker in markers)
