"""The diffusion transformer of MDLM (169M in the paper), as a transformers model with SDPA attention.

Parameter names are the public checkpoint's. The head is a function of rows, so that callers run it on the masked
positions only; the network knows nothing of losses, samplers or noise.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from softmask.backbones.loading import load_pretrained
from softmask.diffusion import log_prob_chunks, subs_log_probs
from softmask.errors import InputError
from softmask.feedback import FullGuesses, Guesses, SoftMask, TopKGuesses, concatenate, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, Interpolation

FREQUENCIES = 256
MAX_PERIOD = 10_000.0
MLP_RATIO = 4


class MdlmConfig(PreTrainedConfig):
    """Shape of an `Mdlm`.

    Args:
        vocab_size: with the mask token.
        mask_token_id: the mask token.
        length: L, the length that the model is trained at.
        hidden_size: H, also the embedding's width.
        n_blocks: transformer blocks.
        n_heads: attention heads.
        cond_dim: width of the (constant) conditioning.
        dropout: of both residual branches.
        soft_mask: arguments of `SoftMask`, or None for a binary model.
    """

    model_type = "softmask_mdlm"

    def __init__(
        self,
        vocab_size: int = 0,
        mask_token_id: int = 0,
        length: int = 0,
        hidden_size: int = 0,
        n_blocks: int = 0,
        n_heads: int = 1,
        cond_dim: int = 0,
        dropout: float = 0.0,
        soft_mask: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.mask_token_id, self.length = vocab_size, mask_token_id, length
        self.hidden_size, self.n_blocks, self.n_heads = hidden_size, n_blocks, n_heads
        self.cond_dim, self.dropout, self.soft_mask = cond_dim, dropout, soft_mask
        super().__init__(**kwargs)


class LayerNorm(nn.Module):
    """Layer norm with a weight and no bias, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim]` -> `[..., dim]`."""
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float()).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN modulation x (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)


class Rotary(nn.Module):
    """Rotary position embedding over half-split heads."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inv_freq", 1.0 / MAX_PERIOD**exponents)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each `[L, head_dim]` float32."""
        positions = torch.arange(length, device=self.inv_freq.device, dtype=torch.float32)
        angles = torch.outer(positions, self.inv_freq.float())
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `[B, heads, L, head_dim]` by position."""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-right, left], dim=-1) * sin).to(x.dtype)


class TimestepEmbedder(nn.Module):
    """Sinusoidal features of sigma through an MLP. MDLM is not time-conditioned: sigma is always 0."""

    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        first, second = nn.Linear(FREQUENCIES, cond_dim), nn.Linear(cond_dim, cond_dim)
        nn.init.normal_(first.weight, std=0.02)
        nn.init.normal_(second.weight, std=0.02)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, sigma: Tensor) -> Tensor:
        """`[n]` -> `[n, cond_dim]`."""
        half = FREQUENCIES // 2
        exponents = torch.arange(half, device=sigma.device, dtype=torch.float32) / half
        angles = sigma[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        out: Tensor = self.mlp(features.to(next(self.mlp.parameters()).dtype))
        return out


class Block(nn.Module):
    """A transformer block with adaLN-zero conditioning and bidirectional attention."""

    def __init__(self, config: MdlmConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.norm1 = LayerNorm(dim)
        self.attn_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.norm2 = LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, MLP_RATIO * dim), nn.GELU(approximate="tanh"), nn.Linear(MLP_RATIO * dim, dim)
        )
        self.adaLN_modulation = _zero_linear(config.cond_dim, 6 * dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cond: Tensor, rows: Tensor | None = None) -> Tensor:
        """`[B, L, H]` -> `[B, L, H]`, or `[m, H]` of the positions `rows` `[B, L]` bool, which attend to all."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(cond).chunk(6, dim=-1)
        attended = self._attend(modulate(self.norm1(x), shift_a, scale_a), cos, sin)
        if rows is not None:
            x, attended = x[rows], attended[rows]
        x = torch.addcmul(x, gate_a, self._drop(self.attn_out(attended)))
        return torch.addcmul(x, gate_m, self._drop(self.mlp(modulate(self.norm2(x), shift_m, scale_m))))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.attn_qkv(x).view(batch, length, 3, self.n_heads, dim // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return out.transpose(1, 2).reshape(batch, length, dim)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class OutputLayer(nn.Module):
    """Final norm, modulation and the projection to logits."""

    def __init__(self, config: MdlmConfig) -> None:
        super().__init__()
        self.norm_final = LayerNorm(config.hidden_size)
        self.linear = _zero_linear(config.hidden_size, config.vocab_size)
        self.adaLN_modulation = _zero_linear(config.cond_dim, 2 * config.hidden_size)


class Embedding(nn.Module):
    """The token embeddings, `embedding` `[V, H]`."""

    def __init__(self, config: MdlmConfig) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))


class DiT(nn.Module):
    """The backbone, in three parts: embeddings -> trunk -> head on rows."""

    def __init__(self, config: MdlmConfig) -> None:
        super().__init__()
        self.vocab_embed = Embedding(config)
        self.sigma_map = TimestepEmbedder(config.cond_dim)
        self.rotary_emb = Rotary(config.hidden_size // config.n_heads)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_blocks)])
        self.output_layer = OutputLayer(config)

    def conditioning(self) -> Tensor:
        """`[1, cond_dim]`, constant because sigma is 0."""
        return F.silu(self.sigma_map(torch.zeros(1, device=self.rotary_emb.inv_freq.device)))

    def trunk(self, embeddings: Tensor, rows: Tensor | None = None) -> Tensor:
        """Input embeddings `[B, L, H]` -> last hidden states `[B, L, H]`, or `[m, H]` of the positions `rows`.

        After its attention the last block runs on `rows` `[B, L]` bool only: no other position sees what it makes.
        """
        cos, sin = self.rotary_emb(embeddings.shape[1])
        cond, x = self.conditioning(), embeddings
        for block in self.blocks[:-1]:
            x = block(x, cos, sin, cond)
        last: Tensor = self.blocks[-1](x, cos, sin, cond, rows)
        return last

    def head_input(self, hidden: Tensor) -> Tensor:
        """Rows `[m, H]` of hidden states, normed and modulated, as they enter the head's linear layer."""
        shift, scale = self.output_layer.adaLN_modulation(self.conditioning()).chunk(2, dim=-1)
        return modulate(self.output_layer.norm_final(hidden), shift, scale)

    def head(self, hidden: Tensor) -> Tensor:
        """Rows `[m, H]` of hidden states -> logits `[m, V]`."""
        logits: Tensor = self.output_layer.linear(self.head_input(hidden))
        return logits


class Mdlm(PreTrainedModel):
    """A masked diffusion language model: the DiT, and a soft mask if it was trained with one."""

    config_class = MdlmConfig
    config: MdlmConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True

    def __init__(self, config: MdlmConfig) -> None:
        super().__init__(config)
        self.backbone = DiT(config)
        self.soft_mask: SoftMask | None = None
        if config.soft_mask is not None:
            kind = FeedbackKind(config.soft_mask["kind"])
            interpolation = Interpolation(config.soft_mask["interpolation"])
            self.soft_mask = SoftMask(**{**config.soft_mask, "kind": kind, "interpolation": interpolation})
        self.post_init()  # type: ignore[no-untyped-call]

    def check_vocabulary(self, size: int, where: Path) -> None:
        """Raise an InputError that names `where` if the vocabulary there, of `size` ids, isn't the model's."""
        if size != self.config.vocab_size:
            raise InputError(
                f"its vocabulary has {size} ids, the model's {self.config.vocab_size}",
                where=str(where),
                expected="what the model was trained on",
            )

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: each module's constructor has initialised it as the reference does."""

    def embed(self, x_t: Tensor, guesses: Guesses | None = None, omega_s_factor: Tensor | float = 1.0) -> Tensor:
        """Input embeddings `[B, L, H]` of `x_t` `[B, L]`.

        Args:
            x_t: token ids with masks.
            guesses: of the previous pass, one row for each mask in row-major order; None for the binary path.
            omega_s_factor: a schedule's factor, scalar or one for each mask.
        """
        table = self.backbone.vocab_embed.embedding
        if guesses is None:
            return F.embedding(x_t, table)
        assert self.soft_mask is not None, "a binary model takes no feedback"
        if isinstance(guesses, TopKGuesses) and self.soft_mask.interpolation is Interpolation.LINEAR:
            return self._embed_linearly(x_t, guesses, self.soft_mask.weights(guesses, omega_s_factor))
        mask_id, embeddings = int(self.config.mask_token_id), F.embedding(x_t, table)
        mixed = self.soft_mask(guesses, table, table[mask_id], omega_s_factor)
        return embeddings.masked_scatter((x_t == mask_id).unsqueeze(-1), mixed.to(embeddings.dtype))

    def _embed_linearly(self, x_t: Tensor, guesses: TopKGuesses, weights: Tensor) -> Tensor:
        """One bag a position, of its token or of the mask and its guesses: the table gets one gradient, not three."""
        table, masked = self.backbone.vocab_embed.embedding, (x_t == self.config.mask_token_id).flatten()
        sizes = torch.where(masked, weights.shape[-1], 1)
        starts = sizes.cumsum(0) - sizes
        bags = starts[masked, None] + torch.arange(weights.shape[-1], device=x_t.device)
        tokens = x_t.new_empty(int(sizes.sum()))
        tokens[starts] = x_t.flatten()  # a bag of guesses begins with the mask
        tokens[bags[:, 1:]] = guesses.indices
        shares = weights.new_ones(len(tokens)).index_put((bags,), weights).to(table.dtype)
        embeddings = F.embedding_bag(tokens, table, starts, mode="sum", per_sample_weights=shares)
        return embeddings.view(*x_t.shape, -1)

    def hidden(self, x_t: Tensor, guesses: Guesses | None = None, omega_s_factor: Tensor | float = 1.0) -> Tensor:
        """Last hidden states `[M, H]` of the masks in `x_t` `[B, L]`, row-major; arguments as in `embed`."""
        masked = x_t == self.config.mask_token_id
        return self.backbone.trunk(self.embed(x_t, guesses, omega_s_factor), masked)

    def log_probs(self, rows: Tensor) -> Tensor:
        """Hidden `rows` `[m, H]` -> log-probabilities `[m, V]` under SUBS."""
        return subs_log_probs(self.backbone.head(rows), int(self.config.mask_token_id))

    def guesses(self, rows: Tensor, chunk: int) -> Guesses:
        """The feedback that hidden `rows` `[M, H]` of masked positions leave, computed in chunks."""
        assert self.soft_mask is not None, "a binary model leaves no feedback"
        rows = rows.detach()
        if self.soft_mask.kind is FeedbackKind.FULL:
            return FullGuesses(rows, self.log_probs, chunk)
        parts = log_prob_chunks(rows, self.backbone.head, int(self.config.mask_token_id), chunk)
        return concatenate([top_k_guesses(log_probs, self.soft_mask.k) for _, log_probs in parts])

    def forward(self, x_t: Tensor, guesses: Guesses | None = None) -> Tensor:
        """Logits `[B, L, V]` of every position: for parity tests and small models; nothing in the pipeline calls it."""
        return self.backbone.head(self.backbone.trunk(self.embed(x_t, guesses)))


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def read(folder: Path) -> Mdlm:
    """A saved model, float32 on the CPU, from safetensors.

    Raises:
        InputError: a file is missing or damaged, it is another kind of model, or its weights don't fit its config.
    """
    wanted = "config.json and model.safetensors of an Mdlm"
    for file in (folder / "config.json", folder / "model.safetensors"):
        if not file.is_file():
            raise InputError("the file is missing", where=str(file))
    try:
        kind = PreTrainedConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
        if kind != MdlmConfig.model_type:
            raise InputError(f"model_type is {kind!r}", where=str(folder / "config.json"), expected=wanted)
        # mismatched sizes are in the report, and an error below
        loaded = load_pretrained(Mdlm, folder, ignore_mismatched_sizes=True, output_loading_info=True)
    except SafetensorError as error:
        raise InputError(f"damaged ({error})", where=str(folder / "model.safetensors")) from None
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:  # config.json may say anything
        first_line = next(iter(str(error).strip().splitlines()), repr(error))
        raise InputError(f"the model can't be loaded: {first_line}", where=str(folder), expected=wanted) from None
    model, report = loaded
    misshapen = [key for key, *_ in report["mismatched_keys"]]
    bad = sorted([*report["missing_keys"], *report["unexpected_keys"], *misshapen])
    if bad:
        what = f"{len(bad)} weights are missing, too many, or misshapen: {', '.join(bad[:5])}"
        raise InputError(what, where=str(folder), expected="those that config.json says")
    checked: Mdlm = model
    return checked


def load(folder: Path, device: torch.device) -> Mdlm:
    """A saved model in eval mode on `device`; errors as of `read`."""
    model = read(folder)
    model.train(False)
    model.to(device)  # type: ignore[arg-type]
    return model
