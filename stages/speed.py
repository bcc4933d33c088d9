"""Time the decoding of base and arms on a few problems, and measure what their caches cost in exactness. The one stage
whose outputs differ from run to run.

Tokens a second count response tokens only. Each model is loaded by itself; its cells take turns, so that a busy
neighbour slows all of them alike.
"""

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from tqdm import tqdm

from artifacts.files import write_json, write_text
from artifacts.hashing import path_hash
from reporting.speed_page import render_speed
from runner.stage import Context, Stage, StageParams
from scoring.problems import Problem, read_problems
from softmask.backbones.chat_tokenizer import ChatTokenizer
from softmask.decoding.dream_decoder import decode
from softmask.decoding.dream_kinds import CacheMode
from softmask.decoding.dream_settings import DreamDecoding
from softmask.errors import InputError
from softmask.evaluation.cache_drift import cache_drift
from stages.code_generate import Subject, answer_seed, load_subject, prompt_of, settings_of
from stages.params.code.generation import Decode, GenerationParams
from stages.params.code.speed import SpeedParams
from stages.params.compute import ComputeParams
from stages.shared.compute import set_up

BASE = "base"


class Params(StageParams):
    """What is timed."""

    keys: ClassVar[Mapping[str, str]] = {
        "families": "code.families",
        "generation": "code.generation",
        "speed": "code.speed",
    }

    compute: ComputeParams
    families: list[str]
    generation: GenerationParams
    speed: SpeedParams


class Taken(NamedTuple):
    """One decoding of all problems: seconds, and the counts of all sequences together."""

    seconds: float
    tokens: int
    forwards: int
    positions: int


class _Task(NamedTuple):
    """What is decoded of a batch, and how."""

    prompts: list[list[int]]
    response_length: int
    settings: DreamDecoding
    seeds: list[int]


class Measured(NamedTuple):
    """A model's decodings at each cell, and the drift at those that have a cache."""

    soft: bool
    taken: list[list[Taken]]
    drifts: list[dict[str, Any]]


def run(context: Context[Params]) -> None:
    """Make reports/speed.json and the page reports/speed.html.

    Raises:
        InputError: the set has fewer problems or no such cell, or a model, adapter or tokenizer is damaged.
    """
    params, speed = context.params, context.params.speed
    device = set_up(params.compute)
    problems = _problems(context)
    decodes = _decodes(params)
    models = (BASE, *(f"{arm}-{speed.seed}" for arm in speed.arms))
    rounds = (speed.warm_up + speed.repeats) * len(decodes)
    families = []
    with tqdm(total=rounds * len(models) * len(params.families), unit="decoding", desc="speed") as bar:
        for family in params.families:
            timed = {model: _time(context, family, model, decodes, problems, bar) for model in models}
            drifts = [{"model": model, **drift} for model, measured in timed.items() for drift in measured.drifts]
            families.append({"family": family, "rows": _rows(timed, decodes), "drifts": drifts})
    protocol = {**speed.model_dump(mode="json"), "problems": len(problems)}
    report = {"machine": _machine(params.compute, device), "protocol": protocol, "families": families}
    write_json(context.outputs["speed"], report)
    write_text(context.outputs["page"], render_speed(report))


def _decodes(params: Params) -> list[Decode]:
    """The cells that are timed, in the order of params."""
    there = {item.cell.name: item for item in params.generation.decodes([params.speed.set])}
    for name in params.speed.cells:
        if name not in there:
            raise InputError(
                f"{params.speed.set} is not answered at {name!r}",
                where="params.yaml: code.speed.cells",
                expected=f"some of {', '.join(there)}",
            )
    return [there[name] for name in params.speed.cells]


def _problems(context: Context[Params]) -> list[Problem]:
    speed = context.params.speed
    file = context.inputs["problems"] / f"{speed.set}.jsonl"
    problems = list(read_problems(file))
    if len(problems) < speed.count:
        raise InputError(
            f"count {speed.count} is more than the {len(problems)} problems of {speed.set}",
            where="params.yaml: code.speed.count",
        )
    context.read[file.as_posix()] = path_hash(file)
    return problems[: speed.count]


def _time(
    context: Context[Params],
    family: str,
    model: str,
    decodes: Sequence[Decode],
    problems: Sequence[Problem],
    bar: "tqdm[Any]",
) -> Measured:
    """What each cell's decodings took, those for warming up left out, and how far its cache drifts."""
    subject = _load(context, family, model)
    taken: list[list[Taken]] = [[] for _ in decodes]
    for turn in range(context.params.speed.warm_up + context.params.speed.repeats):
        for item, times in zip(decodes, taken, strict=True):
            once = _decode(context.params, subject, item, problems)
            if turn >= context.params.speed.warm_up:
                times.append(once)
            bar.update()
    drifts = [_drift(context.params, subject, item, problems) for item in decodes if item.cell.cache != CacheMode.NONE]
    return Measured(subject.soft_mask is not None, taken, drifts)


