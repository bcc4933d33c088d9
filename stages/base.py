"""Make the model that the arms start from: train a binary MDLM, import a published checkpoint, or initialise one."""

from artifacts.files import write_json
from runner.launch import in_processes
from runner.stage import Context, Stage, StageParams
from softmask.backbones.checkpoint import import_checkpoint
from softmask.diffusion import LogLinear
from softmask.tokens import PackedTokens
from softmask.training.elbo import BinaryObjective
from stages.params.base import BaseParams, BaseSource
from stages.params.compute import ComputeParams
from stages.params.model import DiffusionParams, ModelParams
from stages.shared.compute import copies_in_training, set_up
from stages.shared.mdlm_training import COSTS, Job, new_model, save, train
from stages.sources.checkpoint_source import checkpoint_path


class Params(StageParams):
    """What the base is made from."""

    compute: ComputeParams
    model: ModelParams
    diffusion: DiffusionParams
    base: BaseParams


def run(context: Context[Params]) -> None:
    """Make models/mdlm/base/model and its history.

    Raises:
        InputError: the checkpoint is missing or doesn't fit the model.
    """
    params = context.params
    if params.base.source is BaseSource.TRAIN:
        in_processes("stages.base", train_base)(context)
        return
    set_up(params.compute)
    model = new_model(params.model, PackedTokens.open(context.inputs["tokens"]), params.base.seed)
    if params.base.source is BaseSource.CHECKPOINT:
        source = checkpoint_path(params.base.checkpoint)
        layout, weights = params.base.checkpoint.layout, params.base.weights
        context.counts["imported"] = import_checkpoint(model, source, layout, weights)
    save(model, context.outputs["model"])
    write_json(context.outputs["history"], [])
    write_json(context.outputs["costs"], {**dict.fromkeys(COSTS, 0), "initial_omegas": None})


def train_base(context: Context[Params]) -> None:
    """Train the base from its initial values."""
    params = context.params
    device = set_up(params.compute)
    tokens = PackedTokens.open(context.inputs["tokens"])
    model = new_model(params.model, tokens, params.base.seed, copies_in_training(params.compute))
    objective = BinaryObjective(model, LogLinear(params.diffusion.noise_eps), params.compute.head_chunk)
    job = Job(
        label="base",
        objective=objective.to(device),
        training=params.base.training,
        steps=params.base.training.steps,
        seed=params.base.seed,
        p_sm=0.0,
        omega_learning_rate=None,
        probe=None,
        weights=params.base.weights,
    )
    train(context, job, params.compute, params.diffusion)


STAGE = Stage(
    name="base",
    params=Params,
    run=run,
    inputs={"check": "data/check/valid.json", "tokens": "data/tokens/train", "imports": "models/import"},
    outputs={
        "model": "models/mdlm/base/model",
        "history": "models/mdlm/base/history.json",
        "costs": "models/mdlm/base/costs.json",
        "manifest": "models/mdlm/base/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
