"""Parity with reference numbers: `pytest -m golden --golden-dir DIR` runs on any files in the format of tests/golden.

All settings come from the files' metadata and shapes. Tolerances in float32: logits and log-probabilities 1e-4
absolute, losses 1e-5 relative, gradients 1e-4 relative to their largest entry, tokens exact.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from softmask.backbones.dit import Mdlm, MdlmConfig
from softmask.decoding.kinds import Sampler
from softmask.decoding.sampling import gumbel_argmax, nucleus
from softmask.decoding.transitions import RemdmSettings, transition
from softmask.diffusion import LogLinear, antithetic_t, mask_tokens
from softmask.feedback import FullGuesses, Guesses, SoftMask, negative_entropy, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, Interpolation
from softmask.training.elbo import masked_nll
from softmask.training.ema import averaged
from softmask.training.soft_mask_objective import first_pass

pytestmark = pytest.mark.golden

KINDS = {"soft_mask": "soft_mask_*", "dit": "dit*", "sampler": "sampler_*", "ema": "ema*", "state_dict": "*state_dict*"}
"""Kind of file -> how its name begins, or what it contains."""
OMEGAS = {
    "raw_omega_s": "raw_scale",
    "raw_omega_a": "raw_steep",
    "raw_omega_b": "raw_centre_neg",
    "raw_temperature": "raw_temperature",
}
"""Our parameter -> its name in the files."""
CHUNK = 7
"""Rows a chunk: divides nothing, so that every loop over chunks has a rest."""


@dataclass(frozen=True)
class Golden:
    """One file: its tensors and its settings."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


def read(path: Path) -> Golden:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        return Golden(tensors, {name: json.loads(value) for name, value in (file.metadata() or {}).items()})


def files_of(folder: Path, kind: str) -> list[Path]:
    suffix = ".json" if kind == "state_dict" else ".safetensors"
    return sorted(folder.glob(KINDS[kind] + suffix))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each file of the kind that a test asks for; a kind without files is no case and no failure."""
    config = metafunc.config
    folder = config.invocation_params.dir / config.getoption("--golden-dir")
    for kind in KINDS:
        if f"{kind}_file" in metafunc.fixturenames:
            paths = files_of(folder, kind)
            metafunc.parametrize(f"{kind}_file", paths, ids=[path.stem for path in paths])


def test_the_folder_holds_reference_numbers(golden_dir: Path) -> None:
    found = {kind: files_of(golden_dir, kind) for kind in KINDS}
    assert any(found.values()), f"{golden_dir}: no reference files; expected names like {sorted(KINDS.values())}"
    assert golden_dir != Path(__file__).parent or all(found.values()), "tests/golden has every kind"


def feedback_kind(settings: dict[str, Any]) -> FeedbackKind:
    return FeedbackKind.FULL if str(settings["feedback"]).startswith("full") else FeedbackKind.TOP_K


def soft_mask_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a `SoftMask` whose parameters are set afterwards."""
    values = {"omega_s": 0.5, "omega_a": 1.0, "omega_b": -1.0, "temperature": 1.0}
    return {**values, "kind": feedback_kind(settings).value, "k": int(settings["k"]), "interpolation": "linear"}


def set_omegas(module: SoftMask, golden: Golden, prefix: str = "") -> None:
    with torch.no_grad():
        for ours, theirs in OMEGAS.items():
            if prefix + theirs in golden.tensors:
                getattr(module, ours).copy_(golden[prefix + theirs])


def assert_gradient(ours: Tensor | None, reference: Tensor, name: str) -> None:
    assert ours is not None, f"{name} has no gradient"
    error = (ours - reference).abs().max() / reference.abs().max()
    assert error < 1e-4, f"{name}: relative error {error:.2e}"


def assert_log_probs(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, atol=1e-4, rtol=0)


def assert_loss(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=0)


# The soft mask


