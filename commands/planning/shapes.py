"""The models of a run as shapes: built on PyTorch's meta device, so that they are counted and take no memory."""

from functools import cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, PreTrainedModel

from commands.planning.memory import FLOAT32, Trunk
from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.backbones.dream_adapter import AdapterSettings, add_adapter
from softmask.tokens import Vocabulary
from stages.dream_base import shape_of
from stages.judge import build
from stages.params.code.base import DreamBaseParams
from stages.params.code.finetuning import AdapterParams
from stages.params.code.published import Source
from stages.params.judge import JudgeParams, JudgeSource
from stages.params.model import ModelParams, SoftMaskParams

GPT2_LARGE = GPT2Config(n_embd=1280, n_layer=36, n_head=20)
"""The paper's judge. A hub model that isn't in a local folder is counted as this one."""
PUBLISHED_JUDGE = "openai-community/gpt2-large"


def mdlm_config(
    params: ModelParams, vocabulary: Vocabulary, length: int, soft_mask: SoftMaskParams | None
) -> MdlmConfig:
    """The shape of the base or, with a soft mask, of an arm."""
    return MdlmConfig(
        vocab_size=vocabulary.size,
        mask_token_id=vocabulary.mask_token_id,
        length=length,
        soft_mask=None if soft_mask is None else soft_mask.of_model("json"),
        **params.model_dump(),
    )


def mdlm_parameters(config: MdlmConfig) -> int:
    """Parameters of an `Mdlm`, omegas included."""
    with torch.device("meta"):
        return int(Mdlm(config).num_parameters())


@cache
def judge_model(params: JudgeParams, vocabulary: Vocabulary, length: int) -> tuple[PreTrainedModel, bool]:
    """The judge without weights, and whether its shape is known."""
    with torch.device("meta"):
        if params.source is JudgeSource.TRAIN:
            return build(params.train, vocabulary, length), True
        folder = Path(params.hub.path)
        local = folder.is_dir()
        config = AutoConfig.from_pretrained(folder, local_files_only=True) if local else GPT2_LARGE
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        return model, local or params.hub.path == PUBLISHED_JUDGE


def mdlm_trunk(config: MdlmConfig, number: int = FLOAT32) -> Trunk:
    """What an `Mdlm`'s activations depend on."""
    return Trunk(config.hidden_size, config.n_blocks, config.vocab_size, number)


def judge_trunk(model: PreTrainedModel, number: int = FLOAT32) -> Trunk:
    """What a judge's activations depend on."""
    return Trunk(model.config.hidden_size, model.config.num_hidden_layers, model.config.vocab_size, number)


def dream_config(params: DreamBaseParams, vocab_size: int) -> DreamConfig:
    """The shape of a family's base; one of the hub is counted as Dream-7B."""
    if params.source is Source.TRAIN:
        return shape_of(params.model, vocab_size, vocab_size - 1, 0)
    folder = Path(params.published.path or "")
    if params.source is Source.PATH and (folder / "config.json").is_file():
        return DreamConfig.from_pretrained(folder, local_files_only=True)
    return DreamConfig()


def dream_parameters(config: DreamConfig, adapter: AdapterParams) -> tuple[int, int]:
    """Parameters of a base, and of an adapter on it."""
    with torch.device("meta"):
        model = DreamModel(config)
        own = int(model.num_parameters())
        add_adapter(model, AdapterSettings(**adapter.model_dump(), seed=0))
    return own, sum(p.numel() for p in model.parameters() if p.requires_grad)