def _load(context: Context[Params], family: str, model: str) -> Subject:
    compute, folder = context.params.compute, context.inputs["models"] / family
    paths = folder / "tokenizer", folder / BASE / "model", folder / model / "adapter"
    context.read.update({path.as_posix(): path_hash(path) for path in paths if path.as_posix() not in context.read})
    return load_subject(compute, *paths)


def _decode(params: Params, subject: Subject, item: Decode, problems: Sequence[Problem]) -> Taken:
    """Decode all problems once; only decoding is timed, and tokens are counted as the samples' are."""
    seconds, tokens, forwards, positions = 0.0, 0, 0, 0
    for start in range(0, len(problems), params.speed.batch_size):
        batch = problems[start : start + params.speed.batch_size]
        prompts, length, settings, seeds = _task(params, subject, item, batch)
        generators = [torch.Generator(subject.model.device).manual_seed(seed) for seed in seeds]
        started = _now(subject.model.device)
        made = decode(subject.model, subject.soft_mask, prompts, length, settings, generators)
        seconds += _now(subject.model.device) - started
        tokens += sum(_answer_length(row, subject.tokenizer) for row in made.tokens.tolist())
        forwards += int(made.forwards.sum())
        positions += int(made.positions.sum())
    return Taken(seconds, tokens, forwards, positions)


def _drift(params: Params, subject: Subject, item: Decode, problems: Sequence[Problem]) -> dict[str, Any]:
    """How cached predictions differ from whole forwards', over all steps but those that are exact, weighted alike."""
    batch = problems[: params.speed.batch_size]
    drift = cache_drift(subject.model, subject.soft_mask, *_task(params, subject, item, batch))
    stale = [one for one in drift.by_age if one.age > 0]
    positions = sum(one.positions for one in stale)
    mean = {
        name: sum(getattr(one, name) * one.positions for one in stale) / positions if positions else 0.0
        for name in ("kl", "changed")
    }
    largest = max((one.largest_kl for one in stale), default=0.0)
    return {
        "cell": item.cell.name,
        "problems": len(batch),
        "positions": positions,
        **mean,
        "largest_kl": largest,
        "agreement": drift.agreement,
    }


def _task(params: Params, subject: Subject, item: Decode, batch: Sequence[Problem]) -> _Task:
    generation, length = params.generation, item.task.response_length
    return _Task(
        prompts=[prompt_of(subject.tokenizer, item.task, problem) for problem in batch],
        response_length=length,
        settings=settings_of(item.cell, length, generation, subject.tokenizer, params.compute.head_chunk),
        seeds=[answer_seed(generation.seed, item, problem.task_id) for problem in batch],
    )


def _answer_length(ids: Sequence[int], tokenizer: ChatTokenizer) -> int:
    return next((index for index, token in enumerate(ids) if token in tokenizer.end_token_ids), len(ids))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _rows(timed: Mapping[str, Measured], decodes: Sequence[Decode]) -> list[dict[str, Any]]:
    """One row a cell and model. The models are compared with the first arm that has no soft mask, if there is one."""
    binary = next((model for model, measured in timed.items() if model != BASE and not measured.soft), None)
    rows = []
    for number, item in enumerate(decodes):
        summaries = {model: _summary(measured.taken[number]) for model, measured in timed.items()}
        for model, summary in summaries.items():
            own, other = (
                summaries[name]["forward_ms"]["median"] if name is not None else None for name in (model, binary)
            )
            ratio = None if other is None else own / other
            rows.append({"cell": item.cell.name, "model": model, **summary, "against_binary": ratio})
    return rows


def _summary(taken: Sequence[Taken]) -> dict[str, Any]:
    counts = taken[0]
    return {
        "tokens": counts.tokens,
        "forwards": counts.forwards,
        "positions": counts.positions,
        "seconds": _spread([once.seconds for once in taken]),
        "tokens_per_second": _spread([once.tokens / once.seconds for once in taken]),
        "forward_ms": _spread([1000 * once.seconds / once.forwards for once in taken]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _machine(compute: ComputeParams, device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if cuda else "no GPU used",
        "threads": compute.threads,
        "precision": compute.precision,
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


STAGE = Stage(
    name="speed",
    params=Params,
    run=run,
    collections=("models", "problems"),
    inputs={
        "check": "data/check/valid.json",
        "models": "models/dream",
        "problems": "data/code/problems",
    },
    outputs={
        "speed": "reports/speed.json",
        "page": "reports/speed.html",
        "manifest": "reports/manifests/speed/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
