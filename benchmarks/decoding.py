"""Decoding at Dream's sizes: the mixing of soft-masking, what it adds to a step, and what a block-wise cache saves.

Random weights: times and memory do not depend on their values. All ratios are of medians from one run, in turns.
"""

import gc
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.table import Cost, Measured, alternate, peak_mib
from softmask.backbones.dream import DreamConfig, DreamModel
from softmask.decoding.dream_decoder import decode
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.decoding.dream_settings import DreamDecoding
from softmask.diffusion import pieces
from softmask.feedback import SoftMask, concatenate, negative_entropy, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule

LENGTH, VOCABULARY, HIDDEN, DREAM_LAYERS = 512, 152_064, 3584, 28
"""Dream's shapes; the length is the issue's."""
K, CHUNK = 3, 64
LAYERS, PROMPT, RESPONSE, STEPS, TURNS = 2, 32, 128, 2, 9
"""Of the step at Dream's widths: two layers, embedding and head take 6.2 GiB in float32. Short tasks and many turns,
because the difference is smaller than what a busy neighbour adds to one of them."""
MEDIUM = DreamConfig(
    vocab_size=8192,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    mask_token_id=8191,
    pad_token_id=8190,
    bos_token_id=8190,
    eos_token_id=8190,
)
"""The model that caches are compared on: full decodes at Dream's widths would take hours here."""
MEDIUM_PROMPT, MEDIUM_RESPONSE, BLOCK, MEDIUM_STEPS = 128, 256, 32, 128
REPEATS = 3


def measure() -> list[Measured]:
    """All three comparisons: five to ten minutes, and 7 GiB of memory."""
    rows = []
    for part in (mixing, step, caches):
        with torch.no_grad():
            rows += part()
        gc.collect()
    return rows


def mixing() -> list[Measured]:
    """The sparse mixture of one step against the official code's dense product, all positions masked."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.empty(VOCABULARY, HIDDEN).normal_(generator=generator)
    logits, mask_id = 3 * torch.randn(LENGTH, VOCABULARY, generator=generator), VOCABULARY - 1
    soft_mask = _soft_mask()
    ids = torch.full((LENGTH,), mask_id)
    tasks = [
        partial(_sparse, soft_mask, logits, embedding, mask_id),
        partial(_dense, soft_mask, logits, embedding, ids),
    ]
    torch.testing.assert_close(tasks[0](), tasks[1](), atol=1e-3, rtol=1e-3)
    sparse, dense = alternate(tasks, REPEATS)
    small, large = map(peak_mib, tasks)
    shapes = f"length {LENGTH}, vocabulary {VOCABULARY:,}, hidden {HIDDEN:,}, k = {K}, float32, all masked"
    return [Measured("Dream mixing, sparse", Cost(sparse, small), "dense", Cost(dense, large), 0.1, shapes)]


def step() -> list[Measured]:
    """A soft-masked decoding step against a binary one, at Dream's widths, and what follows for all its layers."""
    model, soft_mask = _model(DreamConfig(num_hidden_layers=LAYERS)), _soft_mask()
    tasks = [
        partial(_decode, model, None, PROMPT, RESPONSE, _settings(STEPS)),
        partial(_decode, model, soft_mask, PROMPT, RESPONSE, _settings(STEPS)),
        partial(model.hidden, torch.zeros(1, PROMPT + RESPONSE, HIDDEN)),
    ]
    binary, soft, trunk = alternate(tasks, TURNS)
    binary, soft = binary / STEPS, soft / STEPS
    others = trunk * (DREAM_LAYERS - LAYERS) / LAYERS
    measured = f"{STEPS} steps over {RESPONSE} tokens after {PROMPT}, mean; float32"
    extrapolated = f"{DREAM_LAYERS - LAYERS} more layers of {trunk / LAYERS:.2f} s each, measured on {LAYERS}"
    steps = ((LAYERS, 0.0, None, measured), (DREAM_LAYERS, others, 1.03, extrapolated))
    return [
        Measured(f"Dream step SM, {n} layers", Cost(soft + more), "binary step", Cost(binary + more), at_most, how)
        for n, more, at_most, how in steps
    ]


