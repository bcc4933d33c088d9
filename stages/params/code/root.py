"""`code`: the whole of the code study, and the combinations that are impossible across its sections."""

import re
from collections.abc import Iterator

from pydantic import Field

from reporting.params.code_compare import CodeCompareParams
from runner.section import Section, Seed
from runner.wording import NAME, PATTERNS
from softmask.backbones.passes import BACKWARD_FROZEN
from stages.params.arms import budget_problems, guess_problems
from stages.params.code.arithmetic import ArithmeticParams
from stages.params.code.base import DreamBaseParams
from stages.params.code.finetuning import CodeArmsParams, FinetuningParams
from stages.params.code.generation import GenerationParams, TaskParams
from stages.params.code.instructions import (
    ChatTemplateParams,
    InstructionSource,
    InstructionSourceParams,
    InstructionsParams,
)
from stages.params.code.micro import MicroParams
from stages.params.code.nearest import NearestParams
from stages.params.code.problem_sets import ProblemSource, ProblemsParams
from stages.params.code.published import Source
from stages.params.code.scoring import ScoringParams
from stages.params.code.speed import SpeedParams
from stages.params.code.tokenizer import ChatTokenizerParams

RESERVED = ("nearest",)
"""No family's name: its samples lie beside the families'."""


class FamilyParams(Section):
    """One Dream model: what it is trained or finetuned on, and where it comes from."""

    instructions: InstructionSourceParams
    """Its chats."""
    tokenizer: ChatTokenizerParams
    """Its tokenizer."""
    base: DreamBaseParams
    """Its base."""


class CodeParams(Section):
    """The code study."""

    families: list[str] = Field(min_length=1)
    """Which of the settings run, in the report's order."""
    seeds: list[Seed] = Field(min_length=1)
    """Finetuning seeds: each arm of each family is finetuned once with each."""
    settings: dict[str, FamilyParams]
    """The families by name."""
    micro: MicroParams
    """The small Python problems that are made here."""
    arithmetic: ArithmeticParams
    """The small arithmetic problems that are made here."""
    problem_sets: ProblemsParams
    """What models are asked."""
    nearest: NearestParams
    """The baseline that only remembers."""
    instructions: InstructionsParams
    """What is kept of chats."""
    finetuning: FinetuningParams
    """How adapters are trained."""
    arms: CodeArmsParams
    """What is compared."""
    generation: GenerationParams
    """How models answer."""
    scoring: ScoringParams
    """How answers are judged."""
    compare: CodeCompareParams
    """How models are compared."""
    speed: SpeedParams
    """How decoding is timed."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        known = ", ".join(self.settings)
        for name in self.families:
            if not re.fullmatch(NAME, name) or name in RESERVED:
                yield f"families {name!r} is no family's name; expected {PATTERNS[NAME]}, and not {', '.join(RESERVED)}"
            elif name not in self.settings:
                yield f"families {name!r} has no settings; expected a key of code.settings: {known}"
            else:
                yield from self._check_micro(name)
        for key, values in (("families", self.families), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                yield f"{key} {values} has a repeated value; expected each once"
        yield from self.generation.lacking(self.problem_sets.sets)
        backward = BACKWARD_FROZEN + self.finetuning.training.gradient_checkpointing
        yield from budget_problems(self.arms, "arms.", self.finetuning.training, backward)
        for name in (name for name in self.families if name in self.settings):
            yield from self._check_lengths(name)
            yield from self._check_sizes(name)
        yield from self._check_speed()

    def _check_lengths(self, family: str) -> Iterator[str]:
        """What a base that is trained here reads and writes isn't longer than it is meant for."""
        base = self.settings[family].base
        lengths = {f"generation.tasks.{name}.response_length": task.response_length for name, task in self._tasks()}
        lengths["instructions.max_length"] = self.instructions.max_length
        for key, length in lengths.items():
            if base.source is Source.TRAIN and length > base.model.max_length:
                yield (
                    f"{key} {length} is more than settings.{family}.base.model.max_length {base.model.max_length}; "
                    "expected at most that"
                )

    def _tasks(self) -> Iterator[tuple[str, TaskParams]]:
        """The problem sets that are asked, and how."""
        tasks = self.generation.tasks
        yield from ((name, tasks[name]) for name in self.problem_sets.sets if name in tasks)

    def _check_sizes(self, family: str) -> Iterator[str]:
        settings, rank, top_k = self.settings[family], self.finetuning.adapter.rank, self.generation.top_k
        if settings.base.source is Source.TRAIN and rank > settings.base.model.hidden_size:
            yield (
                f"finetuning.adapter.rank {rank} is more than settings.{family}.base.model.hidden_size "
                f"{settings.base.model.hidden_size}; expected at most that"
            )
        if settings.tokenizer.source is not Source.TRAIN:
            return
        vocabulary = settings.tokenizer.train.vocab_size
        yield from guess_problems(self.arms, "arms", vocabulary)
        if top_k is not None and top_k > vocabulary:
            yield f"generation.top_k {top_k} is more than the {vocabulary} ids there are; expected a few, or null"

    def _check_micro(self, family: str) -> Iterator[str]:
        """The small model is asked as it was taught."""
        source = self.settings[family].instructions
        if source.source is not InstructionSource.MICRO or source.micro is None:
            return
        if source.micro.arithmetic.count > self.arithmetic.train:
            yield (
                f"settings.{family}.instructions.micro.arithmetic.count {source.micro.arithmetic.count} is more than "
                f"arithmetic.train {self.arithmetic.train}"
            )
        chats, held = self.micro.train + source.micro.arithmetic.count, self.instructions.validation_examples
        if held >= chats:
            yield (
                f"instructions.validation_examples {held} leaves none of the {chats} chats of {family} for training; "
                "expected fewer"
            )
        for name in self.problem_sets.sets:
            taught: ChatTemplateParams | None = {
                ProblemSource.MICRO: source.micro,
                ProblemSource.MATHS: source.micro.arithmetic,
            }.get(self.problem_sets.settings[name].source)
            asked = self.generation.tasks.get(name)
            for key in ("instruction", "prefill") if taught and asked else ():
                ours, theirs = getattr(taught, key), getattr(asked, key)
                if ours != theirs:
                    yield (
                        f"generation.tasks.{name}.{key} {theirs!r} is not what settings.{family}.instructions.micro "
                        f"teaches, {ours!r}; expected the same"
                    )

    def _check_speed(self) -> Iterator[str]:
        speed, cells = self.speed, [cell.name for cell in self.generation.cells]
        if speed.set not in self.problem_sets.sets:
            yield f"speed.set {speed.set!r} is not among problem_sets.sets; expected one of {self.problem_sets.sets}"
        if speed.seed not in self.seeds:
            yield f"speed.seed {speed.seed} is no finetuning seed; expected one of {self.seeds}"
        for name in speed.arms:
            if name not in self.arms.names:
                yield f"speed.arms {name!r} is no arm that runs; expected one of {self.arms.names}"
        for name in speed.cells:
            if name not in cells:
                yield f"speed.cells {name!r} is no cell; expected one of {cells}"
