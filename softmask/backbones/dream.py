"""Dream: a Qwen2-shaped transformer with bidirectional attention whose logits are shifted by one (Dream-v0, 7B).

Parameter names are the published checkpoints'. The token at position i is predicted from the hidden state at i - 1
(`shifted`); the head is a function of rows, so that callers run it on the positions that they need. Knows nothing of
losses, decoding or noise.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm, apply_rotary_pos_emb

from softmask.diffusion import pieces
from softmask.feedback import FullGuesses, Guesses, SoftMask, concatenate, top_k_guesses
from softmask.feedback_kinds import FeedbackKind

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines, each `[B, T, head width]`."""


class DreamConfig(PreTrainedConfig):
    """Shape of a `DreamModel`; the fields are those of the published config.json.

    Args:
        vocab_size: V, rows of the embedding and the head; the tokenizer may have fewer.
        hidden_size: H.
        intermediate_size: width of the gated MLP.
        num_hidden_layers: transformer layers.
        num_attention_heads: query heads.
        num_key_value_heads: key and value heads, a divisor of the query heads.
        max_position_embeddings: longest sequence.
        rope_theta: base of the rotary frequencies.
        rms_norm_eps: of every norm.
        hidden_act: the MLP's activation.
        initializer_range: standard deviation of fresh weights.
        mask_token_id, pad_token_id, bos_token_id, eos_token_id: special tokens.
        tie_word_embeddings: the head is the embedding.
    """

    model_type = "Dream"

    def __init__(
        self,
        vocab_size: int = 152064,
        hidden_size: int = 3584,
        intermediate_size: int = 18944,
        num_hidden_layers: int = 28,
        num_attention_heads: int = 28,
        num_key_value_heads: int = 4,
        max_position_embeddings: int = 131072,
        rope_theta: float = 1e6,
        rms_norm_eps: float = 1e-6,
        hidden_act: str = "silu",
        initializer_range: float = 0.02,
        mask_token_id: int = 151666,
        pad_token_id: int = 151643,
        bos_token_id: int = 151643,
        eos_token_id: int = 151643,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.hidden_size, self.intermediate_size = vocab_size, hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads, self.max_position_embeddings = num_key_value_heads, max_position_embeddings
        self.rope_theta, self.rms_norm_eps, self.hidden_act = rope_theta, rms_norm_eps, hidden_act
        self.initializer_range, self.mask_token_id = initializer_range, mask_token_id
        special: dict[str, Any] = {
            "pad_token_id": pad_token_id,
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            "tie_word_embeddings": tie_word_embeddings,
        }
        super().__init__(**special, **kwargs)


class KeyValueCache(Protocol):
    """What a layer's attention sees beside the positions that are computed now."""

    def attend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take the rotated keys and the values `[B, heads, T, D]` of now; give all that queries attend to, `S` long."""
        ...


class Attention(nn.Module):
    """Bidirectional attention with grouped keys and values; biases on queries, keys and values only."""

    def __init__(self, config: DreamConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.groups = layer, config.num_attention_heads, config.num_key_value_heads
        self.width = config.hidden_size // self.heads
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.width)
        self.k_proj = nn.Linear(config.hidden_size, self.groups * self.width)
        self.v_proj = nn.Linear(config.hidden_size, self.groups * self.width)
        self.o_proj = nn.Linear(self.heads * self.width, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: Rotary, visible: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """`[B, T, H]` -> `[B, T, H]`; arguments as in `Layer`."""
        batch, length, _ = x.shape
        queries, keys, values = (
            projected.view(batch, length, -1, self.width).transpose(1, 2)
            for projected in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
        if cache is not None:
            keys, values = cache.attend(self.layer, keys, values)
        grouped = self.groups != self.heads
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, enable_gqa=grouped)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return output


class Layer(GradientCheckpointingLayer):
    """A pre-norm transformer layer."""

    def __init__(self, config: DreamConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = Qwen2MLP(config)
        self.input_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: Rotary, visible: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """`[B, T, H]` -> `[B, T, H]`; `visible` `[B, 1, 1, S]` is true at positions that may be attended to."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, visible, cache)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Trunk(nn.Module):
    """Embedding, layers and the last norm, under the published names."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class DreamModel(PreTrainedModel):
    """A masked diffusion language model in Dream's architecture. Its soft mask, if it has one, lives outside."""

    config_class = DreamConfig
    config: DreamConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012 - as in transformers
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - as in transformers
    _supports_sdpa = True
    is_gradient_checkpointing = PreTrainedModel.is_activation_checkpointing
    """Its old name, by which peft asks: transformers' own warns of it."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        embedding: nn.Module = self.model.embed_tokens
        return embedding

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.lm_head
        return head

    def embed(
        self,
        ids: Tensor,
        soft_mask: SoftMask | None = None,
        guesses: Guesses | None = None,
        where: Tensor | None = None,
        omega_s_factor: Tensor | float = 1.0,
    ) -> Tensor:
        """Input embeddings `[B, T, H]` of `ids` `[B, T]`.

        Args:
            ids: token ids with masks.
            soft_mask: with `guesses` and `where`, mixes the mask's embedding with those of the guesses.
            guesses: one row for each true entry of `where`, row-major; None for the binary path.
            where: `[B, T]` bool, the positions that are fed.
            omega_s_factor: a schedule's factor, scalar or `[M]`.
        """
        embeddings: Tensor = self.model.embed_tokens(ids)
        if guesses is None:
            return embeddings
        assert soft_mask is not None and where is not None, "feedback needs a soft mask and its positions"
        table = self.model.embed_tokens.weight
        mixed = soft_mask(guesses, table, table[int(self.config.mask_token_id)], omega_s_factor)
        return embeddings.masked_scatter(where.unsqueeze(-1), mixed.to(embeddings.dtype))

    def hidden(
        self,
        embeddings: Tensor,
        visible: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Last hidden states `[B, T, H]` of `embeddings` `[B, T, H]`.

        Args:
            embeddings: of the positions to compute.
            visible: `[B, S]` bool, false at padding; S is T, or longer with a cache.
            position_ids: `[B, T]`; None counts from 0.
            cache: gives keys and values of positions that are not computed.
        """
        if position_ids is None:
            position_ids = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        rotary = self._rotary(position_ids, embeddings.dtype)
        seen = None if visible is None else visible[:, None, None, :]
        x = embeddings
        for layer in self.model.layers:
            x = layer(x, rotary, seen, cache)
        output: Tensor = self.model.norm(x)
        return output

    def log_probs(self, rows: Tensor) -> Tensor:
        """Shifted hidden `rows` `[m, H]` -> float32 normalised log-probabilities `[m, V]`; the mask token has one."""
        return F.log_softmax(self.lm_head(rows).float(), dim=-1)

    def log_prob_pieces(self, rows: Tensor, chunk: int) -> Iterator[Tensor]:
        """Log-probabilities of all `rows` `[M, H]`, in order: the head in chunks, its output in pieces."""
        for part in rows.split(chunk):
            yield from pieces(self.log_probs(part))

    def guesses(self, rows: Tensor, soft_mask: SoftMask, chunk: int) -> Guesses:
        """The feedback that shifted hidden `rows` `[M, H]` of masked positions leave, computed in chunks, detached."""
        rows = rows.detach()
        if soft_mask.kind is FeedbackKind.FULL:
            return FullGuesses(rows, self.log_probs, chunk)
        with torch.no_grad():
            return concatenate([top_k_guesses(piece, soft_mask.k) for piece in self.log_prob_pieces(rows, chunk)])

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> MaskedLMOutput:
        """Logits `[B, T, V]` of every position, not shifted, as the published model gives them.

        For parity tests and small models: nothing in the pipeline makes logits of all positions.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "forward needs input_ids or inputs_embeds"
            inputs_embeds = self.embed(input_ids)
        visible = None if attention_mask is None else attention_mask.bool()
        return MaskedLMOutput(logits=self.lm_head(self.hidden(inputs_embeds, visible, position_ids)))

    def _rotary(self, position_ids: Tensor, dtype: torch.dtype) -> Rotary:
        # computed anew, in float32: a buffer would have to survive loading on the meta device
        width = self.config.hidden_size // self.config.num_attention_heads
        exponents = torch.arange(0, width, 2, device=position_ids.device, dtype=torch.float32) / width
        angles = position_ids[..., None].float() * self.config.rope_theta**-exponents
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def shifted(hidden: Tensor) -> Tensor:
    """Dream's shift: entry i of the result `[B, T, H]` is what predicts token i, the hidden state at i - 1.

    Position 0 has none before it and keeps its own (official code).
    """
    return torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1)


def position_ids_of(visible: Tensor) -> Tensor:
    """Position ids `[B, T]` of left-padded rows: each counts from 0 at its first token; padding has 1 (official)."""
    return (visible.long().cumsum(-1) - 1).masked_fill(~visible, 1)
