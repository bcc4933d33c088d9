"""The whole of params.yaml, and the combinations that are impossible across its sections."""

from collections.abc import Iterator

from pydantic import Field

from reporting.params.compare import CompareParams
from reporting.params.report import Regime, ReportParams
from runner.section import Section, Seed
from runner.wording import NAME
from softmask.decoding.kinds import RemaskFeedback, Sampler
from softmask.feedback_kinds import FeedbackKind
from stages.params.arms import ArmsParams, guess_problems
from stages.params.base import BaseParams, BaseSource
from stages.params.code.root import CodeParams
from stages.params.compute import ComputeParams
from stages.params.corpus import CorpusParams
from stages.params.evaluation import EvaluationParams
from stages.params.judge import JudgeParams, JudgeSource
from stages.params.lineage import LineageParams
from stages.params.model import DiffusionParams, ModelParams
from stages.params.orchestration import OrchestrationParams
from stages.params.retrain import Metric, RetrainParams
from stages.params.sampling import SamplingParams
from stages.params.tokenizer import TokenizerParams, TokenizerSource
from stages.params.tokens import TokensParams
from stages.params.training import RunParams


class RootParams(Section):
    """params.yaml."""

    profile: str = Field(pattern=NAME)
    """Name of the profile, for the report."""
    seeds: list[Seed] = Field(min_length=1)
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
    code: CodeParams
    orchestration: OrchestrationParams
    retrain: RetrainParams
    lineage: LineageParams

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if len(set(self.seeds)) != len(self.seeds):
            yield f"seeds {self.seeds} has a repeated seed; expected each once"
        yield from self._check_launch()
        yield from self._check_processes("base.training", self.base.training)
        yield from self._check_processes("arms.training", self.arms.training)
        yield from self._check_processes("code.finetuning.training", self.code.finetuning.training)
        for name in self.code.families:
            if name in self.code.settings:
                yield from self._check_processes(
                    f"code.settings.{name}.base.training", self.code.settings[name].base.training
                )
        yield from self._check_report()
        yield from self._check_feedback()
        yield from self._check_judge()
        yield from self._check_baseline()
        yield from self._check_retrain()

    def _check_launch(self) -> Iterator[str]:
        if self.compute.fsdp:
            yield (
                "compute.fsdp true is not possible with the MDLM stages, whose averaged weights are not sharded; "
                "expected false (the model fits each device, and processes share the batch)"
            )

    def _check_processes(self, key: str, training: RunParams) -> Iterator[str]:
        micro_batch = training.batch_size // training.accumulation
        if micro_batch % self.compute.processes:
            yield (
                f"{key}.batch_size {training.batch_size} with accumulation {training.accumulation} can't be dealt to "
                f"compute.processes {self.compute.processes}; expected a divisor of batch_size / accumulation"
            )

    def _check_report(self) -> Iterator[str]:
        shown = (self.report.sampler, self.report.nfe)
        cells = [(cell.sampler.value, cell.nfe) for cell in self.sampling.cells]
        pairs = ", ".join(f"{sampler} with {nfe}" for sampler, nfe in cells)
        if shown not in cells:
            yield (
                f"report.sampler {shown[0]!r} with report.nfe {shown[1]} is not generated; "
                f"expected one of sampling.cells: {pairs}"
            )
        if self.report.trace_guesses > self.sampling.trace.guesses:
            yield (
                f"report.trace_guesses {self.report.trace_guesses} with sampling.trace.guesses "
                f"{self.sampling.trace.guesses} is impossible; expected at most as many as are kept"
            )
        scratch = self.base.source is BaseSource.INITIALISE
        if scratch != (self.report.regime is Regime.SCRATCH):
            yield (
                f"report.regime {self.report.regime.value!r} with base.source {self.base.source.value!r} is "
                "impossible; expected scratch with initialise, and continuation with the others"
            )

    def _check_baseline(self) -> Iterator[str]:
        samplers = ", ".join(Sampler)
        if self.compare.baseline_sampler not in list(Sampler):
            name = self.compare.baseline_sampler
            yield f"compare.baseline_sampler {name!r} is no sampler; expected one of {samplers}"

    def _check_retrain(self) -> Iterator[str]:
        arm, seed = self.retrain.arm, self.retrain.seed
        if arm not in self.arms.names:
            yield f"retrain.arm {arm!r} is not trained; expected one of arms.names: {', '.join(self.arms.names)}"
        elif (
            self.arms.settings[arm].soft_mask is None and Metric.NLL_WITHOUT_FEEDBACK in self.retrain.promotion.metrics
        ):
            what = f"'nll_without_feedback' is impossible for retrain.arm {arm!r}, which has no soft mask"
            yield f"retrain.promotion with {what}; expected nll alone"
        if seed not in self.seeds:
            yield f"retrain.seed {seed} is not trained; expected one of seeds: {', '.join(map(str, self.seeds))}"

    def _check_judge(self) -> Iterator[str]:
        if self.judge.source is not JudgeSource.TRAIN:
            return
        lengths = {
            "evaluation.judge.max_length": self.evaluation.judge.max_length,
            "evaluation.mauve.max_text_length": self.evaluation.mauve.max_text_length,
        }
        for key, length in lengths.items():
            if length > self.tokens.length:
                yield (
                    f"{key} {length} with judge.source 'train' is impossible: the judge reads as many tokens as a row "
                    f"has; expected at most tokens.length {self.tokens.length}"
                )

    def _check_feedback(self) -> Iterator[str]:
        tokenizer = self.tokenizer
        size = tokenizer.train.vocab_size if tokenizer.source is TokenizerSource.TRAIN else None
        yield from guess_problems(self.arms, "arms", size)
        remasks = any(cell.sampler.remasks for cell in self.sampling.cells)
        for name in self.arms.names:
            soft_mask = self.arms.settings[name].soft_mask
            full = soft_mask is not None and soft_mask.kind is FeedbackKind.FULL
            if full and remasks and self.sampling.remask_feedback is RemaskFeedback.PREVIOUS_TOKEN:
                yield (
                    f"sampling.remask_feedback 'previous_token' with arms.settings.{name}.soft_mask.kind 'full' is "
                    "impossible for the remasking samplers; expected remask_feedback mask"
                )
