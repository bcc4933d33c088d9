"""Wrong params.yaml files: each is one plain message that names file, key, value and what was expected; exit code 2.

Nothing is computed and nothing is lost: what earlier runs left in the folder is the same afterwards, byte by byte.
"""

import copy
import datetime
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from dvc.utils.serialize import load_yaml

from runner.imported import PACKAGES
from runner.section import read_yaml
from runner.stage import Stage, StageParams
from softmask.errors import InputError
from stages.check import STAGE
from stages.params.arms import ArmParams
from stages.params.compute import ComputeParams

ROOT = Path(__file__).parents[2]
GONE = object()
"""In a change: the key is taken out."""
JARGON = (
    "Value error",
    "Input should",
    "String should",
    "List should",
    "Tuple",
    "after validation",
    "Traceback",
    "pydantic",
)
SOFT_MASK = "arms.settings.sm_iso_update.soft_mask"
SECTIONS = (
    "profile, seeds, compute, corpus, tokenizer, tokens, judge, model, diffusion, base, arms, sampling, evaluation"
)
COMPUTE = "a section with device, threads, precision, deterministic, processes, fsdp, head_chunk"
DIGITS = "a commit's 40 hexadecimal digits (no branch or tag)"
CELL = {"sampler": "mdlm", "nfe": 8, "eta": None}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The values of the smoke profile."""
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    compose_and_dump(str(file), str(ROOT / "conf"), None, "config", "hydra_plugins", ["profile=smoke"])
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return values


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the code and with what earlier runs left: outputs, and a checkpoint of unfinished work."""
    for name in (*PACKAGES, "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in (
        "data/check/valid.json",
        "models/mdlm/base/model/model.safetensors",
        ".checkpoints/arm-1/units/a.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check"])
    return tmp_path


def left_behind(project: Path) -> dict[str, bytes]:
    found = (path for part in ("data", "models", ".checkpoints") for path in (project / part).rglob("*"))
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in found if path.is_file()}


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The values with other ones at dotted keys."""
    values = copy.deepcopy(values)
    for dotted, new in changes.items():
        *parents, last = dotted.split(".")
        place: Any = values
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if new is GONE:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = new
    return values


def complaint(project: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that `python -m stages.check` prints about a params.yaml; what holds for all of them is tested here."""
    if content is not None:
        (project / "params.yaml").write_bytes(content)
    before = left_behind(project)
    with pytest.raises(SystemExit) as exit_:
        STAGE.main()
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and not out
    assert left_behind(project) == before
    assert err.startswith("error: params.yaml") and not any(word in err for word in JARGON)
    lines = err.removeprefix("error: ").splitlines()
    assert len(set(lines)) == len(lines) and all(line.startswith("params.yaml") for line in lines)
    return lines