def soft_mask_of(golden: Golden) -> tuple[SoftMask, Guesses, Tensor]:
    """The module with the file's parameters, the guesses of the masked rows, and where they are `[B, L]`."""
    arguments = soft_mask_arguments(golden.settings)
    kinds = {"kind": FeedbackKind(arguments["kind"]), "interpolation": Interpolation.LINEAR}
    module = SoftMask(**{**arguments, **kinds})
    set_omegas(module, golden)
    masked = golden["input_ids"] == golden.settings["mask_token_id"]
    rows = golden["log_probs"][masked]
    if module.kind is FeedbackKind.FULL:
        return module, FullGuesses(rows, lambda chunk: chunk, CHUNK), masked
    return module, top_k_guesses(rows, module.k), masked


def test_the_constrained_parameters(soft_mask_file: Path) -> None:
    golden = read(soft_mask_file)
    ours = soft_mask_of(golden)[0].omegas()
    names = {"omega_s": "scale", "omega_a": "steepness", "omega_b": "centre", "temperature": "temperature"}
    for name, theirs in names.items():
        assert ours[name] == pytest.approx(golden[theirs].item(), rel=1e-5)


def test_entropy_and_lambda(soft_mask_file: Path) -> None:
    golden = read(soft_mask_file)
    module, guesses, masked = soft_mask_of(golden)
    if isinstance(guesses, FullGuesses):
        tempered = torch.log_softmax(golden["log_probs"][masked] / golden["temperature"], -1)
        neg_entropy = negative_entropy(tempered)
    else:
        neg_entropy = guesses.neg_entropy
    assert_log_probs(neg_entropy, golden["neg_entropy"][masked])
    with torch.no_grad():
        assert_log_probs(module.lam_of(guesses), golden["lam"][masked])


def dense_reference(golden: Golden) -> Tensor:
    """The file's mixture as weights over the vocabulary, `[B, L, V]`."""
    if "mix_dense" in golden.tensors:
        return golden["mix_dense"]
    weights = torch.zeros_like(golden["log_probs"])
    return weights.scatter_add_(-1, golden["mix_indices"], golden["mix_weights"])


def test_the_mixture(soft_mask_file: Path) -> None:
    golden = read(soft_mask_file)
    module, guesses, masked = soft_mask_of(golden)
    one_hot = torch.eye(golden["embedding"].shape[0])  # mixed one-hot vectors are the weights themselves
    with torch.no_grad():
        weights = module(guesses, one_hot, one_hot[golden.settings["mask_token_id"]])
    assert_log_probs(weights, dense_reference(golden)[masked])


def test_the_mixed_embedding_and_the_gradients_of_the_omegas(soft_mask_file: Path) -> None:
    golden = read(soft_mask_file)
    module, guesses, masked = soft_mask_of(golden)
    embedding = golden["embedding"]
    x = embedding[golden["input_ids"]].clone()
    x[masked] = module(guesses, embedding, embedding[golden.settings["mask_token_id"]])
    assert_log_probs(x.detach(), golden["mixed_embedding"])
    (x * golden["loss_weight"]).sum().backward()
    for ours, theirs in OMEGAS.items():
        if f"grad_{theirs}" in golden.tensors:
            assert_gradient(getattr(module, ours).grad, golden[f"grad_{theirs}"], ours)


# The diffusion transformer


def dit_of(golden: Golden) -> Mdlm:
    shape = golden.settings
    config = MdlmConfig(
        vocab_size=shape["vocab_size"],
        mask_token_id=shape["mask_token_id"],
        length=shape["length"],
        hidden_size=shape["hidden_size"],
        n_blocks=shape["n_blocks"],
        n_heads=shape["n_heads"],
        cond_dim=shape["cond_dim"],
        soft_mask=soft_mask_arguments(shape["head"]),
    )
    model = Mdlm(config)
    model.train(False)
    state = {
        name.removeprefix("state."): tensor for name, tensor in golden.tensors.items() if name.startswith("state.")
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith("soft_mask.") or "inv_freq" in name for name in missing)
    assert model.soft_mask is not None
    set_omegas(model.soft_mask, golden, "head.")
    return model


