"""Make the tokenizer: trained on the training documents, or a pinned one of the hub; the mask token is the last id."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from artifacts.files import fresh_folder, write_json, write_text
from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError, Unavailable
from softmask.tokens import Vocabulary
from stages.params.tokenizer import (
    HubTokenizerParams,
    TokenizerKind,
    TokenizerParams,
    TokenizerSource,
    TrainTokenizerParams,
)
from stages.sources.documents import read_documents

END_OF_TEXT = "<|endoftext|>"
MASK = "[MASK]"
UNKNOWN = "\ufffd"
"""Unicode's own sign for an unknown character: decoded text shows where something was lost, at one character each."""


class Params(StageParams):
    """What the tokenizer is made from."""

    tokenizer: TokenizerParams


def run(context: Context[Params]) -> None:
    """Make tokenizer.json and vocabulary.json.

    Raises:
        InputError: the corpus is too small for the vocabulary asked for, or the hub's tokenizer isn't usable.
    """
    params = context.params.tokenizer
    if params.source is TokenizerSource.HUB:
        tokenizer, eos_token, unknown = load_hub(params.hub), params.hub.eos_token, None
    else:
        texts = _texts(context.inputs["train"])
        trained = {TokenizerKind.CHARACTERS: train_characters, TokenizerKind.BPE: train_bpe}
        tokenizer, eos_token = trained[params.train.kind](texts, params.train), END_OF_TEXT
        unknown = UNKNOWN if params.train.kind is TokenizerKind.CHARACTERS else None
    vocabulary = add_mask(tokenizer, eos_token, unknown)
    folder = fresh_folder(context.outputs["tokenizer"])
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_json(folder / "vocabulary.json", vocabulary.to_dict())
    context.counts.update(vocabulary.to_dict())


def train_characters(texts: Iterator[str], params: TrainTokenizerParams) -> Tokenizer:
    """One id a character, in the order of code points; characters rarer than `min_count` are the unknown token.

    Known text comes back from encode and decode as it was.

    Raises:
        InputError: no character is that frequent.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    known = sorted(character for character, n in counts.items() if n >= params.min_count and character != UNKNOWN)
    if not known:
        raise InputError(
            f"no character occurs {params.min_count} times",
            where="params.yaml: tokenizer.train.min_count",
            expected=f"at most {max(counts.values(), default=0)}",
        )
    vocabulary = {character: number for number, character in enumerate([*known, UNKNOWN])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([_special(END_OF_TEXT)])
    return tokenizer


def train_bpe(texts: Iterator[str], params: TrainTokenizerParams) -> Tokenizer:
    """Byte-level BPE: it knows every text, and every text comes back as it was.

    Raises:
        InputError: the text has too few pairs for this vocabulary.
    """
    assert params.vocab_size is not None, "the params model asks for it"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=params.vocab_size,
        min_frequency=params.min_count,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[_special(END_OF_TEXT)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != params.vocab_size:
        raise InputError(
            f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {params.vocab_size}",
            where="params.yaml: tokenizer.train.vocab_size",
            expected=f"at most {tokenizer.get_vocab_size()}, more text, or a smaller min_count",
        )
    return tokenizer


def load_hub(params: HubTokenizerParams) -> Tokenizer:
    """The tokenizer.json of a hub repository at its revision, or of a local folder.

    Raises:
        InputError: it can't be reached, isn't there, or isn't a tokenizer.
    """
    where = "params.yaml: tokenizer.hub"
    folder = Path(params.path)
    if folder.is_dir():
        path = folder / "tokenizer.json"
    else:
        from huggingface_hub import hf_hub_download  # only this source needs it

        try:
            path = Path(hf_hub_download(params.path, "tokenizer.json", revision=params.revision))
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"tokenizer.json of {params.path} can't be fetched: {' '.join(str(error).split())}",
                where=where,
                todo="Check path and revision, and that the hub can be reached",
            ) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"not a tokenizer ({error})", where=str(path), expected="a tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def add_mask(tokenizer: Tokenizer, eos_token: str, unknown_token: str | None) -> Vocabulary:
    """Give a tokenizer the mask token as its extra last id (as the MDLM checkpoint has it), and read its special ids.

    Raises:
        InputError: it has a mask token already, no such end-of-text, or ids with gaps.
    """
    where = "params.yaml: tokenizer"
    if tokenizer.token_to_id(MASK) is not None:
        raise InputError(f"it has {MASK} as id {tokenizer.token_to_id(MASK)}", where=where, expected="one without it")
    eos = tokenizer.token_to_id(eos_token)
    if eos is None:
        raise InputError(f"it has no token {eos_token!r}", where=f"{where}.hub.eos_token", expected="its end-of-text")
    tokenizer.add_special_tokens([_special(MASK)])
    size = tokenizer.get_vocab_size()
    mask = tokenizer.token_to_id(MASK)
    if mask != size - 1:
        raise InputError(f"{MASK} has become id {mask} of {size}", where=where, expected="ids without gaps")
    unknown = None if unknown_token is None else tokenizer.token_to_id(unknown_token)
    return Vocabulary(size=size, mask_token_id=mask, eos_token_id=eos, unknown_token_id=unknown)


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def _texts(folder: Path) -> Iterator[str]:
    documents = read_documents(folder)
    first = next(documents, None)
    if first is None:
        raise InputError("no document", where=str(folder))
    for document in tqdm(chain([first], documents), desc="training the tokenizer", unit="doc", unit_scale=True):
        yield document.text


STAGE = Stage(
    name="tokenizer",
    params=Params,
    run=run,
    inputs={"check": "data/check/valid.json", "train": "data/corpus/train"},
    outputs={"tokenizer": "data/tokenizer/tokenizer", "manifest": "data/tokenizer/manifest.json"},
)

if __name__ == "__main__":
    STAGE.main()
