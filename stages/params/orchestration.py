"""`orchestration`: what each stage occupies while it runs, and how often it is tried. Changes no number.

Read by `pipelines/`; plain `dvc repro` runs one stage at a time and needs none of it.
"""

from pydantic import Field

from runner.section import Section


class Resources(Section):
    """What a stage occupies of its machine."""

    cpu: int = Field(ge=1)
    """Cores."""
    gpu: int = Field(ge=0)
    """GPUs; a stage with any runs in the pool `gpu`."""
    memory: int = Field(ge=1)
    """GiB of main memory."""

    @property
    def pool(self) -> str:
        """The work pool that it runs in."""
        return "gpu" if self.gpu else "cpu"


class OrchestrationParams(Section):
    """Resources and retries of every stage when Prefect runs the pipeline."""

    default: Resources
    """Of a stage that `stages` doesn't name."""
    stages: dict[str, Resources]
    """By the name in dvc.yaml, for all instances of a matrix; and `snapshot` and `promotion`, which retrains run."""
    retries: int = Field(ge=0, le=50)
    """Further tries of a stage after what may pass: a lost worker, a full GPU, the network. A mistake isn't retried."""
    retry_seconds: int = Field(ge=1, le=86_400)
    """Before the first retry; each later one waits twice as long."""

    def of(self, stage: str) -> Resources:
        """What an instance such as `arm@sm-1` occupies."""
        return self.stages.get(stage.partition("@")[0], self.default)
