"""Make a family's chats: taken from the chosen source in a random order, split into training and validation."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError
from stages.params.code.instructions import InstructionSource, InstructionSourceParams, InstructionsParams
from stages.sources.chats import Chat, Chats, Dropped, FileChats, MicroChats


class Params(StageParams):
    """Where chats come from, and what is kept of them."""

    keys: ClassVar[Mapping[str, str]] = {
        "source": "code.settings.{family}.instructions",
        "instructions": "code.instructions",
    }

    source: InstructionSourceParams
    instructions: InstructionsParams


def run(context: Context[Params]) -> None:
    """Write {train,validation}.jsonl: `{"id", "messages", "prefill"}` a line, in the order in which they were taken.

    The first chats that can be used are validation; a training chat that is one of them is left out.

    Raises:
        InputError: the source can't be read, a record is no chat, or there are too few.
    """
    params = context.params.instructions
    where = f"params.yaml: code.settings.{context.axes['family']}.instructions"
    chats = open_chats(context, where)
    counts: Counter[str] = Counter()
    usable = taken(chats, params.seed, counts)
    held = {
        _digest(chat) for chat in _written(islice(usable, params.validation_examples), context.outputs["validation"])
    }
    fresh = islice(_without(usable, held, counts), params.max_examples)
    train = sum(1 for _ in _written(fresh, context.outputs["train"]))
    if not train:
        raise InputError(
            f"{len(chats)} chats leave none for training: {dict(sorted(counts.items()))}",
            where=where,
            expected=f"more than code.instructions.validation_examples, {params.validation_examples}",
        )
    context.counts.update(
        source=len(chats),
        taken=counts.pop("taken"),
        train=train,
        validation=params.validation_examples,
        dropped=dict(sorted(counts.items())),
    )


def open_chats(context: Context[Params], where: str) -> Chats:
    """The chats of the source that params choose.

    Raises:
        InputError: it can't be read.
    """
    source, kept = context.params.source, context.params.instructions
    match source:
        case InstructionSourceParams(source=InstructionSource.MICRO, micro=micro) if micro is not None:
            return MicroChats.read(micro, context.inputs["micro"], context.inputs["arithmetic"], where)
        case InstructionSourceParams(source=InstructionSource.FILES, files=files) if files is not None:
            return FileChats.read(files, kept, where)
        case _:
            from stages.sources.hub_chats import HubChats  # seconds to import, and only these sources need it

            return HubChats.open(source.hub, kept, where)


def taken(chats: Chats, seed: int, counts: Counter[str]) -> Iterator[Chat]:
    """The chats that can be used, in a random order; `counts` counts all that were taken, and why some were dropped."""
    order = list(range(len(chats)))
    random.Random(f"{seed} instructions").shuffle(order)
    for number in tqdm(order, desc="taking chats", unit="chat", unit_scale=True):
        counts["taken"] += 1
        found = chats.chat(number)
        if isinstance(found, Dropped):
            counts[found.value] += 1
        else:
            yield found


def _without(chats: Iterator[Chat], held: set[bytes], counts: Counter[str]) -> Iterator[Chat]:
    for chat in chats:
        if _digest(chat) in held:
            counts["in_validation"] += 1
        else:
            yield chat


def _written(chats: Iterable[Chat], path: Path) -> Iterator[Chat]:
    """Write chats, one in memory, and pass them on."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for chat in chats:
            file.write(json.dumps(chat.record(), sort_keys=True, ensure_ascii=False) + "\n")
            yield chat


def _digest(chat: Chat) -> bytes:
    """16 bytes that stand for the messages."""
    return blake2b(json.dumps(chat.record()["messages"], sort_keys=True).encode(), digest_size=16).digest()


STAGE = Stage(
    name="instructions",
    params=Params,
    run=run,
    axes=("family",),
    inputs={
        "check": "data/check/valid.json",
        "micro": "data/code/micro/train.jsonl",
        "arithmetic": "data/code/micro/arithmetic_train.jsonl",
        "files": "data/chats",
    },
    outputs={
        "train": "data/code/instructions/{family}/train.jsonl",
        "validation": "data/code/instructions/{family}/validation.jsonl",
        "manifest": "data/code/instructions/{family}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
