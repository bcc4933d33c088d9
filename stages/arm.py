"""Continue the base's training as one arm of the study: binary masking, or soft-masking on one of the budgets."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from runner.launch import in_processes
from runner.stage import Context, Stage, StageParams, seed_of
from softmask.backbones.dit import Mdlm, MdlmConfig, read
from softmask.backbones.passes import BACKWARD
from softmask.diffusion import LogLinear
from softmask.evaluation.noise import EvaluationNoise
from softmask.tokens import PackedTokens
from softmask.training.elbo import BinaryObjective
from softmask.training.gate_probe import GateProbe
from softmask.training.soft_mask_objective import SoftMaskObjective
from stages.params.arms import ArmParams, ArmTrainingParams
from stages.params.compute import ComputeParams
from stages.params.model import DiffusionParams, SoftMaskParams
from stages.shared.compute import set_up
from stages.shared.mdlm_training import Job, train


class Params(StageParams):
    """What an arm is made from."""

    keys: ClassVar[Mapping[str, str]] = {"training": "arms.training", "arm": "arms.settings.{arm}"}

    compute: ComputeParams
    diffusion: DiffusionParams
    training: ArmTrainingParams
    arm: ArmParams


def run(context: Context[Params]) -> None:
    """Make models/mdlm/{arm}-{seed}/model and its history.

    Raises:
        InputError: the seed is no number, or the base or the tokens are damaged or don't fit each other.
    """
    params = context.params
    device = set_up(params.compute)
    seed = seed_of(context.axes["seed"])
    model = read(context.inputs["base"])
    model.check_vocabulary(PackedTokens.open(context.inputs["tokens"]).vocab_size, context.inputs["tokens"])
    noise, head_chunk = LogLinear(params.diffusion.noise_eps), params.compute.head_chunk
    soft_mask = params.arm.soft_mask
    if soft_mask is None:
        objective = BinaryObjective(model, noise, head_chunk)
    else:
        model = with_soft_mask(model, soft_mask)
        objective = SoftMaskObjective(model, noise, head_chunk)
    job = Job(
        label=f"{context.axes['arm']}-{context.axes['seed']}",
        objective=objective.to(device),
        training=params.training,
        steps=params.arm.steps(params.training.steps, BACKWARD),
        seed=seed,
        p_sm=0.0 if soft_mask is None else soft_mask.p_sm,
        omega_learning_rate=None if soft_mask is None else soft_mask.omega_learning_rate,
        probe=None if soft_mask is None else probe(context, head_chunk),
        weights=params.training.weights,
    )
    train(context, job, params.compute, params.diffusion)


def with_soft_mask(base: Mdlm, params: SoftMaskParams) -> Mdlm:
    """The base with a soft mask at its initial values."""
    model = Mdlm(MdlmConfig(**{**base.config.to_diff_dict(), "soft_mask": params.of_model("json")}))
    model.backbone.load_state_dict(base.backbone.state_dict())
    return model


def probe(context: Context[Params], head_chunk: int) -> GateProbe:
    """lambda on the first validation rows, masked once and for all."""
    tokens = PackedTokens.open(context.inputs["validation"])
    training, diffusion = context.params.training, context.params.diffusion
    rows = min(training.probe_rows, len(tokens))
    noise = EvaluationNoise(
        seed=training.probe_seed,
        rows=rows,
        noise=LogLinear(diffusion.noise_eps),
        sampling_eps=diffusion.sampling_eps,
        mask_token_id=tokens.mask_token_id,
    )
    x0 = torch.from_numpy(tokens.rows(np.arange(rows)))
    x_t = noise.x_t(0, 0, x0, noise.t(0))
    return GateProbe(x_t, head_chunk, max(1, training.batch_size // training.accumulation))


STAGE = Stage(
    name="arm",
    params=Params,
    run=in_processes("stages.arm", run),
    axes=("arm", "seed"),
    inputs={
        "check": "data/check/valid.json",
        "tokens": "data/tokens/train",
        "validation": "data/tokens/validation",
        "base": "models/mdlm/base/model",
    },
    outputs={
        "model": "models/mdlm/{arm}-{seed}/model",
        "history": "models/mdlm/{arm}-{seed}/history.json",
        "costs": "models/mdlm/{arm}-{seed}/costs.json",
        "manifest": "models/mdlm/{arm}-{seed}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
