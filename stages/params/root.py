"""The whole of params.yaml, and the combinations that are impossible across its sections."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from softmask.decoding.kinds import RemaskFeedback
from softmask.feedback_kinds import FeedbackKind
from stages.params.arms import ArmsParams
from stages.params.base import BaseParams, BaseSource
from stages.params.compare import CompareParams
from stages.params.compute import ComputeParams
from stages.params.corpus import CorpusParams
from stages.params.evaluation import EvaluationParams
from stages.params.judge import JudgeParams, JudgeSource
from stages.params.model import DiffusionParams, ModelParams
from stages.params.report import Regime, ReportParams
from stages.params.sampling import SamplingParams
from stages.params.section import Section
from stages.params.tokenizer import TokenizerParams
from stages.params.tokens import TokensParams
from stages.params.training import TrainingParams


class RootParams(Section):
    """params.yaml."""

    profile: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the profile, for the report."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """Training seeds: each arm is trained once with each."""
    compute: ComputeParams
    corpus: CorpusParams
    tokenizer: TokenizerParams
    tokens: TokensParams
    judge: JudgeParams
    model: ModelParams
    diffusion: DiffusionParams
    base: BaseParams
    arms: ArmsParams
    sampling: SamplingParams
    evaluation: EvaluationParams
    compare: CompareParams
    report: ReportParams

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} has a repeated seed; expected each once")
        self._check_launch()
        self._check_processes("base.training", self.base.training)
        self._check_processes("arms.training", self.arms.training)
        self._check_report()
        self._check_feedback()
        self._check_judge()
        return self

    def _check_launch(self) -> None:
        if self.compute.fsdp:
            raise ValueError(
                "compute.fsdp true is not possible with the MDLM stages, whose averaged weights are not sharded; "
                "expected false (the model fits each device, and processes share the batch)"
            )

    def _check_processes(self, key: str, training: TrainingParams) -> None:
        micro_batch = training.batch_size // training.accumulation
        if micro_batch % self.compute.processes:
            raise ValueError(
                f"{key}.batch_size {training.batch_size} with accumulation {training.accumulation} can't be dealt to "
                f"compute.processes {self.compute.processes}; expected a divisor of batch_size / accumulation"
            )

    def _check_report(self) -> None:
        shown = (self.report.sampler, self.report.nfe)
        cells = [(cell.sampler.value, cell.nfe) for cell in self.sampling.cells]
        if shown not in cells:
            raise ValueError(
                f"report.sampler {shown[0]!r} with report.nfe {shown[1]} is not generated; expected one of {cells} "
                "(sampling.cells)"
            )
        scratch = self.base.source is BaseSource.INITIALISE
        if scratch != (self.report.regime is Regime.SCRATCH):
            raise ValueError(
                f"report.regime {self.report.regime.value!r} with base.source {self.base.source.value!r} is "
                "impossible; expected scratch with initialise, and continuation with the others"
            )

    def _check_judge(self) -> None:
        if self.judge.source is not JudgeSource.TRAIN:
            return
        lengths = {
            "evaluation.judge.max_length": self.evaluation.judge.max_length,
            "evaluation.mauve.max_text_length": self.evaluation.mauve.max_text_length,
        }
        for key, length in lengths.items():
            if length > self.tokens.length:
                raise ValueError(
                    f"{key} {length} with judge.source 'train' is impossible: the judge reads as many tokens as a row "
                    f"has; expected at most tokens.length {self.tokens.length}"
                )

    def _check_feedback(self) -> None:
        remasks = any(cell.sampler.remasks for cell in self.sampling.cells)
        for name in self.arms.names:
            soft_mask = self.arms.settings[name].soft_mask
            full = soft_mask is not None and soft_mask.kind is FeedbackKind.FULL
            if full and remasks and self.sampling.remask_feedback is RemaskFeedback.PREVIOUS_TOKEN:
                raise ValueError(
                    f"sampling.remask_feedback 'previous_token' with arms.settings.{name}.soft_mask.kind 'full' is "
                    "impossible for the remasking samplers; expected remask_feedback mask"
                )