CASES: dict[str, tuple[dict[str, Any], str]] = {
    # Keys
    "an unknown section": (
        {"bogus": 1},
        f"bogus: unknown key (value 1); expected one of {SECTIONS}, compare, report, code, orchestration, retrain, "
        "lineage",
    ),
    "a tolerance of everything": (
        {"lineage.tolerance.relative": 1.0},
        "lineage.tolerance.relative: 1.0 is wrong; expected less than 1",
    ),
    "an unknown key": (
        {"compute.gpus": 2},
        "compute.gpus: unknown key (value 2); expected one of device, threads, ...",
    ),
    "a number as a key": ({"1": 2}, "1: unknown key (value 2); expected one of profile, ..."),
    "a near spelling of a key": (
        {"base.training.learning_rat": 0.1},
        "base.training.learning_rat: unknown key (value 0.1); expected a key of this section. "
        "Did you mean learning_rate?",
    ),
    "a near spelling of a section": (
        {"sampler": {}},
        "sampler: unknown key (value {}); expected a key of this section. Did you mean sampling?",
    ),
    "a missing section": ({"compute": GONE}, f"compute: missing; expected {COMPUTE}"),
    "a missing key": (
        {"tokens.length": GONE},
        "tokens.length: missing; expected a value (Tokens in a row: the length of everything that is trained and "
        "generated)",
    ),
    "a missing key, deep down": (
        {f"{SOFT_MASK}.omega_b": GONE},
        f"{SOFT_MASK}.omega_b: missing; expected a value (Initial confidence threshold, in nats of negative entropy)",
    ),
    # Types
    "a quoted number for a whole one": (
        {"compute.threads": "2"},
        "compute.threads: '2' is wrong; expected a whole number. Write 2, without quotes",
    ),
    "letters for a number": ({"compute.threads": "two"}, "compute.threads: 'two' is wrong; expected a whole number"),
    "true for a whole number": ({"compute.threads": True}, "compute.threads: true is wrong; expected a whole number"),
    "a fraction for a whole number": ({"tokens.length": 6.5}, "tokens.length: 6.5 is wrong; expected a whole number"),
    "a point in a whole number": (
        {"tokens.length": 64.0},
        "tokens.length: 64.0 is wrong; expected a whole number. Write 64, without quotes",
    ),
    "null where there must be a number": (
        {"base.seed": None},
        "base.seed: null is wrong; expected a whole number",
    ),
    "a list for a number": ({"base.seed": [1]}, "base.seed: [1] is wrong; expected a whole number"),
    "a number for a list": ({"seeds": 1}, "seeds: 1 is wrong; expected a list"),
    "one name for a list": ({"arms.names": "binary"}, "arms.names: 'binary' is wrong; expected a list"),
    "letters in a list of seeds": ({"seeds": [1, "b"]}, "seeds.1: 'b' is wrong; expected a whole number"),
    "a number in quotes": (
        {"base.training.learning_rate": "0.002"},
        "base.training.learning_rate: '0.002' is wrong; expected a number. Write 0.002, without quotes",
    ),
    "a number for text": (
        {"corpus.package_sources.version": 4.4},
        "corpus.package_sources.version: 4.4 is wrong; expected text. Put it in quotes: '4.4'",
    ),
    "yes in quotes for true": ({"compute.fsdp": "yes"}, "compute.fsdp: 'yes' is wrong; expected true or false"),
    "null for a section": ({"compute": None}, f"compute: null is wrong; expected {COMPUTE}"),
    "a number for a section that may be null": (
        {SOFT_MASK: 3},
        f"{SOFT_MASK}: 3 is wrong; expected a section with p_sm, kind, k, interpolation, omega_s, omega_a, omega_b, "
        "temperature, omega_learning_rate, or null",
    ),
    "letters where a number or null may be": (
        {"corpus.hub.documents": "all"},
        "corpus.hub.documents: 'all' is wrong; expected a whole number, or null",
    ),
    "letters where a number or one word may be": (
        {"evaluation.mauve.num_buckets": "some"},
        "evaluation.mauve.num_buckets: 'some' is wrong; expected 'auto' or a whole number",
    ),
    "a date": (
        {"corpus.hub.config": datetime.date(2026, 1, 2)},
        "corpus.hub.config: 2026-01-02 is a date; expected a number, true, false, null or text. "
        "Put it in quotes if it is text",
    ),
    "not a number": (
        {"base.training.learning_rate": math.nan},
        "base.training.learning_rate: NaN is wrong; expected a finite number",
    ),
    "infinity": (
        {"base.training.max_grad_norm": math.inf},
        "base.training.max_grad_norm: Infinity is wrong; expected a finite number",
    ),
    # Ranges
    "no thread": ({"compute.threads": 0}, "compute.threads: 0 is wrong; expected at least 1"),
    "a learning rate of zero": (
        {"arms.training.learning_rate": 0.0},
        "arms.training.learning_rate: 0.0 is wrong; expected more than 0",
    ),
    "a negative seed": ({"seeds": [1, -1]}, "seeds.1: -1 is wrong; expected at least 0"),
    "a seed that no generator takes": (
        {"base.seed": 2**70},
        "base.seed: 1180591620717411303424 is wrong; expected at most 1000000000",
    ),
    "a negative seed of k-means": (
        {"evaluation.mauve.seeds": [1, -7]},
        "evaluation.mauve.seeds.1: -7 is wrong; expected at least 0",
    ),
    "a probability above one": ({f"{SOFT_MASK}.p_sm": 1.5}, f"{SOFT_MASK}.p_sm: 1.5 is wrong; expected at most 1"),
    "no guess to feed back": ({f"{SOFT_MASK}.k": 0}, f"{SOFT_MASK}.k: 0 is wrong; expected at least 1"),
    "a positive threshold": (
        {f"{SOFT_MASK}.omega_b": 1.0},
        f"{SOFT_MASK}.omega_b: 1.0 is wrong; expected less than -1e-05",
    ),
    "one Monte Carlo draw": ({"evaluation.draws": 1}, "evaluation.draws: 1 is wrong; expected at least 2"),
    "a nucleus above one": ({"sampling.nucleus_p": 1.01}, "sampling.nucleus_p: 1.01 is wrong; expected at most 1"),
    "a vocabulary smaller than the bytes": (
        {"tokenizer.train.kind": "bpe", "tokenizer.train.vocab_size": 256},
        "tokenizer.train.vocab_size: 256 is wrong; expected at least 257, or null",
    ),
    "rows longer than any": (
        {"tokens.length": 2**20 + 1},
        "tokens.length: 1048577 is wrong; expected at most 1048576",
    ),
    # Lists
    "no seed": ({"seeds": []}, "seeds: [] is wrong; expected at least 1 item"),
    "no cell": ({"sampling.cells": []}, "sampling.cells: [] is wrong; expected at least 1 item"),
    "one seed of k-means": (
        {"evaluation.mauve.seeds": [1]},
        "evaluation.mauve.seeds: [1] is wrong; expected at least 2 items",
    ),
    "one beta": ({"base.training.betas": [0.9]}, "base.training.betas: [0.9] is too short; expected at least 2 items"),
    "three betas": (
        {"base.training.betas": [0.9, 0.99, 0.999]},
        "base.training.betas: [0.9, 0.99, 0.999] is wrong; expected at most 2 items",
    ),
    "a beta of one": (
        {"base.training.betas": [0.9, 1.0]},
        "base.training.betas [0.9, 1.0] are wrong; expected two numbers from 0 to below 1",
    ),
    "a repeated seed": ({"seeds": [1, 1]}, "seeds [1, 1] has a repeated seed; expected each once"),
    "a repeated seed of k-means": (
        {"evaluation.mauve.seeds": [2, 2]},
        "evaluation.mauve.seeds [2, 2] has a repeated seed; expected each once",
    ),
    "bins out of order": (
        {"evaluation.entropy_bins": [1.0, 0.5]},
        "evaluation.entropy_bins [1.0, 0.5] is out of order; expected each edge above the one before",
    ),
    # Names and choices
    "a profile's name with a space": (
        {"profile": "My run"},
        "profile: 'My run' is wrong; expected lower-case letters, digits and _, a letter first",
    ),
    "an arm without settings": (
        {"arms.names": ["binary", "sm_iso"]},
        "arms.names 'sm_iso' has no settings; expected a key of arms.settings: binary, ...",
    ),
    "an arm's name with a dash": (
        {"arms.names": ["sm-iso"]},
        "arms.names 'sm-iso' is no arm's name; expected lower-case letters, digits and _, a letter first, and not "
        "'base'",
    ),
    "an arm that is called base": ({"arms.names": ["base"]}, "arms.names 'base' is no arm's name; expected ..."),
    "a repeated arm": (
        {"arms.names": ["binary", "binary"]},
        "arms.names ['binary', 'binary'] has a repeated name; expected each arm once",
    ),
    "an unknown sampler": (
        {"sampling.cells.0.sampler": "ddim"},
        "sampling.cells.0.sampler: 'ddim' is wrong; expected 'mdlm', 'remdm-cap', 'remdm-loop' or 'mdlm_two_pass'",
    ),
    "a near spelling of a sampler": (
        {"sampling.cells.0.sampler": "remdm_cap"},
        "sampling.cells.0.sampler: 'remdm_cap' is wrong; expected 'mdlm', 'remdm-cap', 'remdm-loop' or "
        "'mdlm_two_pass'. Did you mean remdm-cap?",
    ),
    "an unknown sampler to compare with": (
        {"compare.baseline_sampler": "ddim"},
        "compare.baseline_sampler 'ddim' is no sampler; expected one of mdlm, remdm-cap, remdm-loop, mdlm_two_pass",
    ),
    "an unknown device": ({"compute.device": "gpu"}, "compute.device: 'gpu' is wrong; expected 'cpu' or 'cuda'"),
    "an unknown budget": (
        {"arms.settings.binary.budget": "all"},
        "arms.settings.binary.budget: 'all' is wrong; expected 'same_updates', 'half', 'expected_forwards', "
        "'expected_flops' or 'none'",
    ),
    "a branch for a dataset's commit": (
        {"corpus.hub.revision": "main"},
        f"corpus.hub.revision: 'main' is wrong; expected {DIGITS}",
    ),
    "a short commit of the judge": (
        {"judge.hub.revision": "32b71b1"},
        f"judge.hub.revision: '32b71b1' is wrong; expected {DIGITS}",
    ),
    # Impossible combinations
    "a batch that can't be accumulated": (
        {"base.training.batch_size": 16, "base.training.accumulation": 3},
        "base.training.batch_size 16 is not a multiple of accumulation 3; expected micro-batches of equal size",
    ),
    "a micro-batch that can't be dealt to the processes": (
        {
            "compute.processes": 8,
            "arms.training.batch_size": 16,
            "arms.training.accumulation": 4,
            "code.finetuning.training.accumulation": 1,
        },
        "arms.training.batch_size 16 with accumulation 4 can't be dealt to compute.processes 8; expected a divisor of "
        "batch_size / accumulation",
    ),
    "a warm-up longer than the training": (
        {"base.training.warmup_steps": 31},
        "base.training.warmup_steps 31 with steps 30 is never reached; expected at most steps",
    ),
    "a warm-up longer than an arm": (
        {"arms.training.warmup_steps": 7, "arms.settings.binary.budget": "half"},
        "arms.settings.binary.budget 'half' makes 6 steps, and warmup_steps is 7; expected at most as many",
    ),
    "a warm-up longer than an arm of the code study": (
        {"code.finetuning.training.warmup_steps": 5, "code.arms.settings.sm.budget": "half"},
        "code.arms.settings.sm.budget 'half' makes 4 steps, and warmup_steps is 5; expected at most as many",
    ),
    "millions of steps to sample": (
        {"sampling.cells.1.nfe": 5_000_000},
        "sampling.cells.1.nfe: 5000000 is wrong; expected at most 100000",
    ),
    "a temperature that divides by nothing": (
        {"sampling.temperature": 1e-300},
        "sampling.temperature: 1e-300 is wrong; expected at least 0.001",
    ),
    "a temperature of answers that divides by nothing": (
        {"code.generation.temperature": 1e-300},
        "code.generation.temperature 1e-300 is wrong; expected 0, or at least 0.001",
    ),
    "a ratio that has no end": (
        {"code.generation.cells.0.nfe_ratio": " 1e99999999"},
        "code.generation.cells.0.nfe_ratio ' 1e99999999' is wrong; expected a fraction above 0 and up to 1, such as "
        "'1/4'",
    ),
    "a width that nothing holds": (
        {"model.hidden_size": 128_000_000_000},
        "model.hidden_size 128000000000 with n_blocks 1 makes 2.0e+23 parameters, about; expected at most 1e+11",
    ),
    "a judge that nothing holds": (
        {"judge.train.intermediate_size": 128_000_000_000},
        "judge.train.hidden_size 32 with intermediate_size 128000000000 and n_layers 1 makes 1.2e+13 parameters, ...",
    ),
    "a Dream that nothing holds": (
        {"code.settings.micro.base.model.hidden_size": 128_000_000_000},
        "code.settings.micro.base.model.hidden_size 128000000000 with intermediate_size 64 and n_layers 1 makes ...",
    ),
    "more layers than there are": (
        {"model.n_blocks": 10**9},
        "model.n_blocks: 1000000000 is wrong; expected at most 1024",
    ),
    "more guesses than the vocabulary has": (
        {"code.arms.settings.sm.soft_mask.k": 321},
        "code.arms.settings.sm.soft_mask.k 321 is more than the 320 ids of the vocabulary; expected a few",
    ),
    "more guesses to draw from than the vocabulary has": (
        {"code.generation.top_k": 321},
        "code.generation.top_k 321 is more than the 320 ids there are; expected a few, or null",
    ),
    "an adapter wider than its base": (
        {"code.finetuning.adapter.rank": 33},
        "code.finetuning.adapter.rank 33 is more than settings.micro.base.model.hidden_size 32; expected at most that",
    ),
    "answers longer than the base reads": (
        {"code.settings.micro.base.model.max_length": 256, "code.instructions.max_length": 257},
        "code.instructions.max_length 257 is more than settings.micro.base.model.max_length 256; expected at most that",
    ),
    "chats that are all too short": (
        {"code.instructions.min_response_tokens": 256},
        "code.instructions.min_response_tokens 256 with max_length 256 leaves no chat; expected less than max_length",
    ),
    "chats for validation alone": (
        {"code.instructions.validation_examples": 260},
        "code.instructions.validation_examples 260 leaves none of the 260 chats of micro for training; expected fewer",
    ),
    "more guesses shown than kept": (
        {"report.trace_guesses": 4},
        "report.trace_guesses 4 with sampling.trace.guesses 3 is impossible; expected at most as many as are kept",
    ),
    "more snapshots than steps": (
        {"report.trace_snapshots": 65},
        "report.trace_snapshots 65 with trace_steps 64 is impossible; expected at most trace_steps",
    ),
    "more retries than Prefect plans": (
        {"orchestration.retries": 51},
        "orchestration.retries: 51 is wrong; expected at most 50",
    ),
    "a loop without its last phase": (
        {"sampling.final_t": 0.05},
        "sampling.loop.t_off 0.05 with final_t 0.05 leaves no last phase; expected it above",
    ),
    "more output than memory": (
        {"code.scoring.sandbox.output_mib": 100, "code.scoring.sandbox.memory_mib": 64},
        "code.scoring.sandbox.output_mib 100 with memory_mib 64 is impossible; expected at most that",
    ),
    "NUL in a name": (
        {"corpus.files.paths": ["a\0b"]},
        "corpus.files.paths.0: 'a\\x00b' has NUL; expected text",
    ),
    "half a character": (
        {"corpus.package_sources.package": "sym\ud800"},
        "corpus.package_sources.package: 'sym\\ud800' is no Unicode; expected text",
    ),
    "bf16 on a CPU": (
        {"compute.precision": "bf16"},
        "compute.precision 'bf16' with device 'cpu' is impossible; expected fp32 on a CPU",
    ),
    "an evaluation grid that goes backwards": (
        {"code.finetuning.training.evaluation.t_low": 0.9},
        "code.finetuning.training.evaluation.t_high 0.8 is below t_low 0.9; expected at least that",
    ),
    "no learning rate for Muon": (
        {"code.settings.micro.base.training.muon_learning_rate": 0},
        "code.settings.micro.base.training.muon_learning_rate: 0 is wrong; expected more than 0, or null",
    ),
    "shards on one process": (
        {"compute.fsdp": True},
        "compute.fsdp true with processes 1 is impossible; expected processes of 2 and more",
    ),
    "heads that don't divide the width": (
        {"model.hidden_size": 36, "model.n_heads": 4},
        "model.hidden_size 36 can't be split into 4 heads of even width; expected a multiple of 2 x n_heads",
    ),
    "heads that don't divide the judge's width": (
        {"judge.train.hidden_size": 36, "judge.train.n_heads": 4},
        "judge.train.hidden_size 36 with n_heads 4 is impossible; expected a multiple of 2 x n_heads ...",
    ),
    "a report of samples that nobody makes": (
        {"sampling.cells": [CELL], "report.nfe": 9},
        "report.sampler 'mdlm' with report.nfe 9 is not generated; expected one of sampling.cells: mdlm with 8",
    ),
    "a trace of a cell that isn't there": (
        {"sampling.cells": [CELL], "sampling.trace.cell": 1},
        "sampling.trace.cell 1 is no entry of cells; expected 0 to 0",
    ),
    "a repeated cell": (
        {"sampling.cells": [CELL, CELL]},
        "sampling.cells has sampler 'mdlm' with nfe 8 twice; expected each sampler and nfe once",
    ),
    "a loop that remasks more than it can unmask": (
        {"sampling.cells": [CELL, {"sampler": "remdm-loop", "nfe": 32, "eta": 0.5}]},
        "sampling.cells has sampler 'remdm-loop' with nfe 32 and eta 0.5, which needs a "
        "probability of 4.500 to unmask; ...",
    ),
    "a loop of too few steps": (
        {"sampling.cells": [CELL, {"sampler": "remdm-loop", "nfe": 1, "eta": 0.02}]},
        "sampling.cells has sampler 'remdm-loop' with nfe 1 and eta 0.02, which needs a "
        "probability of 1.998 to unmask; ...",
    ),
    "a loop that ends before it begins": (
        {"sampling.loop.t_on": 0.5, "sampling.loop.t_off": 0.5},
        "sampling.loop.t_off 0.5 with t_on 0.5 is impossible; expected t_off < t_on",
    ),
    "eta for an ancestral sampler": (
        {"sampling.cells.0": {**CELL, "eta": 0.1}},
        "sampling.cells.0.eta 0.1 with sampler 'mdlm' has no effect; expected null",
    ),
    "no eta for a remasking sampler": (
        {"sampling.cells.0": {**CELL, "sampler": "remdm-loop"}},
        "sampling.cells.0.eta null with sampler 'remdm-loop' is impossible; expected a number from 0 to 1",
    ),
    "feedback of the whole vocabulary at remasked positions": (
        {f"{SOFT_MASK}.kind": "full", "sampling.remask_feedback": "previous_token"},
        f"sampling.remask_feedback 'previous_token' with {SOFT_MASK}.kind 'full' is impossible for the remasking "
        "samplers; expected remask_feedback mask",
    ),
    "a scratch report of arms that continue": (
        {"report.regime": "scratch"},
        "report.regime 'scratch' with base.source 'train' is impossible; expected scratch with initialise, and "
        "continuation with the others",
    ),
    "an arm to promote that nobody trains": (
        {"retrain.arm": "sm_iso_compute"},
        "retrain.arm 'sm_iso_compute' is not trained; expected one of arms.names: binary, sm_iso_update",
    ),
    "a seed to promote that nobody trains": (
        {"retrain.seed": 2},
        "retrain.seed 2 is not trained; expected one of seeds: 1",
    ),
    "feedback to measure without a soft mask": (
        {"retrain.arm": "binary"},
        "retrain.promotion with 'nll_without_feedback' is impossible for retrain.arm 'binary', which has no soft mask; "
        "expected nll alone",
    ),
    "an unknown metric to improve": (
        {"retrain.promotion.metric": "mauve"},
        "retrain.promotion.metric: 'mauve' is wrong; expected 'nll' or 'nll_without_feedback'",
    ),
    "a guard of what has to improve": (
        {"retrain.promotion.guards.0.metric": "nll"},
        "retrain.promotion.guards has 'nll', which is what has to improve; expected another metric",
    ),
    "a negative improvement": (
        {"retrain.promotion.minimum_improvement": -0.1},
        "retrain.promotion.minimum_improvement: -0.1 is wrong; expected at least 0",
    ),
    "new documents without a character": (
        {"retrain.snapshot.longest": 0},
        "retrain.snapshot.longest: 0 is wrong; expected at least 1",
    ),
    "a stride that leaves tokens out": (
        {"evaluation.judge.max_length": 32, "evaluation.judge.stride": 33},
        "evaluation.judge.stride 33 with max_length 32 would leave tokens out; expected a stride of at most max_length",
    ),
    "windows longer than the judge reads": (
        {"tokens.length": 64, "evaluation.judge.max_length": 65},
        "evaluation.judge.max_length 65 with judge.source 'train' is impossible: the judge reads as many tokens as a "
        "row has; expected at most tokens.length 64",
    ),
    "more clusters than samples": (
        {"evaluation.mauve.num_buckets": 13, "evaluation.mauve.min_samples": 12},
        "evaluation.mauve.num_buckets 13 with min_samples 12 is wrong; expected auto, or 2 to min_samples",
    ),
    "a vocabulary's size for characters": (
        {"tokenizer.train.kind": "characters", "tokenizer.train.vocab_size": 1000},
        "tokenizer.train.vocab_size 1000 with kind 'characters' is impossible; expected null",
    ),
    "no vocabulary's size for BPE": (
        {"tokenizer.train.kind": "bpe"},
        "tokenizer.train.vocab_size null with kind 'bpe' is impossible; expected 257 or more",
    ),
    "files without a glob": (
        {"corpus.source": "files", "corpus.files.paths": []},
        "corpus.files.paths [] with source 'files' is impossible; expected at least one glob",
    ),
    "an empty glob": (
        {"corpus.files.paths": ["data/texts/*.txt", ""]},
        "corpus.files.paths.1: '' is wrong; expected at least 1 character",
    ),
    "more validation than there is": (
        {"corpus.hub.documents": 10, "corpus.hub.validation_documents": 10},
        "corpus.hub.validation_documents 10 leaves no training text; expected fewer than documents 10",
    ),
    "a checkpoint from nowhere": (
        {"base.source": "checkpoint"},
        "base.source 'checkpoint' with checkpoint.path null and checkpoint.repo null is impossible; expected one of "
        "them",
    ),
    "a checkpoint from two places": (
        {"base.checkpoint": {"layout": "hub", "path": "x", "repo": "a/b", "revision": "0" * 40, "filename": None}},
        "base.checkpoint.path 'x' with repo 'a/b' is impossible; expected one of them to be null",
    ),
    "a repository without its commit": (
        {"base.checkpoint": {"layout": "hub", "path": None, "repo": "a/b", "revision": None, "filename": None}},
        "base.checkpoint.repo 'a/b' with revision null is impossible; expected the commit's 40 digits",
    ),
    "a tag for a checkpoint's commit": (
        {"base.checkpoint.revision": "v1"},
        f"base.checkpoint.revision: 'v1' is wrong; expected {DIGITS}, or null",
    ),
    "raw weights of a hub checkpoint": (
        {
            "base.source": "checkpoint",
            "base.weights": "raw",
            "base.checkpoint": {"layout": "hub", "path": "x", "repo": None, "revision": None, "filename": None},
        },
        "base.weights 'raw' with checkpoint.layout 'hub' is impossible, it has the EMA weights only; expected ema",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_value_is_one_line_with_key_value_and_expectation(
    name: str, smoke: dict[str, Any], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = CASES[name]
    content = yaml.safe_dump(changed(smoke, changes), sort_keys=False).encode()
    (line,) = complaint(project, content, capsys)
    assert "; expected " in line
    if expected.endswith("..."):
        assert line.startswith(f"params.yaml: {expected.removesuffix('...').rstrip()}")
    else:
        assert line == f"params.yaml: {expected}"


def test_all_mistakes_of_a_file_are_told_at_once(
    smoke: dict[str, Any], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"sead": [1], "compute.threads": "x", "model.hidden_size": 37, "base.seed": -1, "base.weights": "mean"}
    lines = complaint(project, yaml.safe_dump(changed(smoke, wrong)).encode(), capsys)
    named = {line.removeprefix("params.yaml: ").split()[0].rstrip(":") for line in lines}
    assert named == set(wrong)


def test_all_impossible_combinations_are_told_at_once(
    smoke: dict[str, Any], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"seeds": [1, 1], "report.nfe": 77, "report.regime": "scratch", "compare.baseline_sampler": "ddim"}
    lines = complaint(project, yaml.safe_dump(changed(smoke, wrong)).encode(), capsys)
    assert [line.split()[1] for line in lines] == [
        "seeds",
        "report.sampler",
        "report.regime",
        "compare.baseline_sampler",
    ]


GOOD = b"seeds:\n- 1\ncompute:\n  threads: 1\n"

BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9)) for letter in b"bcdefghij"
)
"""Nine to the tenth."""
FILES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", ": the file is empty; expected a mapping of sections"),
    "comments only": (b"# nothing\n", ": the file is empty; expected a mapping of sections"),
    "a list": (b"- a\n- b\n", ": it holds a list; expected a mapping of sections"),
    "a sentence": (b"hello there", ": it holds one value, 'hello there'; expected a mapping of sections"),
    "a tab": (
        b"compute:\n\tthreads: 1\n",
        ", line 2, column 1: not valid YAML: while scanning for the next token: found character '\\t' that cannot "
        "start any token. Indent with spaces, not with tabs",
    ),
    "an open bracket": (b"seeds: [1, 2\nprofile: x\n", ", line 2, column 8: not valid YAML: while parsing a flow"),
    "a lost indent": (b"compute:\n  threads: 1\n device: cpu\n", ", line 3, column 2: not valid YAML: while parsing"),
    "a repeated section": (
        GOOD + b"seeds:\n- 2\n",
        ", line 5, column 1: not valid YAML: the key 'seeds' is there twice, first on line 1; expected each key once",
    ),
    "a repeated key": (
        GOOD + b"  threads: 2\n",
        ", line 5, column 3: not valid YAML: the key 'threads' is there twice, first on line 4; expected each key once",
    ),
    "two documents": (GOOD + b"---\nseeds: [1]\n", ", line 5, column 1: not valid YAML: expected a single document"),
    "a Python object": (b"a: !!python/object:os.system x\n", ", line 1, column 4: not valid YAML: could not determine"),
    "Latin-1": (GOOD + b"profile: caf\xe9\n", ", line 5: not UTF-8 (byte 0xe9). Save the file as UTF-8"),
    "a zero byte": (b"a: \x00\n", ": not valid YAML: unacceptable character #x0000"),
    "a number without end": (b"a: " + b"9" * 5000, ", line 1, column 4: not valid YAML: 9999"),
    "a date that is none": (b"a: 2026-13-45", ", line 1, column 4: not valid YAML: 2026-13-45 can't be read as"),
    "a tag that doesn't fit": (b"a: !!int x", ", line 1, column 4: not valid YAML: x can't be read as int"),
    "a list as a key": (b"? [a]\n: 1\n", ", line 1, column 3: not valid YAML: a list or a mapping as a key"),
    "an alias of what it is in": (b"a: &a [*a]", ", line 1, column 4: not valid YAML: it holds itself"),
    "aliases of aliases": (BOMB, ", line 6, column 4: not valid YAML: aliases make more than 262144 characters of it"),
    "far too much": (b"a: " + b"x" * 2**18, ": the file has 262147 bytes; expected at most 262144"),
    "brackets without end": (b"a: " + b"[" * 5000, ": nested too deeply; expected a mapping of sections"),
    "a date as a key": (b"2026-01-02: 1\n", ": 2026-01-02: a key that is a date; expected text"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_parameters_is_one_line_with_the_place(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = FILES[name]
    (line,) = complaint(project, content, capsys)
    assert line.startswith(f"params.yaml{expected}")


SCALARS = (
    *("010", "0o10", "08", "0x1F", "1:30:00", "yes", "on", "no", "off", "y", "true", "TRUE", "null", "~", "Null"),
    *("1e-3", "1.e3", "1.0e-3", ".5", "5.", "+1", "-0", "1:30.5", ".inf", "-.INF", "12e03", "190:20:30", "0b11"),
    *("1_000", "_1", "1_0.5", "1.0_0", "1_0e3", "+0b1_1", "-0x1_F", "-0o7", ".5e1", ".5e+1", "._5"),
)


def test_scalars_are_those_that_dvc_records(tmp_path: Path) -> None:
    """YAML 1.1 reads `010` as eight and `yes` as true: what ran would not be what dvc.lock says."""
    file = tmp_path / "params.yaml"
    file.write_text("".join(f"k{number}: {text}\n" for number, text in enumerate(SCALARS)), encoding="utf-8")
    ours, theirs = read_yaml(file), load_yaml(file)
    pairs = zip(SCALARS, ours.values(), theirs.values(), strict=True)
    assert not {text: (a, b) for text, a, b in pairs if (a, type(a)) != (b, type(b))}


def test_a_folder_for_params_yaml_is_an_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").mkdir()
    assert complaint(project, None, capsys) == ["params.yaml: not a regular file; expected a file"]


def test_the_wrong_folder_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(project, None, capsys) == ["params.yaml: the file is missing. Run from the repository's root"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "error: params.yaml: the file is missing. Run from the repository's root\n"),
        (b"\xff", "error: params.yaml, line 1: not UTF-8 (byte 0xff). Save the file as UTF-8\n"),
        (b"a: [", "error: params.yaml, line 1, column 5: not valid YAML: while parsing a flow node: "),
        (b"profile: x\n", "error: params.yaml: seeds: missing; expected a value (Training seeds: "),
    ],
)
def test_the_real_command_line_ends_with_2_and_no_traceback(
    content: bytes | None, expected: str, project: Path
) -> None:
    shutil.rmtree(project / "data")
    if content is not None:
        (project / "params.yaml").write_bytes(content)
    done = subprocess.run([sys.executable, "-m", "stages.check"], cwd=project, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(expected) and "Traceback" not in done.stderr
    assert not (project / "data").exists()


def test_good_params_pass_and_leave_everything_else_alone(smoke: dict[str, Any], project: Path) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(smoke), encoding="utf-8")
    before = left_behind(project)
    STAGE.main()
    after = left_behind(project)
    new = {"data/check/valid.json", "data/check/manifest.json", "data/check/run.json"}
    assert {name for name in after if before.get(name) != after[name] and not name.endswith(".lock")} == new


