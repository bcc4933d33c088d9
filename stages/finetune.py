"""Finetune an adapter on a family's base as one arm: binary masking, or soft-masking on one of the budgets."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from artifacts.files import fresh_folder
from runner.launch import in_processes
from runner.stage import Context, Stage, StageParams, seed_of
from softmask.backbones.dream_adapter import AdapterSettings, add_adapter, save_adapter
from softmask.backbones.dream_checkpoint import load_dream
from softmask.feedback import SoftMask
from softmask.training.answer_objective import AnswerObjective
from stages.params.arms import ArmParams
from stages.params.code.finetuning import FinetuningParams
from stages.params.compute import ComputeParams
from stages.shared.compute import set_up
from stages.shared.dream_training import AnswerJob, backward_cost, train


class Params(StageParams):
    """What an adapter is made from."""

    keys: ClassVar[Mapping[str, str]] = {"finetuning": "code.finetuning", "arm": "code.arms.settings.{arm}"}

    compute: ComputeParams
    finetuning: FinetuningParams
    arm: ArmParams


def run(context: Context[Params]) -> None:
    """Make models/dream/{family}/{arm}-{seed}/adapter with its soft mask, the history and the costs.

    Raises:
        InputError: the seed is no number, or the base or the chats are damaged or don't fit each other.
    """
    params = context.params
    device = set_up(params.compute)
    seed = seed_of(context.axes["seed"])
    model = load_dream(context.inputs["base"], torch.bfloat16 if params.compute.precision == "bf16" else torch.float32)
    adapter = params.finetuning.adapter
    adapted = add_adapter(model, AdapterSettings(**adapter.model_dump(), seed=seed))
    settings = params.arm.soft_mask
    soft_mask = None if settings is None else SoftMask(**settings.of_model("python"))
    training = params.finetuning.training
    objective = AnswerObjective(model, soft_mask, training.noise.normalisation, params.compute.head_chunk)
    job = AnswerJob(
        label="-".join(context.axes.values()),
        objective=objective.to(device),
        training=training,
        steps=params.arm.steps(training.steps, backward_cost(training, frozen=True)),
        seed=seed,
        p_sm=0.0 if settings is None else settings.p_sm,
        omega_learning_rate=None if settings is None else settings.omega_learning_rate,
        muon_learning_rate=None,
        frozen=True,
    )
    if train(context, job, params.compute):
        save_adapter(fresh_folder(context.outputs["adapter"]), adapted, soft_mask)


STAGE = Stage(
    name="finetune",
    params=Params,
    run=in_processes("stages.finetune", run),
    axes=("family", "arm", "seed"),
    inputs={
        "check": "data/check/valid.json",
        "tokens": "data/code/tokens/{family}/train",
        "validation": "data/code/tokens/{family}/validation",
        "base": "models/dream/{family}/base/model",
    },
    outputs={
        "adapter": "models/dream/{family}/{arm}-{seed}/adapter",
        "history": "models/dream/{family}/{arm}-{seed}/history.json",
        "costs": "models/dream/{family}/{arm}-{seed}/costs.json",
        "manifest": "models/dream/{family}/{arm}-{seed}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
