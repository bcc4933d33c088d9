"""Parity of Dream's decoder with reference decodes and mixtures, step by step; files as in test_golden.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from softmask.decoding.dream_decoder import DreamStepView, decode
from softmask.decoding.dream_kinds import Algorithm, CacheMode, EosRule
from softmask.decoding.dream_settings import DreamDecoding
from softmask.feedback import FullGuesses, Guesses, SoftMask, top_k_guesses
from softmask.feedback_kinds import FeedbackKind, Interpolation, OmegaSchedule
from tests.golden.test_golden import CHUNK, Golden, assert_log_probs, read
from tests.golden.test_golden_dream import dream_of, files_of
from tests.threads import threads

pytestmark = pytest.mark.golden

KINDS = {"mixinputs_with_topk": FeedbackKind.TOP_K, "mixinputs_with_temp": FeedbackKind.FULL}
"""Their name of a kind of feedback -> ours."""

RUNS = {"decode_run": ".history", "batch_run": ".padded_batch.sequence"}
"""Fixture -> the tensor of each run that it is for."""


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Another rounding turns the next token where two are a tie."""
    with threads(2):
        yield


def decode_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("dream_decode*.safetensors"))


def runs_of(path: Path, suffix: str) -> list[str]:
    """Runs that have a tensor with this suffix."""
    with safe_open(path, "pt") as file:
        return sorted(name.removesuffix(suffix) for name in file.keys() if name.endswith(suffix))  # noqa: SIM118


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.invocation_params.dir / metafunc.config.getoption("--golden-dir")
    for fixture, suffix in RUNS.items():
        if fixture in metafunc.fixturenames:
            cases = [(path, run) for path in decode_files(folder) for run in runs_of(path, suffix)]
            metafunc.parametrize(fixture, cases, ids=[run for _, run in cases])
    if "mixing_file" in metafunc.fixturenames:
        paths = sorted(folder.glob("mixing_*.safetensors"))
        metafunc.parametrize("mixing_file", paths, ids=[path.stem for path in paths])


def soft_mask_of(args: dict[str, Any] | None) -> SoftMask | None:
    if args is None:
        return None
    return SoftMask(
        omega_s=args["scale"],
        omega_a=args["steepness"],
        omega_b=args["offset"],
        temperature=args.get("mixinputs_temp", 1.0),
        kind=KINDS[args["sm_alg"]],
        k=args.get("mixinputs_k", 1),
        interpolation=Interpolation.LINEAR,
    )


def schedule_of(args: dict[str, Any] | None) -> OmegaSchedule:
    return OmegaSchedule((args or {}).get("sm_schedule", "constant"))


def settings_of(golden: Golden, run: str) -> DreamDecoding:
    asked = golden.settings["runs"][run]
    return DreamDecoding(
        algorithm=Algorithm(asked["alg"]),
        steps=asked["steps"],
        threshold=None,
        temperature=golden.settings["temperature"],
        top_p=None,
        top_k=None,
        alg_temp=None,
        eps=golden.settings["eps"],
        omega_schedule=schedule_of(asked["soft_mask"]),
        eos_rule=EosRule.FREE,
        end_ids=(),
        stop_at_end=False,
        cache=CacheMode.NONE,
        block_length=None,
        refresh_every=None,
        head_chunk=CHUNK,
    )


def decoded(golden: Golden, run: str, model: Golden, prompts: list[list[int]]) -> tuple[Tensor, list[Tensor]]:
    """Responses, and those after each step."""
    history: list[Tensor] = []

    def record(view: DreamStepView) -> None:
        history.append(view.tokens)

    soft_mask, length = soft_mask_of(golden.settings["runs"][run]["soft_mask"]), golden.settings["new_tokens"]
    generators = [torch.Generator() for _ in prompts]
    made = decode(dream_of(model), soft_mask, prompts, length, settings_of(golden, run), generators, record)
    assert made.forwards.tolist() == [golden.settings["runs"][run]["steps"]] * len(prompts)
    return made.tokens, history


def test_the_projects_own_folder_has_decodes_and_mixtures(golden_dir: Path) -> None:
    if golden_dir == Path(__file__).parent:
        assert [len(runs_of(path, ".history")) for path in decode_files(golden_dir)] == [54]
        assert len(list(golden_dir.glob("mixing_*"))) == 5


def test_a_decode_and_its_history(decode_run: tuple[Path, str]) -> None:
    path, run = decode_run
    golden, model = read(path), read(files_of(path.parent)[0])
    prompt = golden["prompt"]
    tokens, history = decoded(golden, run, model, prompt.tolist())
    start = prompt.shape[1]
    assert torch.equal(torch.cat(history), golden[f"{run}.history"][:, start:].long())
    assert torch.equal(tokens, golden[f"{run}.sequence"][:, start:])


def test_a_batch_of_prompts_of_different_lengths(batch_run: tuple[Path, str]) -> None:
    path, run = batch_run
    golden, model = read(path), read(files_of(path.parent)[0])
    visible = golden["padded_prompt_mask"].bool()
    prompts = [row[mask].tolist() for row, mask in zip(golden["padded_prompts"], visible, strict=True)]
    tokens, _ = decoded(golden, run, model, prompts)
    assert torch.equal(tokens, golden[f"{run}.padded_batch.sequence"][:, visible.shape[1] :])


def test_the_mixture_of_a_step(mixing_file: Path) -> None:
    golden = read(mixing_file)
    args, mask_id = golden.settings["args"], golden.settings["mask_token_id"]
    soft_mask = soft_mask_of(args)
    assert soft_mask is not None
    masked = golden["x"] == mask_id
    rows = golden["logits"].log_softmax(-1)[masked]
    # their schedules go by the masks of the whole batch over its length
    factor = schedule_of(args).factor(masked.sum() / golden.settings["max_gen_length"])
    guesses: Guesses = top_k_guesses(rows, soft_mask.k)
    if soft_mask.kind is FeedbackKind.FULL:
        guesses = FullGuesses(rows, lambda chunk: chunk, CHUNK)
    one_hot = torch.eye(rows.shape[-1])  # mixed one-hot vectors are the weights themselves
    mixed = one_hot[golden["x"]]
    with torch.no_grad():
        mixed[masked] = soft_mask(guesses, one_hot, one_hot[mask_id], factor)
    assert_log_probs(mixed, golden["mixing"])
