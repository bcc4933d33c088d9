"""Steps of MDLM, training and sampling, soft-masked, binary and the plain way: a tiny model, and the paper's 169M.

Random weights, scaled so that predictions have an entropy of some nats: what the nucleus and the guesses work on. All
ratios are of medians from one run, in turns. Memory is what a step holds beside weights and optimizer state.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.table import Cost, Measured, Task, alternate, costs, peak_mib
from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.decoding.decoder import DecodingSettings, Run
from softmask.decoding.kinds import Refresh, RemaskFeedback, Sampler
from softmask.decoding.transitions import RemdmSettings
from softmask.diffusion import LogLinear
from softmask.feedback import TopKGuesses
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule
from softmask.training.elbo import BinaryObjective
from softmask.training.soft_mask_objective import SoftMaskObjective

T = 0.5
"""The time that trainings are measured at: half of the positions of each sequence are masked."""
MASKED = (1.0, 0.5, 0.1)
"""The masked fractions that sampling is measured at."""
NFE, FINAL_T = 64, 1e-3
DT = (1 - FINAL_T) / NFE
"""Of a sampling step: one of 64, which unmasks about a 64th of all positions."""
SEED = 10
"""Of a step's noise: with it as many positions of the 169M model's batch unmask as on average, 4."""
K, HEAD_CHUNK = 3, 2048
SOFT_MASK = {"omega_s": 0.5, "omega_a": 3.0, "omega_b": -1.5, "temperature": 1.0, "kind": FeedbackKind.TOP_K, "k": K}
SETTINGS = DecodingSettings(
    sampler=Sampler.MDLM,
    nfe=NFE,
    nucleus_p=0.9,
    temperature=1.0,
    refresh=Refresh.ALWAYS,
    remask_feedback=RemaskFeedback.PREVIOUS_TOKEN,
    omega_schedule=OmegaSchedule.CONSTANT,
    feedback_from=0.0,
    feedback_until=1.0,
    remdm=RemdmSettings(eta=0.0, t_on=0.0, t_off=0.0, alpha_on=0.0),
    final_t=FINAL_T,
    final_argmax=True,
    head_chunk=HEAD_CHUNK,
)
"""Refresh always: every step that is measured makes a forward, whatever it finds."""
MODULATION_STD = 0.2
"""Of what adaLN starts at: at zero, as it is made, no block would have a say."""


@dataclass(frozen=True)
class Size:
    """A model and its batch.

    Args:
        name: how rows begin.
        shape: of the model, but for the mask token and the soft mask.
        batch: sequences.
        logit_std: standard deviation of the logits.
        turns: how often training steps, sampling steps, and the plain sampling steps take turns.
        has_aims: whether the issue's aims are about this size.
    """

    name: str
    shape: dict[str, int]
    batch: int
    logit_std: float
    turns: tuple[int, int, int]
    has_aims: bool

    def compare(
        self, paid: dict[str, Cost], name: str, against: str, at_most: float | None = None, note: str = ""
    ) -> Measured:
        """A row about two of the tasks in `paid`. The 169M model's rows say its name once."""
        prefix = "" if self.has_aims else f"{self.name} "
        aim = at_most if self.has_aims else None
        return Measured(f"{self.name} {name}", paid[name], prefix + against, paid[against], aim, note)


TINY = Size(
    "tiny",
    {"vocab_size": 98, "length": 128, "hidden_size": 128, "n_blocks": 3, "n_heads": 4, "cond_dim": 32},
    batch=32,
    logit_std=2.5,
    turns=(15, 15, 5),
    has_aims=False,
)
PAPER = Size(
    "169M",
    {"vocab_size": 50_258, "length": 256, "hidden_size": 768, "n_blocks": 12, "n_heads": 12, "cond_dim": 128},
    batch=1,
    logit_std=5.2,
    turns=(7, 9, 3),
    has_aims=True,
)


def measure() -> list[Measured]:
    """Both sizes; eight minutes on two busy cores, and 4 GiB of memory."""
    rows = []
    for size in (TINY, PAPER):
        model = make_model(size)
        rows += training(size, model) + sampling(size, model)
        del model
        gc.collect()
    return rows


def make_model(size: Size) -> Mdlm:
    """A soft-masked model in which everything has a say, and whose logits vary as `size` wants it."""
    torch.manual_seed(SEED)
    soft_mask = {**SOFT_MASK, "interpolation": Interpolation.LINEAR}
    model = Mdlm(MdlmConfig(mask_token_id=size.shape["vocab_size"] - 1, soft_mask=soft_mask, **size.shape))
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "adaLN_modulation" in name:
                parameter.normal_(std=MODULATION_STD)
        model.backbone.output_layer.linear.weight.normal_(std=size.logit_std / math.sqrt(model.config.hidden_size))
    return model


def binary_of(model: Mdlm) -> Mdlm:
    """The same backbone without a soft mask."""
    shape = {name: value for name, value in model.config.to_dict().items() if name != "soft_mask"}
    with torch.device("meta"):
        binary = Mdlm(MdlmConfig(**shape))
    binary.backbone = model.backbone
    return binary


