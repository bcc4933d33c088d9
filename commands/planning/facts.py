"""What is known of the data before a run: counted where stages have made them with these parameters, else estimated.

Reads manifests and problem sets, and for local sources of text their sizes; writes nothing. Estimates are said to be
that (`known`), and what they rest on stands beside each constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from artifacts.manifest import Manifest
from runner.section import lookup
from runner.stage import Stage
from scoring.problems import read_problems
from softmask.backbones.chat_tokenizer import load_chat_tokenizer
from softmask.tokens import Vocabulary
from softmask.training.answers import Chats
from softmask.training.chat_tokens import ChatTokens
from stages import arithmetic, chat_tokenizer, chat_tokens, corpus, instructions, micro, problems, tokenizer, tokens
from stages.code_generate import prompt_of
from stages.params.code.instructions import InstructionSource
from stages.params.code.math_problems import MathSource
from stages.params.code.problem_sets import EvalPlusDataset, MicroSplit, ProblemSetParams, ProblemSource
from stages.params.corpus import CorpusParams, CorpusSource
from stages.params.root import RootParams
from stages.params.tokenizer import TokenizerKind, TokenizerParams, TokenizerSource
from stages.sources.files import matching_files
from stages.sources.package import package_documents

PUBLIC_VOCABULARIES = {"openai-community/gpt2": 50257}
CHARACTERS_SEEN = 100
"""Ids of a character tokenizer: Python sources have 98 characters (method.md, section 9)."""
TOKENS_A_DOCUMENT = 1128
"""OpenWebText with GPT-2's tokenizer: 9,040,017,095 tokens in 8,013,769 documents (karpathy/nanoGPT)."""
CHARACTERS_A_TOKEN = 4.4
"""English with a byte-level BPE of some 50,000 ids: OpenWebText has about 40 GB of text."""
CHARACTERS_A_DOCUMENT = round(TOKENS_A_DOCUMENT * CHARACTERS_A_TOKEN)
CHARACTERS_A_SMALL_TOKEN = 3.0
"""The same with a small vocabulary that is trained here."""
HUB_DOCUMENTS = 1_000_000
"""Where `corpus.hub.documents` is null."""
SMALL_CHAT, LONG_CHAT = (85, 65), (700, 250)
"""Tokens of a chat and of its prompt: of micro problems as the smoke profile has them; of public chats of at most 2,048
tokens an assumption."""
CHATS = 300_000
"""Where nothing bounds the chats of the hub or of files."""
EVALPLUS_PROBLEMS = {EvalPlusDataset.HUMANEVAL: 164, EvalPlusDataset.MBPP: 378}
HUB_PROBLEMS = {"openai/gsm8k": 1319, "HuggingFaceH4/MATH-500": 500}
PROBLEMS = 500
"""Of a file or of a hub set that isn't listed above."""
SMALL_PROMPT, LONG_PROMPT = 50, 300
"""Tokens of a prompt with the chat template and the answer's beginning; assumptions."""


@dataclass(frozen=True)
class Text:
    """The text of the language study.

    Args:
        vocabulary: of its tokenizer.
        characters, documents: of both splits.
        rows: split -> packed rows.
        vocabulary_known, known: counted, not estimated: the vocabulary; the rest.
    """

    vocabulary: Vocabulary
    characters: int
    documents: int
    rows: Mapping[str, int]
    vocabulary_known: bool
    known: bool


class TypicalChats:
    """Chats of one length, for what only asks for sizes."""

    def __init__(self, chats: int, tokens: int, prompt: int) -> None:
        self._chats, self._tokens, self._prompt = chats, tokens, prompt

    def __len__(self) -> int:
        return self._chats

    def item(self, index: int) -> tuple[NDArray[np.int64], int]:
        """Zeros of that length, and the prompt's."""
        return np.zeros(self._tokens, dtype=np.int64), self._prompt

    def sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """One chat stands for all."""
        return np.array([self._tokens]), np.array([self._prompt])


