"""The settings that every training run has: steps, batch, AdamW, warm-up, EMA, logging and checkpoints."""

from collections.abc import Iterator

from pydantic import Field

from runner.section import Section


class RunParams(Section):
    """One training run with AdamW and a linear warm-up."""

    steps: int = Field(ge=1, le=10**9)
    """Optimizer steps."""
    batch_size: int = Field(ge=1, le=10**6)
    """Sequences an optimizer step, over all processes and accumulated micro-batches."""
    accumulation: int = Field(ge=1)
    """Micro-batches an optimizer step."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of the weights."""
    warmup_steps: int = Field(ge=0)
    """Steps of linear warm-up."""
    betas: tuple[float, float]
    """AdamW's betas."""
    epsilon: float = Field(gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(gt=0)
    """Gradients are clipped to this global norm."""
    log_every: int = Field(ge=1)
    """Steps between two records of the training history."""
    save_every: int = Field(ge=1)
    """Steps between two checkpoints."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.batch_size % self.accumulation:
            yield (
                f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}; "
                "expected micro-batches of equal size"
            )
        if self.warmup_steps > self.steps:
            yield f"warmup_steps {self.warmup_steps} with steps {self.steps} is never reached; expected at most steps"
        if not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas {list(self.betas)} are wrong; expected two numbers from 0 to below 1"


class TrainingParams(RunParams):
    """One training run with a constant learning rate after the warm-up, and averaged weights."""

    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the exponential moving average of the weights, with warm-up min(decay, (1 + n) / (10 + n))."""
