"""Make the Dream model that a family's arms start from: train a small one, or take a published one as it is."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from artifacts.files import fresh_folder, write_json
from runner.launch import in_processes
from runner.stage import Context, Stage, StageParams
from softmask.backbones.chat_tokenizer import ChatTokenizer, load_chat_tokenizer
from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.backbones.dream_adapter import save_adapter
from softmask.backbones.dream_checkpoint import CONFIG, INDEX, DreamFolder, open_dream, require_finite, save_dream
from softmask.errors import InputError
from softmask.training.answer_objective import AnswerObjective
from stages.params.code.base import DreamBaseParams, DreamShapeParams
from stages.params.code.published import Source
from stages.params.compute import ComputeParams
from stages.shared.compute import copies_in_training, require_memory, set_up
from stages.shared.dream_training import COSTS, AnswerJob, train
from stages.sources.published import published_folder

PATTERNS = (CONFIG, "*.safetensors", INDEX)
"""What is fetched of a hub repository: its shape and its weights, none of its code."""


class Params(StageParams):
    """What the base is made from."""

    keys: ClassVar[Mapping[str, str]] = {"base": "code.settings.{family}.base"}

    compute: ComputeParams
    base: DreamBaseParams


def run(context: Context[Params]) -> None:
    """Make the base's model, its adapter folder (the plain base's), history.json and costs.json.

    Raises:
        InputError: see `import_base`; or the chats are damaged or don't fit the tokenizer.
    """
    if context.params.base.source is Source.TRAIN:
        in_processes("stages.dream_base", train_base)(context)
        return
    import_base(context)
    save_adapter(fresh_folder(context.outputs["adapter"]), None, None)
    write_json(context.outputs["history"], [])
    write_json(context.outputs["costs"], {**dict.fromkeys(COSTS, 0), "initial_omegas": None, "best": None})


def train_base(context: Context[Params]) -> None:
    """Train a small Dream from fresh weights on the family's answers, all of its weights, with binary masking."""
    params = context.params
    device = set_up(params.compute)
    tokenizer = load_chat_tokenizer(context.inputs["tokenizer"])
    model = new_dream(params.base.model, tokenizer, params.base.seed, copies_in_training(params.compute))
    training = params.base.training
    objective = AnswerObjective(model, None, training.noise.normalisation, params.compute.head_chunk)
    job = AnswerJob(
        label=f"{context.axes['family']}-base",
        objective=objective.to(device),
        training=training,
        steps=training.steps,
        seed=params.base.seed,
        p_sm=0.0,
        omega_learning_rate=None,
        muon_learning_rate=training.muon_learning_rate,
        frozen=False,
    )
    if train(context, job, params.compute):
        save_dream(model.to("cpu"), fresh_folder(context.outputs["model"]))  # type: ignore[arg-type]
        save_adapter(fresh_folder(context.outputs["adapter"]), None, None)


def import_base(context: Context[Params]) -> None:
    """Take a published model: check every header and value, and link its files; its weights are never in memory.

    Raises:
        InputError: it isn't there, doesn't fit its config.json or the tokenizer, or holds values that are not finite.
    """
    where = f"params.yaml: code.settings.{context.axes['family']}.base"
    params = context.params.base
    found = open_dream(published_folder(params.published, params.source, PATTERNS, where))
    require_tokenizer(found.config, load_chat_tokenizer(context.inputs["tokenizer"]), found.folder)
    require_finite(found)
    take(found, fresh_folder(context.outputs["model"]))
    context.counts["imported"] = found.report()


def require_tokenizer(config: DreamConfig, tokenizer: ChatTokenizer, where: Path) -> None:
    """The model and its tokenizer mean the same by mask and padding, and every id has an embedding.

    Raises:
        InputError: they don't.
    """
    for name, ours in (("mask_token_id", tokenizer.mask_token_id), ("pad_token_id", tokenizer.pad_token_id)):
        if getattr(config, name) != ours:
            raise InputError(
                f"{getattr(config, name)} with a tokenizer whose id is {ours}",
                where=f"{where / CONFIG}: {name}",
                expected="the same id",
                todo="Take model and tokenizer from the same repository and revision",
            )
    if tokenizer.size > config.vocab_size:
        raise InputError(
            f"{config.vocab_size} with a tokenizer of {tokenizer.size} ids",
            where=f"{where / CONFIG}: vocab_size",
            expected=f"at least {tokenizer.size}",
            todo="Take model and tokenizer from the same repository and revision",
        )


def take(found: DreamFolder, target: Path) -> None:
    """Put a checked folder's weights into `target`: as hard links where the file system allows, else as copies.

    config.json is written anew and holds what the architecture knows; names of remote code are left out.
    """
    for file in (*found.files, *([found.index] if found.index else [])):
        source = file.resolve()  # the hub's cache holds links
        try:
            os.link(source, target / file.name)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target / file.name)
    config = DreamConfig(**found.config.to_diff_dict())
    config.architectures, config.dtype = [DreamModel.__name__], found.dtype
    config.save_pretrained(target)


def new_dream(params: DreamShapeParams, tokenizer: ChatTokenizer, seed: int, copies: int = 1) -> DreamModel:
    """A freshly initialised model with the tokenizer's vocabulary, float32; the same seed gives the same weights.

    Args:
        copies: of its weights that main memory will hold, see `require_memory`.

    Raises:
        InputError: it doesn't fit into memory.
    """
    config = shape_of(params, tokenizer.size, tokenizer.mask_token_id, tokenizer.pad_token_id)
    require_memory(lambda: DreamModel(config), copies, "params.yaml: code.settings: base.model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DreamModel(config)


def shape_of(params: DreamShapeParams, vocab_size: int, mask_token_id: int, pad_token_id: int) -> DreamConfig:
    """The configuration of a model that is trained here."""
    return DreamConfig(
        vocab_size=vocab_size,
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.n_layers,
        num_attention_heads=params.n_heads,
        num_key_value_heads=params.n_key_value_heads,
        max_position_embeddings=params.max_length,
        rope_theta=params.rope_theta,
        rms_norm_eps=params.rms_norm_eps,
        initializer_range=params.initializer_range,
        mask_token_id=mask_token_id,
        pad_token_id=pad_token_id,
        bos_token_id=pad_token_id,
        eos_token_id=pad_token_id,
        tie_word_embeddings=params.tie_embeddings,
    )


STAGE = Stage(
    name="dream_base",
    params=Params,
    run=run,
    axes=("family",),
    inputs={
        "check": "data/check/valid.json",
        "tokenizer": "models/dream/{family}/tokenizer",
        "tokens": "data/code/tokens/{family}/train",
        "validation": "data/code/tokens/{family}/validation",
        "imports": "models/import",
    },
    outputs={
        "model": "models/dream/{family}/base/model",
        "adapter": "models/dream/{family}/base/adapter",
        "history": "models/dream/{family}/base/history.json",
        "costs": "models/dream/{family}/base/costs.json",
        "manifest": "models/dream/{family}/base/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