class Facts:
    """What is known of the data of one set of parameters, from the artifacts in the current folder."""

    def __init__(self, params: RootParams) -> None:
        self.params = params
        self._values = params.model_dump(mode="json")
        self._chats: dict[tuple[str, str], tuple[Chats, bool]] = {}
        self._prompts: dict[tuple[str, str], tuple[list[int], bool]] = {}

    def made(self, stage: Stage[Any], axes: Mapping[str, str]) -> dict[str, Any] | None:
        """The counts in a stage's manifest if it has run with these parameters, else None."""
        path = Path(stage.outputs["manifest"].format(**axes))
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        planned = {key: lookup(self._values, key, "") for key in stage.params.tracked(axes).values()}
        return manifest.counts if manifest.params == planned else None

    @cached_property
    def text(self) -> Text:
        """The text, its vocabulary and its rows."""
        texts = self.made(corpus.STAGE, {})
        ids = self.made(tokenizer.STAGE, {}) if texts else None
        packed = self.made(tokens.STAGE, {}) if ids else None
        size, sure = vocabulary_size(self.params.tokenizer)
        vocabulary = Vocabulary(**ids) if ids else Vocabulary(size, size - 1, 0, None)
        if texts and packed:
            both = [texts["train"], texts["validation"]]
            characters, documents = (sum(split[name] for split in both) for name in ("characters", "documents"))
            rows = {split: int(packed[split]["rows"]) for split in tokens.SPLITS}
            return Text(vocabulary, characters, documents, rows, True, True)
        per_split = _estimated_characters(self.params.corpus)
        length = self.params.tokens.length * characters_a_token(self.params.tokenizer)
        rows = {split: max(2, int(count / length)) for split, count in per_split.items()}
        characters = sum(per_split.values())
        return Text(vocabulary, characters, max(2, characters // CHARACTERS_A_DOCUMENT), rows, bool(ids) or sure, False)

    def chats(self, family: str, split: str = "train") -> tuple[Chats, bool]:
        """A family's chats, and whether they have been made with these parameters."""
        if (family, split) not in self._chats:
            made = self._chat_tokenizer(family) and self.made(chat_tokens.STAGE, {"family": family}) is not None
            path = Path(chat_tokens.STAGE.outputs[split].format(family=family))
            found = ChatTokens.open(path) if made else self._typical_chats(family, split)
            self._chats[family, split] = found, made
        return self._chats[family, split]

    def _chat_tokenizer(self, family: str) -> bool:
        axes = {"family": family}
        sources: list[tuple[Stage[Any], dict[str, str]]]
        sources = [(micro.STAGE, {}), (arithmetic.STAGE, {}), (instructions.STAGE, axes), (chat_tokenizer.STAGE, axes)]
        return all(self.made(stage, ours) is not None for stage, ours in sources)

    def _typical_chats(self, family: str, split: str) -> TypicalChats:
        code = self.params.code
        source, held = code.settings[family].instructions, code.instructions.validation_examples
        if source.source is InstructionSource.MICRO and source.micro is not None:
            count, sizes = code.micro.train + source.micro.arithmetic.count - held, SMALL_CHAT
        else:
            count, sizes = code.instructions.max_examples or CHATS, LONG_CHAT
        return TypicalChats(max(1, count) if split == "train" else held, *sizes)

    def prompts(self, family: str, name: str) -> tuple[list[int], bool]:
        """Tokens of each prompt of a problem set, and whether they have been counted."""
        key = family, name
        if key not in self._prompts:
            made = self._chat_tokenizer(family) and self.made(problems.STAGE, {}) is not None
            self._prompts[key] = (self._counted(family, name), True) if made else (self._estimated(name), False)
        return self._prompts[key]

    def _counted(self, family: str, name: str) -> list[int]:
        chat = load_chat_tokenizer(Path(chat_tokenizer.STAGE.outputs["tokenizer"].format(family=family)))
        task = self.params.code.generation.tasks[name]
        file = Path(problems.STAGE.outputs["problems"]) / f"{name}.jsonl"
        return [len(prompt_of(chat, task, problem)) for problem in read_problems(file)]

    def _estimated(self, name: str) -> list[int]:
        settings = self.params.code.problem_sets.settings[name]
        small = settings.source is ProblemSource.MICRO
        if settings.maths is not None:
            small = small or settings.maths.source is MathSource.ARITHMETIC
        return [SMALL_PROMPT if small else LONG_PROMPT] * self._problems(settings)

    def _problems(self, settings: ProblemSetParams) -> int:
        code = self.params.code
        if settings.count is not None:
            return settings.count
        if settings.micro is not None and settings.source is ProblemSource.MICRO:
            return code.micro.iid if settings.micro.split is MicroSplit.IID else code.micro.new
        if settings.evalplus is not None and settings.source is ProblemSource.EVALPLUS:
            return EVALPLUS_PROBLEMS[settings.evalplus.dataset]
        if settings.source is ProblemSource.WHEEL:
            return EVALPLUS_PROBLEMS[EvalPlusDataset.HUMANEVAL]
        if settings.mbpp is not None and settings.source is ProblemSource.MBPP:
            return settings.mbpp.last - settings.mbpp.first + 1
        if settings.maths is not None and settings.maths.source is MathSource.ARITHMETIC:
            return code.arithmetic.test
        hub = None if settings.maths is None else settings.maths.hub
        return PROBLEMS if hub is None else HUB_PROBLEMS.get(hub.path, PROBLEMS)


def vocabulary_size(params: TokenizerParams) -> tuple[int, bool]:
    """Ids with the mask token, and whether that is known before the tokenizer has been made."""
    if params.source is TokenizerSource.HUB:
        folder = Path(params.hub.path)
        if folder.is_dir():
            return tokenizer.load_hub(params.hub).get_vocab_size() + 1, True
        public = PUBLIC_VOCABULARIES.get(params.hub.path)
        return (public or next(iter(PUBLIC_VOCABULARIES.values()))) + 1, public is not None
    if params.train.kind is TokenizerKind.BPE and params.train.vocab_size is not None:
        return params.train.vocab_size + 1, True
    return CHARACTERS_SEEN, False


def characters_a_token(params: TokenizerParams) -> float:
    """Characters that a token stands for, about."""
    if params.source is TokenizerSource.HUB:
        return CHARACTERS_A_TOKEN
    return 1.0 if params.train.kind is TokenizerKind.CHARACTERS else CHARACTERS_A_SMALL_TOKEN


def _estimated_characters(params: CorpusParams) -> dict[str, int]:
    """Split -> characters, about: duplicates are left in."""
    if params.source is CorpusSource.HUB:
        documents = params.hub.documents or HUB_DOCUMENTS
        held = min(params.hub.validation_documents, documents - 1)
        return {"train": (documents - held) * CHARACTERS_A_DOCUMENT, "validation": held * CHARACTERS_A_DOCUMENT}
    if params.source is CorpusSource.PACKAGE_SOURCES:
        total = sum(len(document.text) for document in package_documents(params.package_sources))
    else:
        total = sum(path.stat().st_size for path in matching_files(params.files).values())
    held = round(total * params.validation.fraction)
    return {"train": total - held, "validation": held}