class ArmOnly(StageParams):
    """A stage that reads two keys."""

    keys = {"arm": "arms.settings.{arm}"}  # noqa: RUF012 - as the stages declare it

    compute: ComputeParams
    arm: ArmParams


@pytest.mark.parametrize(
    ("changes", "arm", "expected"),
    [
        ({}, "binari", "arms.settings.binari: missing; expected it beside binary, .*Did you mean binary"),
        ({"compute": GONE}, "binary", "params.yaml: compute: missing; expected it beside arms, base, "),
        ({"arms.settings": 3}, "binary", "arms.settings: 3 is wrong; expected a section with binary"),
        ({"arms.settings.binary.budget": 1}, "binary", "arms.settings.binary.budget: 1 is wrong; expected 'same_upd"),
        (
            {"arms.settings.binary.p": 1},
            "binary",
            r"arms.settings.binary.p: unknown key \(value 1\); expected one of b",
        ),
        ({"compute.precision": "bf16"}, "binary", "compute.precision 'bf16' with device 'cpu' is impossible"),
    ],
)
def test_a_stage_that_reads_a_part_names_the_same_keys(
    changes: dict[str, Any], arm: str, expected: str, smoke: dict[str, Any], project: Path
) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(changed(smoke, changes)), encoding="utf-8")
    stage = Stage("arm", ArmOnly, lambda context: None, {}, {"manifest": "m"}, axes=("arm",))
    with pytest.raises(InputError, match=expected):
        stage.params.read({"arm": arm})
