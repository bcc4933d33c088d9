"""Answers of a tiny model: what is written, that nothing else in a run changes them, and that a killed run goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import stages.code_generate
from softmask.backbones.chat_tokenizer import load_chat_tokenizer
from softmask.backbones.dream_adapter import save_adapter
from softmask.backbones.dream_checkpoint import save_dream
from softmask.decoding import dream_decoder
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.feedback_kinds import FeedbackKind, Interpolation
from stages.code_generate import STAGE
from tests.softmask.tiny_chat import IDS, write_published_tokenizer
from tests.softmask.tiny_dream import tiny_dream

ROOT = Path(__file__).parents[2]
SIZES = {"micro_iid": 5, "arithmetic": 3}
COMPUTE = {
    **{"device": "cpu", "threads": 1, "precision": "fp32", "deterministic": True, "processes": 1},
    **{"fsdp": False, "head_chunk": 64},
}


def cell(name: str, **changes: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("tokens_per_step", "threshold", "block_length", "refresh_every", "sets"))
    return {"name": name, "nfe_ratio": name, "cache": "none", **empty, **changes}


GENERATION: dict[str, Any] = {
    **{"seed": 1, "batch_size": 2, "algorithm": "entropy", "temperature": 0.7, "top_p": 0.9, "top_k": None},
    **{"alg_temp": None, "omega_schedule": "constant", "eos_rule": "free", "stop_at_end": False, "eps": 0.001},
    "tasks": {
        "micro_iid": {"response_length": 8, "instruction": "{request}\n{prompt}", "prefill": "```\n"},
        "arithmetic": {"response_length": 4, "instruction": "{request}", "prefill": ""},
    },
    "cells": [
        cell("1/2"),
        cell("1/1"),
        cell("1/2 dual", nfe_ratio="1/2", cache="dual", block_length=4, sets=["micro_iid"]),
    ],
}


def problem(name: str, number: int) -> dict[str, Any]:
    """A problem of either kind; requests differ in length."""
    request = f"Add {'one and ' * number}two"
    place = {"set": name, "task_id": f"{name}/{number}", "request": request}
    if name == "arithmetic":
        return {**place, "kind": "math", "answer": str(number + 2)}
    return {
        **place,
        "kind": "code",
        "prompt": f'def add{number}():\n    """{request}"""\n',
        "entry_point": f"add{number}",
        "canonical_solution": f"    return {number + 2}\n",
        **{"contract": "", "base_input": [[]], "plus_input": [[]], "atol": 0, "check": None},
        **{"base_expected": [number + 2], "plus_expected": [number + 2]},
    }


def write(root: Path, **changes: Any) -> Path:
    """A folder with a tiny family `tiny`: base, an SM adapter `sm-1`, tokenizer, problems, params."""
    family = root / "models/dream/tiny"
    special = {"pad_token_id": IDS["<|endoftext|>"], "bos_token_id": IDS["<|beginoftext|>"]}
    special |= {"eos_token_id": IDS["<|endoftext|>"], "mask_token_id": IDS["<|mask|>"]}
    tokenizer = load_chat_tokenizer(write_published_tokenizer(family / "tokenizer"))
    model = tiny_dream(vocab_size=tokenizer.size, max_position_embeddings=512, **special)
    save_dream(model, family / "base/model")
    save_adapter(family / "base/adapter", None, None)
    soft_mask = SoftMask(
        omega_s=0.9,
        omega_a=2.0,
        omega_b=-4.0,
        temperature=1.0,
        kind=FeedbackKind.TOP_K,
        interpolation=Interpolation.LINEAR,
        k=3,
    )
    save_adapter(family / "sm-1/adapter", None, soft_mask)
    problems = root / "data/code/problems"
    problems.mkdir(parents=True)
    for name, size in SIZES.items():
        lines = [json.dumps(problem(name, number)) for number in range(size)]
        (problems / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "data/check").mkdir()
    (root / "data/check/valid.json").write_text("{}", encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {code_generate: {deps: []}}\n", encoding="utf-8")
    write_params(root, **changes)
    return root


def write_params(root: Path, sets: Sequence[str] = tuple(SIZES), **changes: Any) -> None:
    """params.yaml with changes of `code.generation`."""
    code = {"problem_sets": {"sets": list(sets)}, "generation": {**GENERATION, **changes}}
    (root / "params.yaml").write_text(yaml.safe_dump({"compute": COMPUTE, "code": code}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny family; the current folder."""
    monkeypatch.chdir(write(tmp_path))
    return tmp_path