def test_dit_logits(dit_file: Path) -> None:
    golden = read(dit_file)
    with torch.no_grad():
        assert_log_probs(dit_of(golden)(golden["input_ids"]), golden["logits"])


def test_dit_log_probabilities_before_and_after_feedback(dit_file: Path) -> None:
    golden = read(dit_file)
    model, x = dit_of(golden), golden["input_ids"]
    masked = x == golden.settings["mask_token_id"]
    tokens = [v for v in range(golden.settings["vocab_size"]) if v != golden.settings["mask_token_id"]]
    with torch.no_grad():
        hidden = model.hidden(x)
        fed = model.hidden(x, model.guesses(hidden, CHUNK))
        for rows, name in ((hidden, "log_probs_subs"), (fed, "log_probs_soft_masked")):
            assert_log_probs(model.log_probs(rows)[:, tokens], golden[name][masked][:, tokens])


def noise_of(golden: Golden) -> LogLinear:
    """alpha_t's slope gives its eps."""
    return LogLinear(1 + golden["nll_dalpha_t"].double().mean().item())


def test_noise_and_masking(dit_file: Path) -> None:
    golden = read(dit_file)
    noise, t = noise_of(golden), golden["nll_t"]
    alpha_t = noise.alpha(t)[:, None]
    torch.testing.assert_close(alpha_t, golden["nll_alpha_t"].reshape(alpha_t.shape), rtol=1e-5, atol=1e-6)
    x_t = mask_tokens(golden["x0"], 1 - alpha_t, golden["nll_uniform"], golden.settings["mask_token_id"])
    assert torch.equal(x_t, golden["nll_x_t"])


