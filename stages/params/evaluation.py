"""`evaluation`: how models and samples are measured; the same for every model, so that numbers can be compared."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from runner.section import Section, Seed
from softmask.evaluation.rules import EosRule, FirstToken, MauveRules, ScoringRules


class JudgingParams(Section):
    """How the judge scores decoded texts: generative perplexity."""

    batch_size: int = Field(ge=1)
    """Texts a batch, and a unit of work that a killed stage doesn't repeat."""
    max_length: int = Field(ge=2)
    """Tokens that the judge reads at a time; longer texts are scored in windows."""
    stride: int = Field(ge=1)
    """Tokens from one window's start to the next; max_length: windows don't overlap."""
    eos_rule: EosRule
    """What counts of a text with end-of-text tokens: keep_all every token; first_only (MDLM's rule) all but the
    end-of-text tokens after the first; truncate_at_first nothing after the first one."""
    first_token: FirstToken
    """skip (as MDLM): a text's first token isn't scored; after_eos: it is, after an end-of-text token."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.stride > self.max_length:
            yield (
                f"stride {self.stride} with max_length {self.max_length} would leave tokens out; "
                "expected a stride of at most max_length"
            )

    def rules(self, head_chunk: int) -> ScoringRules:
        """As the library takes them."""
        return ScoringRules(
            max_length=self.max_length,
            stride=self.stride,
            eos_rule=self.eos_rule,
            first_token=self.first_token,
            batch_size=self.batch_size,
            head_chunk=head_chunk,
        )


class ReferencesParams(Section):
    """Real text: MAUVE's references, and other held-out text that plays the samples' role."""

    count: int = Field(ge=1)
    """Validation rows that are MAUVE's references."""
    real_text: int = Field(ge=1)
    """Validation rows for the `real text` row: where possible of other documents than the references."""
    judge_rows: int = Field(ge=1)
    """Validation rows that the judge's own perplexity is measured on (at most as many as there are)."""
    seed: Seed
    """Chooses all three."""


class MauveParams(Section):
    """MAUVE (mauve-text), from the judge's features."""

    min_samples: int = Field(ge=2)
    """Fewest samples, and fewest references, that MAUVE is printed for: with few of both it says little."""
    seeds: tuple[Seed, ...] = Field(min_length=2)
    """Seeds of k-means. MAUVE varies with them, so there are at least two and their spread is reported."""
    max_text_length: int = Field(ge=1)
    """Tokens of a text that its features are made from."""
    num_buckets: Literal["auto"] | int
    """Clusters; auto: a tenth of the smaller of both counts, mauve-text's default."""
    pca_max_data: int | None = Field(ge=2)
    """Texts that PCA is fitted on; null: all."""
    explained_variance: float = Field(gt=0, lt=1)
    """Share of the variance that PCA keeps."""
    kmeans_redo: int = Field(ge=1)
    """Runs of k-means, of which the best is kept."""
    kmeans_iterations: int = Field(ge=1)
    """Most iterations of k-means."""
    curve_points: int = Field(ge=2)
    """Points on the divergence curve."""
    scaling_factor: float = Field(gt=0)
    """The constant c of the MAUVE paper; another one gives numbers that can't be compared."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if len(set(self.seeds)) < len(self.seeds):
            yield f"seeds {list(self.seeds)} has a repeated seed; expected each once"
        if self.num_buckets != "auto" and not 2 <= self.num_buckets <= self.min_samples:
            yield (
                f"num_buckets {self.num_buckets} with min_samples {self.min_samples} is wrong; "
                "expected auto, or 2 to min_samples"
            )

    def rules(self, threads: int) -> MauveRules:
        """As the library takes them."""
        return MauveRules(
            min_samples=self.min_samples,
            seeds=self.seeds,
            max_text_length=self.max_text_length,
            num_buckets=self.num_buckets,
            pca_max_data=-1 if self.pca_max_data is None else self.pca_max_data,
            explained_variance=self.explained_variance,
            kmeans_redo=self.kmeans_redo,
            kmeans_iterations=self.kmeans_iterations,
            curve_points=self.curve_points,
            scaling_factor=self.scaling_factor,
            threads=threads,
        )


class EvaluationParams(Section):
    """Perplexity, and the metrics of generated text."""

    seed: Seed
    """Times and masks of the Monte Carlo estimate; shared by all arms and seeds."""
    draws: int = Field(ge=2, le=100_000)
    """Monte Carlo draws of times and masks a row; the error is estimated from their spread."""
    batch_size: int = Field(ge=1)
    """Rows a batch."""
    min_documents: int = Field(ge=2)
    """Fewest validation documents that intervals resample; below, fixed-size passages are resampled."""
    passage_tokens: int = Field(ge=1)
    """Tokens of such a passage."""
    max_rows: int | None = Field(ge=1)
    """Validation rows that perplexity is measured on, spread evenly over all of them; null: all."""
    entropy_bins: tuple[float, ...] = Field(min_length=1)
    """Upper edges, in nats of the first pass's entropy, of the bins in which lambda is shown."""
    judge: JudgingParams
    """Generative perplexity."""
    references: ReferencesParams
    """Real text."""
    mauve: MauveParams
    """MAUVE."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        edges = list(self.entropy_bins)
        if edges != sorted(set(edges)):
            yield f"entropy_bins {edges} is out of order; expected each edge above the one before"