def generate(model: str = "base") -> list[dict[str, Any]]:
    """Run the stage here; the samples."""
    STAGE.execute({"family": "tiny", "model": model})
    file = Path(f"data/code/samples/tiny/{model}/samples.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def by_place(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(sample["set"], sample["cell"], sample["task_id"]): sample for sample in samples}


def test_every_problem_of_every_set_and_cell_has_one_answer_in_order(folder: Path) -> None:
    places = list(by_place(generate()))
    assert places == [
        *(("micro_iid", name, f"micro_iid/{i}") for name in ("1/2", "1/1", "1/2 dual") for i in range(5)),
        *(("arithmetic", name, f"arithmetic/{i}") for name in ("1/2", "1/1") for i in range(3)),
    ]


def test_a_sample_says_what_was_made_and_what_it_took(folder: Path) -> None:
    tokenizer = load_chat_tokenizer(folder / "models/dream/tiny/tokenizer")
    for sample in generate():
        length, steps = len(sample["ids"]), {"1/1": 1, "1/2": 2}[sample["cell"].split()[0]]
        assert length == GENERATION["tasks"][sample["set"]]["response_length"]
        assert sample["forwards"] == length // steps
        whole = sample["forwards"] * (sample["prompt_tokens"] + length)
        assert sample["positions"] == whole or ("dual" in sample["cell"] and sample["positions"] < whole)
        ends = [i for i, token in enumerate(sample["ids"]) if token in tokenizer.end_token_ids]
        assert (sample["ended"], sample["tokens"]) == (bool(ends), ends[0] if ends else length)
        assert sample["text"] == tokenizer.decode(sample["ids"][: sample["tokens"]])
        assert sample["prefill"] == GENERATION["tasks"][sample["set"]]["prefill"]


def test_the_prompt_is_the_instruction_of_params(folder: Path) -> None:
    tokenizer = load_chat_tokenizer(folder / "models/dream/tiny/tokenizer")
    made = problem("micro_iid", 3)
    content = made["request"] + "\n" + made["prompt"]
    wanted = tokenizer.prompt_ids([{"role": "user", "content": content}], "```\n")
    assert by_place(generate())["micro_iid", "1/2", "micro_iid/3"]["prompt_tokens"] == len(wanted)


def test_costs_are_the_samples_sums(folder: Path) -> None:
    samples = generate()
    costs = json.loads(Path("data/code/samples/tiny/base/costs.json").read_text())
    assert (costs["family"], costs["model"], len(costs["cells"])) == ("tiny", "base", 5)
    for cost in costs["cells"]:
        own = [s for s in samples if (s["set"], s["cell"]) == (cost["set"], cost["cell"])]
        assert cost["problems"] == len(own)
        assert cost["forwards"] == sum(s["forwards"] for s in own)
        assert cost["positions"] == sum(s["positions"] for s in own)
    flops = {(cost["set"], cost["cell"]): cost["flops"] for cost in costs["cells"]}
    assert flops["micro_iid", "1/2 dual"] < flops["micro_iid", "1/2"] < flops["micro_iid", "1/1"]
    counts = json.loads(Path("data/code/samples/tiny/base/manifest.json").read_text())["counts"]
    assert (counts["samples"], counts["flops"]) == (len(samples), sum(flops.values()))


def test_batches_change_no_answer(folder: Path) -> None:
    together = generate()
    for size in (1, 5):
        write_params(folder, batch_size=size)
        assert generate() == together


def test_other_sets_cells_and_problems_change_no_answer(folder: Path) -> None:
    whole = by_place(generate())
    file = folder / "data/code/problems/arithmetic.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    write_params(folder, sets=["arithmetic"], cells=[cell("1/1")])
    alone = by_place(generate())
    assert len(alone) == 2
    assert {place: whole[place] for place in alone} == alone


def test_seeds_and_cells_change_answers_and_models_share_their_noise(folder: Path) -> None:
    first = by_place(generate())
    assert [s["ids"] for s in by_place(generate("sm-1")).values()] != [s["ids"] for s in first.values()]
    write_params(folder, seed=2)
    assert [s["ids"] for s in by_place(generate()).values()] != [s["ids"] for s in first.values()]


def test_feedback_costs_no_forward(folder: Path) -> None:
    soft, plain = generate("sm-1"), generate()
    assert [s["forwards"] for s in soft] == [s["forwards"] for s in plain]
    assert [s["positions"] for s in soft] == [s["positions"] for s in plain]


def test_only_the_sets_of_params_are_read(folder: Path) -> None:
    (folder / "data/code/problems/stale.jsonl").write_text("no problem\n")
    generate()
    manifest = json.loads(Path("data/code/samples/tiny/base/manifest.json").read_text())
    read = [name for name in manifest["inputs"] if "problems" in name]
    assert read == [f"data/code/problems/{name}.jsonl" for name in sorted(SIZES)]


def test_a_tokenizer_of_another_model_is_named(folder: Path) -> None:
    save_dream(tiny_dream(), folder / "models/dream/tiny/base/model")
    with pytest.raises(InputError, match=r"models/dream/tiny/tokenizer: has .* ids and the mask"):
        generate()


def test_finished_batches_are_not_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = generate()
    decode: Callable[..., Any] = dream_decoder.decode
    calls: list[int] = []

    def counting(limit: int, *arguments: Any) -> Any:
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(len(arguments[2]))
        return decode(*arguments)

    monkeypatch.setattr(stages.code_generate, "decode", partial(counting, 4))
    with pytest.raises(KeyboardInterrupt):
        generate()
    monkeypatch.setattr(stages.code_generate, "decode", partial(counting, 100))
    assert generate() == undisturbed
    assert sum(calls) == len(undisturbed)


@pytest.mark.slow
def test_generation_killed_half_way_goes_on_where_it_stopped(folder: Path, tmp_path_factory: Any) -> None:
    """With batches of one, as the paper's: no problem is answered twice but the one that was under way."""
    write_params(folder, batch_size=1)
    command = [sys.executable, "-m", "stages.code_generate", "--family", "tiny", "--model", "sm-1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (units := list(folder.glob(".checkpoints/*/units/*.json"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    units = list(folder.glob(".checkpoints/*/units/*.json"))
    assert 0 < len(units) < 21
    kept = {file: file.stat().st_mtime_ns for file in units}
    seen: dict[Path, int] = {}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # the stage has finished and clears its units
            for file in folder.glob(".checkpoints/*/units/*.json"):
                seen[file] = file.stat().st_mtime_ns
    assert process.returncode == 0
    assert {file: seen[file] for file in kept} == kept
    again = (folder / "data/code/samples/tiny/sm-1/samples.jsonl").read_bytes()
    whole = write(tmp_path_factory.mktemp("undisturbed"), batch_size=1)
    subprocess.run(command, cwd=whole, env=environment, check=True, capture_output=True)
    assert (whole / "data/code/samples/tiny/sm-1/samples.jsonl").read_bytes() == again