def test_antithetic_times(dit_file: Path) -> None:
    golden = read(dit_file)
    u, t = golden["antithetic_uniform"], golden["antithetic_t"]
    even = antithetic_t(u.double(), 0.0)
    first = int(even.argmin())
    sampling_eps = float((t[first] - even[first]) / (1 - even[first]))  # t = (1 - eps) even + eps
    torch.testing.assert_close(antithetic_t(u, sampling_eps), t, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", ["binary", "soft_masked"])
def test_nll(dit_file: Path, path: str) -> None:
    golden = read(dit_file)
    model, x_t, x0 = dit_of(golden), golden["nll_x_t"], golden["x0"]
    masked, w = x_t == golden.settings["mask_token_id"], noise_of(golden).nll_weight(golden["nll_t"])
    guesses = first_pass(model, x_t, CHUNK) if path == "soft_masked" else None
    with torch.no_grad():
        total, nll = masked_nll(model, x0, x_t, w, guesses, CHUNK)
    reference = golden[f"nll_per_token_{path}"]
    assert not reference[~masked].any()
    torch.testing.assert_close(w[:, None].expand_as(x_t)[masked] * nll, reference[masked], rtol=1e-5, atol=1e-4)
    assert_loss(total / x0.numel(), golden[f"nll_mean_{path}"])


def test_gradients_of_the_soft_masked_nll(dit_file: Path) -> None:
    golden = read(dit_file)
    model, x_t, x0 = dit_of(golden), golden["nll_x_t"], golden["x0"]
    w = noise_of(golden).nll_weight(golden["nll_t"])
    total, _ = masked_nll(model, x0, x_t, w, first_pass(model, x_t, CHUNK), CHUNK)
    (total / x0.numel()).backward()
    parameters = dict(model.named_parameters())
    ours_of = {f"tran_head.{theirs}": f"soft_mask.{ours}" for ours, theirs in OMEGAS.items()}
    names = [name.removeprefix("grad.") for name in golden.tensors if name.startswith("grad.")]
    assert names
    for name in names:
        assert_gradient(parameters[ours_of.get(name, name)].grad, golden[f"grad.{name}"], name)


def test_parameter_count_and_state_dict_of_the_published_configuration(state_dict_file: Path) -> None:
    reference = json.loads(state_dict_file.read_text(encoding="utf-8"))
    shapes = reference["state_dict"]
    (vocab_size, hidden_size) = shapes["backbone.vocab_embed.embedding"]
    blocks = {name.split(".")[2] for name in shapes if name.startswith("backbone.blocks.")}
    config = MdlmConfig(
        vocab_size=vocab_size,
        mask_token_id=vocab_size - 1,
        length=1024,
        hidden_size=hidden_size,
        n_blocks=len(blocks),
        n_heads=hidden_size // (2 * shapes["backbone.rotary_emb.inv_freq"][0]),
        cond_dim=shapes["backbone.sigma_map.mlp.2.bias"][0],
        dropout=0.1,
    )
    with torch.device("meta"):
        model = Mdlm(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == reference["parameters"]
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == shapes


# The samplers


def shortest(value: Tensor) -> float:
    """A float32 as the decimal that it was written as: 0.55, not 0.55000001, which is beyond a threshold of 0.55."""
    return float(str(np.float32(value.item())))


def nucleus_of(golden: Golden) -> Tensor:
    """Our nucleus of a step `[B, L, V]`."""
    probs = golden["log_probs"].exp()
    kept, indices = nucleus(probs, golden.settings["nucleus_p"])
    return torch.zeros_like(probs).scatter(-1, indices, kept)


def test_nucleus(sampler_file: Path) -> None:
    golden = read(sampler_file)
    ours = nucleus_of(golden)
    assert_log_probs(ours, golden["probs_nucleus"])
    assert torch.equal(ours > 0, golden["probs_nucleus"] > 0)


def step_weights(golden: Golden) -> tuple[Tensor, bool]:
    """Our normalised weights of a step `[B, L, V]` float64, and whether unmasked positions keep their token."""
    settings = golden.settings
    remdm = RemdmSettings(settings["eta"], settings["t_on"], settings["t_off"], settings["alpha_on"])
    step = transition(Sampler(settings["sampler"]), shortest(golden["t"]), shortest(golden["dt"]), remdm)
    mask_id = settings["mask_token_id"]
    is_masked = (golden["x"] == mask_id)[..., None]
    moves = torch.where(is_masked, step.unmask, 1 - step.remask).double()
    weights = nucleus_of(golden).double() * moves
    weights[..., mask_id] = 1 - moves[..., 0]
    return weights, step.remask == 0


def test_the_weights_of_a_step(sampler_file: Path) -> None:
    golden = read(sampler_file)
    weights, keeps = step_weights(golden)
    masked = golden["x"] == golden.settings["mask_token_id"]
    rows = masked if keeps else torch.ones_like(masked)
    reference = golden["weights"].double()
    reference = reference / reference.sum(-1, keepdim=True)
    torch.testing.assert_close(weights[rows], reference[rows], atol=1e-6, rtol=1e-4)


def test_the_tokens_of_a_step(sampler_file: Path) -> None:
    golden = read(sampler_file)
    weights, keeps = step_weights(golden)
    x_next = gumbel_argmax(weights, golden["uniform"])
    if keeps:
        x_next = torch.where(golden["x"] == golden.settings["mask_token_id"], x_next, golden["x"])
    assert torch.equal(x_next, golden["x_next"])


# The moving average


def test_ema(ema_file: Path) -> None:
    golden = read(ema_file)
    steps = golden["params"]
    model = torch.nn.Linear(steps.shape[1], 1, bias=False)

    def set_to(step: int) -> None:
        with torch.no_grad():
            model.weight.copy_(steps[step : step + 1])

    set_to(0)
    ema = averaged(model, golden.settings["decay"])
    torch.testing.assert_close(ema.module.get_parameter("weight").detach()[0], golden["shadow"][0])
    for step in range(1, len(steps)):
        set_to(step)
        ema.update_parameters(model)
        torch.testing.assert_close(ema.module.get_parameter("weight").detach()[0], golden["shadow"][step])
