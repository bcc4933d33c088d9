"""Sets of chats of the hub, or local folders in their layout, one after another. Runs no code of theirs."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import datasets

from softmask.errors import InputError, Unavailable
from stages.params.code.instructions import ChatHubParams, InstructionsParams
from stages.sources.chats import Chat, Dropped, chat_of


@dataclass(frozen=True)
class HubChats:
    """The chats of all sets. They lie in the hub's cache; one is read when it is asked for."""

    sets: Sequence[tuple[ChatHubParams, Any]]
    kept: InstructionsParams

    @classmethod
    def open(cls, params: Sequence[ChatHubParams], kept: InstructionsParams, where: str) -> "HubChats":
        """Download what the cache hasn't.

        Args:
            where: the section of params.yaml, for messages.

        Raises:
            InputError: a set can't be opened, or is empty.
        """
        return cls([(one, _open(one, f"{where}.hub.{number}")) for number, one in enumerate(params)], kept)

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.sets)

    def chat(self, number: int) -> Chat | Dropped:
        """A chat, or why it is left out.

        Raises:
            InputError: the record is no chat.
        """
        ends = list(accumulate(len(rows) for _, rows in self.sets))
        place = bisect_right(ends, number)
        params, rows = self.sets[place]
        index = number - (ends[place] - len(rows))
        source = "/".join(filter(None, (params.path, params.config, params.split)))
        name = f"{place}/{params.split}/{index}"
        return chat_of(rows[index], name, params, self.kept, f"{source}, record {index + 1}")


def _open(params: ChatHubParams, where: str) -> Any:
    try:
        rows = datasets.load_dataset(params.path, params.config, split=params.split, revision=params.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise Unavailable(
            f"{params.path} (config {params.config}, split {params.split}) can't be opened: "
            f"{' '.join(str(error).split())}",
            where=where,
            todo="Check path, config, split and revision, and that the hub can be reached; or take a local folder",
        ) from None
    if not len(rows):
        raise InputError(f"the split {params.split} has no chat", where=where)
    return rows
