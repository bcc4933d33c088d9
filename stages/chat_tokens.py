"""Turn a family's chats into token ids, without those that can't be trained on."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from artifacts.files import fresh_folder, read_lines
from runner.stage import Context, Stage, StageParams
from softmask.backbones.chat_tokenizer import ChatTokenizer, load_chat_tokenizer
from softmask.errors import InputError
from softmask.training.chat_tokens import ChatTokens, ChatVocabulary
from stages.params.code.instructions import InstructionsParams

SPLITS = ("train", "validation")
Encoded = tuple[list[int], int]
"""A chat's ids, and how many of them are the prompt."""


class Params(StageParams):
    """Which chats are kept."""

    keys: ClassVar[Mapping[str, str]] = {"instructions": "code.instructions"}

    instructions: InstructionsParams


def run(context: Context[Params]) -> None:
    """Encode both splits.

    Raises:
        InputError: the tokenizer can't be used, a chat isn't one, or none of a split is kept.
    """
    params = context.params.instructions
    tokenizer = load_chat_tokenizer(context.inputs["tokenizer"])
    vocabulary = ChatVocabulary(
        vocab_size=tokenizer.size,
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        end_token_ids=tokenizer.end_token_ids,
    )
    for split in SPLITS:
        dropped: Counter[str] = Counter()
        chats = list(kept_chats(context.inputs[split], tokenizer, params, dropped))
        if not chats:
            raise InputError(
                f"no chat is left: {dict(sorted(dropped.items()))}",
                where=str(context.inputs[split]),
                expected="chats within code.instructions.max_length and min_response_tokens",
            )
        info = ChatTokens.write(fresh_folder(context.outputs[split]), chats, vocabulary)
        prompts = sum(prompt_length for _, prompt_length in chats)
        context.counts[split] = {
            "chats": info.chats,
            "tokens": info.tokens,
            "response_tokens": info.tokens - prompts,
            "longest": max(len(ids) for ids, _ in chats),
            "dropped": dict(sorted(dropped.items())),
        }


def kept_chats(
    file: Path, tokenizer: ChatTokenizer, params: InstructionsParams, dropped: Counter[str]
) -> Iterator[Encoded]:
    """The chats of a file that can be trained on; `dropped` counts the others by the reason.

    Raises:
        InputError: the file is missing or damaged, or has something that is no chat.
    """
    for number, chat in enumerate(
        tqdm(read_lines(file, ("id", "messages")), desc=f"encoding {file.stem}", unit="chat")
    ):
        # In writing they would be read as what they stand for, and end a turn or hide a word.
        if any(tokenizer.has_special_tokens(message["content"]) for message in chat["messages"]):
            dropped["special_tokens"] += 1
            continue
        ids, prompt_length = encode_chat(tokenizer, chat, f"{file}, line {number + 1}")
        if len(ids) > params.max_length:
            dropped["too_long"] += 1
        elif len(ids) - prompt_length < params.min_response_tokens:
            dropped["short_response"] += 1
        else:
            yield ids, prompt_length


def encode_chat(tokenizer: ChatTokenizer, chat: Mapping[str, Any], where: str) -> Encoded:
    """A chat's ids and its prompt's length: all before the last message is the prompt, and that message's prefill.

    The response ends with the token that ends a turn. What a template puts behind it (ChatML: a line break) is left
    out, since an answer is over there; a template without such a token gets the padding.

    Raises:
        InputError: the template refuses it, or its answer doesn't begin with its prefill.
    """
    *before, last = chat["messages"]
    prefill = chat.get("prefill", "")
    if not last["content"].startswith(prefill):
        raise InputError("the answer doesn't begin with its prefill", where=where, todo="Run stage instructions again")
    answer = {**last, "content": last["content"].removeprefix(prefill)}
    try:
        ids, prompt_length = tokenizer.chat_ids([*before, answer])
    except InputError as error:
        raise InputError(error.what, where=where) from None
    prompt, response = ids[:prompt_length] + tokenizer.encode(prefill), ids[prompt_length:]
    ends = [place for place, number in enumerate(response) if number in tokenizer.end_token_ids]
    response = response[: ends[-1] + 1] if ends else [*response, tokenizer.pad_token_id]
    return prompt + response, len(prompt)


STAGE = Stage(
    name="chat_tokens",
    params=Params,
    run=run,
    axes=("family",),
    inputs={
        "check": "data/check/valid.json",
        "tokenizer": "models/dream/{family}/tokenizer",
        "train": "data/code/instructions/{family}/train.jsonl",
        "validation": "data/code/instructions/{family}/validation.jsonl",
    },
    outputs={
        "train": "data/code/tokens/{family}/train",
        "validation": "data/code/tokens/{family}/validation",
        "manifest": "data/code/tokens/{family}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
