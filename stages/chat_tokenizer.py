"""Make a family's chat tokenizer: byte-level BPE trained on its instructions, or a published one, in one layout."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from artifacts.files import fresh_folder, read_lines
from runner.stage import Context, Stage, StageParams
from softmask.backbones.chat_tokenizer import END_OF_TURN, FILES, ChatTokenizer, chat_tokenizer, load_chat_tokenizer
from softmask.errors import InputError
from stages.params.code.published import Source
from stages.params.code.tokenizer import ChatTokenizerParams, TrainChatTokenizerParams
from stages.sources.published import published_folder

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
MASK = "<|mask|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as Dream's own template has it, without its default system turn."""


class Params(StageParams):
    """What the tokenizer is made from."""

    keys: ClassVar[Mapping[str, str]] = {"tokenizer": "code.settings.{family}.tokenizer"}

    tokenizer: ChatTokenizerParams


def run(context: Context[Params]) -> None:
    """Make tokenizer.json and tokenizer_config.json.

    Raises:
        InputError: the chats are too few for the vocabulary asked for, or the published tokenizer isn't usable.
    """
    params = context.params.tokenizer
    where = f"params.yaml: code.settings.{context.axes['family']}.tokenizer"
    if params.source is Source.TRAIN:
        tokenizer = train_chat_tokenizer(_texts(context.inputs["instructions"]), params.train, where)
    else:
        tokenizer = load_chat_tokenizer(published_folder(params.published, params.source, FILES, where))
    tokenizer.save(fresh_folder(context.outputs["tokenizer"]))
    context.counts.update(
        size=tokenizer.size,
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        end_token_ids=list(tokenizer.end_token_ids),
    )


def train_chat_tokenizer(texts: Iterator[str], params: TrainChatTokenizerParams, where: str) -> ChatTokenizer:
    """Byte-level BPE, normalised and split as Qwen2's: digits are single tokens, and any text has ids.

    Args:
        where: the section of params.yaml, for errors.

    Raises:
        InputError: the text has too few pairs for this vocabulary.
    """
    special = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, MASK]
    qwen = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = (
        qwen.normalizer,
        qwen.pre_tokenizer,
        qwen.decoder,
    )
    trainer = trainers.BpeTrainer(
        vocab_size=params.vocab_size - len(special),
        min_frequency=params.min_count,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if tokenizer.get_vocab_size() != params.vocab_size:
        raise InputError(
            f"the instructions give {tokenizer.get_vocab_size()} tokens, not {params.vocab_size}",
            where=f"{where}.train.vocab_size",
            expected=f"at most {tokenizer.get_vocab_size()}, more text, or a smaller min_count",
        )
    backend = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        mask_token=MASK,
        chat_template=CHATML,
    )
    return chat_tokenizer(backend, Path(where))


def _texts(file: Path) -> Iterator[str]:
    """Each message with its role, as a turn has them between its special tokens."""
    chats = read_lines(file, ("messages",))
    if not chats:
        raise InputError("no chat", where=str(file))
    for chat in tqdm(chats, desc="training the chat tokenizer", unit="chat"):
        for message in chat["messages"]:
            yield f"{message['role']}\n{message['content']}"


STAGE = Stage(
    name="chat_tokenizer",
    params=Params,
    run=run,
    axes=("family",),
    inputs={
        "check": "data/check/valid.json",
        "instructions": "data/code/instructions/{family}/train.jsonl",
        "imports": "models/import",
    },
    outputs={
        "tokenizer": "models/dream/{family}/tokenizer",
        "manifest": "models/dream/{family}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