def caches() -> list[Measured]:
    """Whole decodes with each cache against none, in the same order of blocks; binary and soft-masked."""
    model, rows = _model(MEDIUM), []
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    for name, soft_mask in (("binary", None), ("SM", _soft_mask())):
        modes = [CacheMode.NONE, CacheMode.PREFIX, CacheMode.DUAL]
        every = [replace(_settings(MEDIUM_STEPS), cache=mode, block_length=BLOCK) for mode in modes]
        tasks = [partial(_decode, model, soft_mask, MEDIUM_PROMPT, MEDIUM_RESPONSE, how) for how in every]
        none, *cached = alternate(tasks, REPEATS)
        note = f"{MEDIUM_RESPONSE} tokens in {MEDIUM_STEPS} steps; {size:.0f}M parameters, blocks of {BLOCK}"
        for mode, seconds in zip(modes[1:], cached, strict=True):
            at_most = 1 / 3 if mode is CacheMode.DUAL else None
            against = f"{name} decode, no cache"
            rows.append(Measured(f"{name} decode, {mode} cache", Cost(seconds), against, Cost(none), at_most, note))
    return rows


def _sparse(soft_mask: SoftMask, logits: Tensor, embedding: Tensor, mask_id: int) -> Tensor:
    """What the decoder does, from logits on: guesses of chunks of rows, then k + 1 embeddings each."""
    chunks = (pieces(part.log_softmax(-1)) for part in logits.split(CHUNK))
    guesses = concatenate([top_k_guesses(piece, soft_mask.k) for chunk in chunks for piece in chunk])
    mixed: Tensor = soft_mask(guesses, embedding, embedding[mask_id])
    return mixed


def _dense(soft_mask: SoftMask, logits: Tensor, embedding: Tensor, ids: Tensor) -> Tensor:
    """What the official code does: one-hot and top-k rows over the vocabulary, times the embedding matrix."""
    one_hot = F.one_hot(ids, logits.shape[-1]).to(logits.dtype)
    lam = soft_mask.lam(negative_entropy(logits.log_softmax(-1)))[:, None]
    top = logits.topk(soft_mask.k, dim=-1)
    pi = torch.zeros_like(logits).scatter_(-1, top.indices, top.values.softmax(-1))
    return ((1 - lam) * one_hot + lam * pi) @ embedding


def _soft_mask() -> SoftMask:
    return SoftMask(
        omega_s=0.9,
        omega_a=2.0,
        omega_b=-2.0,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=K,
    )


def _model(config: DreamConfig) -> DreamModel:
    """Random weights, made in place: initialising them twice would take longer than the measurement."""
    with torch.device("meta"):
        model = DreamModel(config)
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(1.0)
        else:
            parameter.uniform_(-0.05, 0.05)
    model.train(False)
    return model


def _settings(steps: int) -> DreamDecoding:
    return DreamDecoding(
        algorithm=Algorithm.ENTROPY,
        steps=steps,
        threshold=None,
        temperature=0.0,
        top_p=None,
        top_k=None,
        alg_temp=None,
        eps=1e-3,
        omega_schedule=OmegaSchedule.CONSTANT,
        eos_rule=EosRule.FREE,
        end_ids=(),
        stop_at_end=False,
        cache=CacheMode.NONE,
        block_length=None,
        refresh_every=None,
        head_chunk=CHUNK,
    )


def _decode(
    model: DreamModel, soft_mask: SoftMask | None, prompt: int, response: int, settings: DreamDecoding
) -> Tensor:
    return decode(model, soft_mask, [list(range(prompt))], response, settings, [torch.Generator()]).tokens
