"""Causal language models of transformers as judges use them: loading without foreign code, head in chunks, cost.

Knows neither what they are trained on nor what they score.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from softmask.backbones.loading import load_pretrained
from softmask.errors import InputError
from softmask.plain_json import read_object

MOST_LAYERS = 1024


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer from the trunk's output to logits."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear), "a causal LM of transformers has a linear head"
    return head


def forward_flops(model: PreTrainedModel, tokens: int, head_rows: int) -> int:
    """Floating-point operations of a forward by formula: 2 a multiply-add; attention scores are left out.

    Args:
        tokens: positions that go through the trunk.
        head_rows: positions that go through the output head.
    """
    linear = (m.weight.numel() for m in model.base_model.modules() if isinstance(m, nn.Linear | Conv1D))
    return 2 * (tokens * sum(linear) + head_rows * output_head(model).weight.numel())


def chunked_nll(hidden: Tensor, head: nn.Linear, targets: Tensor, chunk: int) -> Tensor:
    """Negative log-likelihood of targets, with logits of at most `chunk` rows at a time.

    Args:
        hidden: `[M, H]` rows that enter the head.
        head: H -> V.
        targets: `[M]` int64.
        chunk: rows a chunk; where gradients flow, a chunk's logits are made again in the backward pass.

    Returns:
        `[M]` float32, in nats.
    """

    def piece(rows: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(head(rows).float(), wanted, reduction="none")

    pairs = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    if torch.is_grad_enabled() and hidden.requires_grad:
        return torch.cat([checkpoint(piece, rows, wanted, use_reentrant=False) for rows, wanted in pairs])
    return torch.cat([piece(rows, wanted) for rows, wanted in pairs])


def load_causal_lm(folder: Path) -> PreTrainedModel:
    """The float32 causal LM in a folder: transformers' own classes, weights from safetensors, no code of the model's.

    Raises:
        InputError: it can't be loaded, or its weights don't fit its configuration.
    """
    _require_sizes(folder)
    try:
        loaded = load_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # config.json may say anything
        raise _no_judge(error, folder) from None
    model: PreTrainedModel = loaded[0]
    report = loaded[1]
    bad = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if bad:
        raise InputError(
            f"{len(bad)} weights are missing or have another shape than config.json says: {', '.join(bad[:5])}",
            where=str(folder),
        )
    _check_end_of_text(model, folder)
    _check_head(model, folder)
    model.eval()
    return model


def _require_sizes(folder: Path) -> None:
    """What config.json describes is of the size of what is stored: transformers makes the model before it reads one.

    Raises:
        InputError: it isn't, or no model can be made of it.
    """
    where, expected = folder / "config.json", "the config.json of a causal language model"
    read_object(where, expected=expected)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = int(getattr(config, "num_hidden_layers", 0))
        described = 0
        if layers <= MOST_LAYERS:
            with torch.device("meta"):
                described = AutoModelForCausalLM.from_config(config, trust_remote_code=False).num_parameters()
        stored = sum(_values(file) for file in folder.glob("*.safetensors"))
    except Exception as error:  # config.json may say anything
        raise _no_judge(error, folder) from None
    if layers > MOST_LAYERS:
        raise InputError(f"{layers} layers", where=str(where), expected=f"at most {MOST_LAYERS}")
    if stored and described > 2 * stored:  # tied weights may be stored once; none: loading says so
        raise InputError(
            f"a model of {described} parameters, and the files hold {stored}", where=str(where), expected="theirs"
        )


def _values(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        return sum(torch.Size(tensors.get_slice(key).get_shape()).numel() for key in tensors.keys())  # noqa: SIM118


def _no_judge(error: Exception, folder: Path) -> InputError:
    first_line = next(iter(str(error).strip().splitlines()), repr(error))
    return InputError(
        f"the judge can't be loaded: {first_line}",
        where=str(folder),
        expected="config.json of a causal language model that transformers knows, and its weights as safetensors",
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder's tokenizer.json, without truncation and padding.

    Raises:
        InputError: it is missing or can't be read.
    """
    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for a file it can't parse
        raise InputError(f"the judge's tokenizer can't be read: {error}", where=str(file)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_end_of_text(model: PreTrainedModel, folder: Path) -> None:
    eos = model.config.eos_token_id
    if not isinstance(eos, int) or not 0 <= eos < int(model.config.vocab_size):
        raise InputError(
            f"eos_token_id is {eos!r}",
            where=str(folder / "config.json"),
            expected=f"one end-of-text token, 0 to {int(model.config.vocab_size) - 1}",
        )


@torch.inference_mode()
def _check_head(model: PreTrainedModel, folder: Path) -> None:
    """The judge's logits must be its head on its trunk's output: not so where logits are scaled or capped."""
    ids = torch.arange(min(8, int(model.config.vocab_size)))[None]
    hidden = model.base_model(ids).last_hidden_state
    if not torch.allclose(output_head(model)(hidden), model(ids).logits, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"a {type(model).__name__} changes its logits after the output head",
            where=str(folder),
            expected="a judge whose logits are the linear head's, such as GPT-2's",
        )