def masked_tokens(config: MdlmConfig, batch: int, fraction: float) -> tuple[Tensor, Tensor]:
    """Random x_0 and x_t, `[B, L]`; that fraction of each sequence is masked."""
    generator = torch.Generator().manual_seed(1)
    mask_id, shape = int(config.mask_token_id), (batch, int(config.length))
    x0 = torch.randint(0, mask_id, shape, generator=generator)
    order = torch.rand(shape, generator=generator).argsort(-1)
    return x0, x0.masked_fill(order < round(fraction * shape[1]), mask_id)


def training(size: Size, model: Mdlm) -> list[Measured]:
    """A step with its optimizer, ours fused as in the stages. A learning rate of 0 keeps the weights, one for all."""
    model.train(True)
    x0, x_t = masked_tokens(model.config, size.batch, T)
    t, noise = torch.full((size.batch,), T), LogLinear(0.0)
    binary, soft = BinaryObjective(binary_of(model), noise, HEAD_CHUNK), SoftMaskObjective(model, noise, HEAD_CHUNK)
    losses: dict[str, Callable[[], Tensor]] = {
        "training step SM": partial(soft, x0, x_t, t, True),
        "training step binary": partial(binary, x0, x_t, t, False),
        "naive step SM": partial(naive.loss, model, x0, x_t, t, True),
        "naive step binary": partial(naive.loss, model, x0, x_t, t, False),
    }
    for name in ("SM", "binary"):
        torch.testing.assert_close(losses[f"training step {name}"](), losses[f"naive step {name}"]())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ours, plain = (torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=fused) for fused in (True, False))
    updates = [partial(_update, loss, plain if "naive" in name else ours) for name, loss in losses.items()]
    seconds = alternate(updates, size.turns[0], warm_up=2)
    peaks = [peak_mib(partial(_gradients, loss, ours)) for loss in losses.values()]
    paid = {name: Cost(*pair) for name, *pair in zip(losses, seconds, peaks, strict=True)}
    paid["binary step"] = paid["training step binary"]
    note = f"{size.batch} x {model.config.length} tokens, half masked; time with AdamW, memory without"
    return [
        size.compare(paid, "training step SM", "binary step", 1.35, note),
        size.compare(paid, "training step SM", "naive step SM", 1 / 1.5, note),
        size.compare(paid, "training step binary", "naive step binary", None, note),
    ]


def _update(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()


def _gradients(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    loss().backward()
    optimizer.zero_grad()


class Middle:
    """A run of the decoder that stands at time t with guesses from a step before; each call makes its next step."""

    def __init__(self, model: Mdlm, x_t: Tensor, t: float) -> None:
        self.run = Run(model, SETTINGS, len(x_t), x_t.shape[1], torch.Generator())
        self.x_t, self.t = x_t, t
        self.run.x = x_t.clone()
        self.run.step(0, t, 0.0)  # takes no time, so unmasks nothing, but leaves guesses

    def __call__(self) -> None:
        self.run.x = self.x_t.clone()
        self.run.generator.manual_seed(SEED)
        self.run.step(1, self.t, DT)

    def unmasked(self) -> int:
        """How many positions a step unmasks."""
        self()
        return int((self.run.x != self.x_t).sum())


@torch.no_grad()
def sampling(size: Size, model: Mdlm) -> list[Measured]:
    """Steps of the decoder and the plain way's, against a forward that computes the logits of all positions."""
    model.train(False)
    models = {"SM": model, "binary": binary_of(model)}
    _, half = masked_tokens(model.config, size.batch, 0.5)
    forward = {"forward with head": partial(model, half)}
    ours: dict[str, Task] = {}
    plain: dict[str, Task] = {}
    notes = {}
    for fraction in MASKED:
        _, x_t = masked_tokens(model.config, size.batch, fraction)
        for kind, its_model in models.items():
            name = f"sampling step {kind}, masked {fraction:g}"
            middle = Middle(its_model, x_t, fraction)
            ours[name] = middle
            guesses = _same_guesses(middle) if kind == "SM" else None
            plain[f"official {name}"] = partial(naive.step, its_model, x_t, guesses, fraction, DT, SETTINGS.nucleus_p)
            notes[fraction] = f"{size.batch} x {x_t.shape[1]} tokens, {middle.unmasked()} unmask"
    paid = costs({**forward, **ours}, size.turns[1], 2)
    theirs = costs({**forward, **plain}, size.turns[2])
    aims = dict(zip(MASKED, (1.20, 0.95, 0.75), strict=True))
    rows = []
    for kind in models:
        rows += [
            size.compare(paid, f"sampling step {kind}, masked {f:g}", "forward with head", aims[f], notes[f])
            for f in MASKED
        ]
    rows += [
        size.compare(paid, f"sampling step SM, masked {f:g}", f"sampling step binary, masked {f:g}", 1.05, notes[f])
        for f in MASKED
    ]
    return rows + [size.compare(theirs, name, "forward with head") for name in plain]


def _same_guesses(middle: Middle) -> naive.NaiveGuesses:
    """The plain way's guesses in the place of `middle`'s, checked: both make the same input of the next forward."""
    model, x_t = middle.run.model, middle.x_t
    assert model.soft_mask is not None, "binary models have no guesses"
    plain = naive.feedback(naive.log_probs_of(model, x_t, None), model.soft_mask.k)
    guesses = middle.run.view(middle.t).guesses
    assert isinstance(guesses, TopKGuesses), "the soft mask above is of that kind"
    torch.testing.assert_close(model.embed(x_t, guesses), naive.embed(model, x_t, plain), atol=1e-4, rtol=1e-4)
    return plain
