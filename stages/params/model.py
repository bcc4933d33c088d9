"""`model`, `diffusion` and `soft_mask`-shaped sections: the network, the noise, and the feedback's initial values."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from runner.section import Section
from softmask.feedback_kinds import FeedbackKind, Interpolation

MOST_LAYERS = 1024
MOST_PARAMETERS = 10**11
"""Of a model that is made here: its training takes 20 bytes for each, on one device."""


def size_problems(parameters: int, sizes: str) -> Iterator[str]:
    """That a model is larger than any that can be meant.

    Args:
        parameters: of its layers, about.
        sizes: what makes so many.
    """
    if parameters > MOST_PARAMETERS:
        yield f"{sizes} makes {parameters:.1e} parameters, about; expected at most {MOST_PARAMETERS:.0e}"


class ModelParams(Section):
    """Shape of the diffusion transformer."""

    hidden_size: int = Field(ge=2)
    """Width of the blocks and of the embeddings."""
    n_blocks: int = Field(ge=1, le=MOST_LAYERS)
    """Transformer blocks."""
    n_heads: int = Field(ge=1)
    """Attention heads."""
    cond_dim: int = Field(ge=1)
    """Width of the conditioning, constant in MDLM."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout of both residual branches."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.hidden_size % (2 * self.n_heads):
            yield (
                f"hidden_size {self.hidden_size} can't be split into {self.n_heads} heads of even width; "
                "expected a multiple of 2 x n_heads"
            )
        parameters = self.n_blocks * self.hidden_size * 6 * (2 * self.hidden_size + self.cond_dim)
        yield from size_problems(parameters, f"hidden_size {self.hidden_size} with n_blocks {self.n_blocks}")


class DiffusionParams(Section):
    """The noise."""

    noise_eps: float = Field(gt=0, lt=1)
    """eps of log-linear noise, alpha_t = 1 - (1 - eps) t."""
    sampling_eps: float = Field(gt=0, lt=1)
    """Smallest t in training and evaluation."""


class SoftMaskParams(Section):
    """Soft-masking of one arm: the feedback and the initial values of what is trained."""

    p_sm: float = Field(ge=0, le=1)
    """Probability of the two-pass step, drawn once a micro-batch."""
    kind: FeedbackKind
    """top_k, or full: the whole vocabulary with a trained temperature."""
    k: int = Field(ge=1)
    """How many guesses are fed back (top_k)."""
    interpolation: Interpolation
    """Between mask and guesses: linear (paper), or spherical."""
    omega_s: float = Field(ge=0, le=1)
    """Initial cap on lambda."""
    omega_a: float = Field(gt=1e-5)
    """Initial slope."""
    omega_b: float = Field(lt=-1e-5)
    """Initial confidence threshold, in nats of negative entropy."""
    temperature: float = Field(gt=1e-5)
    """Initial temperature (full)."""
    omega_learning_rate: float = Field(gt=0, le=10)
    """Learning rate of the omegas and the temperature."""

    def of_model(self, mode: Literal["json", "python"]) -> dict[str, Any]:
        """The arguments of a `SoftMask`, or what a config says of them: all but training's."""
        return self.model_dump(mode=mode, exclude={"p_sm", "omega_learning_rate"})
