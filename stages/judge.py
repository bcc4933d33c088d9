"""Make the judge: a small causal language model trained on the corpus, or a pinned one of the hub, in one layout."""

import shutil
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PrinterCallback

from artifacts.files import write_json
from artifacts.hashing import file_md5
from runner.progress import TokensProgress, live
from runner.stage import Context, Stage, StageParams
from softmask.backbones.causal_lm import forward_flops, load_causal_lm, load_tokenizer
from softmask.errors import InputError, Unavailable
from softmask.tokens import PackedTokens, Vocabulary
from softmask.training.causal import CausalObjective, RowsAndNext, collate
from softmask.training.ema import EmaCallback, averaged
from softmask.training.resumable import ResumableTrainer
from softmask.training.stream import TrainingStream
from stages.params.compute import ComputeParams
from stages.params.judge import HubJudgeParams, JudgeParams, JudgeSource, TrainJudgeParams
from stages.params.training import TrainingParams
from stages.shared.compute import copies_in_training, require_memory, set_up
from stages.shared.training_args import training_arguments

HUB_FILES = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")
"""All that is fetched: no code, no pickled weights."""


class Params(StageParams):
    """What the judge is made from."""

    compute: ComputeParams
    judge: JudgeParams


def run(context: Context[Params]) -> None:
    """Make models/judge/model (config.json, model.safetensors, tokenizer.json) and history.json.

    Raises:
        InputError: the training split has one row only, or the hub's model isn't usable.
    """
    if context.params.judge.source is JudgeSource.HUB:
        import_hub(context, context.params.judge.hub)
    else:
        train(context, context.params.judge.train)


def import_hub(context: Context[Params], params: HubJudgeParams) -> None:
    """Load the hub's model through transformers and save it as a trained one is saved; its history is empty."""
    source = fetch(params)
    model = load_causal_lm(source)
    load_tokenizer(source)
    _save(model, source / "tokenizer.json", context.outputs["model"])
    write_json(context.outputs["history"], [])
    used = sorted({file for pattern in HUB_FILES for file in source.glob(pattern)})
    context.counts.update(
        {"parameters": model.num_parameters(), "source_files": {file.name: file_md5(file) for file in used}}
    )


def fetch(params: HubJudgeParams) -> Path:
    """The folder with the model's files: the local one, or the hub's at the pinned revision.

    Raises:
        InputError: they can't be fetched, or there are no safetensors among them.
    """
    folder = Path(params.path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download  # only this source needs it

        try:
            folder = Path(snapshot_download(params.path, revision=params.revision, allow_patterns=list(HUB_FILES)))
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{params.path} can't be fetched: {' '.join(str(error).split())}",
                where="params.yaml: judge.hub",
                todo="Check path and revision, and that the hub can be reached",
            ) from None
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{params.path} has no safetensors file", where="params.yaml: judge.hub", expected="weights as safetensors"
        )
    return folder


def train(context: Context[Params], params: TrainJudgeParams) -> None:
    """Train a causal LM on the packed training rows and save its averaged weights."""
    # One process: a judge that is trained is small. FSDP and several processes are for the diffusion models.
    compute = context.params.compute.model_copy(update={"processes": 1, "fsdp": False})
    set_up(compute)
    tokens = PackedTokens.open(context.inputs["tokens"])
    if len(tokens) < 2:
        raise InputError(
            "only one row", where=str(context.inputs["tokens"]), expected="two rows of training text or more"
        )
    make = partial(build, params, tokens.vocabulary, tokens.length)
    require_memory(make, copies_in_training(compute), "params.yaml: judge.train")
    torch.manual_seed(params.seed)
    objective = CausalObjective(make(), compute.head_chunk)
    ema = averaged(objective.model, params.training.ema_decay)
    items = params.training.steps * params.training.batch_size
    root = context.checkpoints.path / "training"
    trainer = ResumableTrainer(
        model=objective,
        args=training_arguments(compute, params.training, params.seed, root),
        train_dataset=TrainingStream(RowsAndNext(tokens), items, params.seed),
        data_collator=collate,
        identity=context.checkpoints.key,
        extras={"ema": ema},
        callbacks=[
            EmaCallback(ema, objective.model),
            TokensProgress("judge", params.training.batch_size * tokens.length),
            live("judge"),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    ema.to(trainer.args.device)
    trainer.train_resumably()
    model = ema.module
    assert isinstance(model, PreTrainedModel)
    _save(model, context.inputs["tokenizer"] / "tokenizer.json", context.outputs["model"])
    write_json(context.outputs["history"], trainer.history)
    context.counts.update({"parameters": model.num_parameters(), **costs(model, params.training, tokens.length)})


def costs(model: PreTrainedModel, training: TrainingParams, length: int) -> dict[str, int]:
    """What a run on rows of `length` tokens takes; FLOPs by formula."""
    tokens = training.steps * training.batch_size * length
    micro_batches = training.steps * training.accumulation
    return {
        "updates": training.steps,
        "forwards": micro_batches,
        "backwards": micro_batches,
        "tokens": tokens,
        "flops": 3 * forward_flops(model, tokens, tokens),  # a backward costs two forwards
    }


def build(params: TrainJudgeParams, vocabulary: Vocabulary, length: int) -> PreTrainedModel:
    """A causal LM with the corpus's vocabulary that reads `length` tokens at a time, with fresh weights."""
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.n_layers,
        num_attention_heads=params.n_heads,
        max_position_embeddings=length,
        bos_token_id=vocabulary.eos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def _save(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.to("cpu").save_pretrained(folder)  # type: ignore[arg-type]
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


STAGE = Stage(
    name="judge",
    params=Params,
    run=run,
    inputs={
        "check": "data/check/valid.json",
        "tokens": "data/tokens/train",
        "tokenizer": "data/tokenizer/tokenizer",
    },
    outputs={
        "model": "models/judge/model",
        "history": "models/judge/history.json",
        "manifest": "models/judge/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
