"""Measure one model: validation NLL on both paths, the gate, and the metrics of its samples."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from artifacts.files import read_arrays, read_json, read_lines, read_tokenizer, write_json
from runner.stage import Context, Stage, StageParams
from softmask.backbones.dit import Mdlm, MdlmConfig, load
from softmask.backbones.flops import head_flops, trunk_flops
from softmask.diffusion import LogLinear
from softmask.evaluation.gate import GateSums
from softmask.evaluation.generation import SampleGroup, generation_row
from softmask.evaluation.judge import Judge, add_costs
from softmask.evaluation.noise import EvaluationNoise
from softmask.evaluation.perplexity import batch_nll, sum_by_unit
from softmask.tokens import PackedTokens
from stages.params.compute import ComputeParams
from stages.params.evaluation import EvaluationParams
from stages.params.model import DiffusionParams
from stages.references import FEATURES
from stages.shared.compute import set_up
from stages.shared.units import Units

SAMPLE_FIELDS = ("sampler", "nfe", "text", "ids", "real_nfe")


class Params(StageParams):
    """What measuring depends on, beside the model and the data."""

    compute: ComputeParams
    diffusion: DiffusionParams
    evaluation: EvaluationParams


def run(context: Context[Params]) -> None:
    """Make data/evaluation/{model}/metrics.json and nll.safetensors; batches are units that a killed run keeps."""
    device = set_up(context.params.compute)
    tokenizer = read_tokenizer(context.inputs["tokenizer"])
    tokens = PackedTokens.open(context.inputs["tokens"])
    model = load(context.inputs["model"], device)
    model.check_vocabulary(tokens.vocab_size, context.inputs["tokens"])
    evaluation = context.params.evaluation
    units = Units.of(tokens, tokenizer, evaluation)
    nll, gate = measure_nll(context, model, tokens, units)
    save_file(
        {**nll, "tokens": units.tokens, "bytes": units.bytes},
        context.outputs["nll"],
        metadata={"unit_kind": units.kind},
    )
    rows, judging = generation_rows(context, Judge.load(context.inputs["judge"], device))
    costs = read_json(context.inputs["costs"])
    cost = {**nll_cost(model.config, units.rows, evaluation.draws), "judge": judging}
    name, _, seed = context.axes["model"].rpartition("-")
    paths = {path: units.perplexity(nll[path]) if path in nll else None for path in ("binary", "two_pass")}
    write_json(
        context.outputs["metrics"],
        {
            "model": context.axes["model"],
            "arm": name or None,
            "seed": int(seed) if name else None,
            "perplexity": paths,
            "evaluated": {**units.totals(), "draws": evaluation.draws},
            "gate": _gate(model, gate, costs["initial_omegas"]),
            "generation": rows,
            "training": {key: value for key, value in costs.items() if key != "initial_omegas"},
            "evaluation_cost": cost,
        },
    )
    context.counts.update(cost)


def nll_cost(config: MdlmConfig, rows: int, draws: int) -> dict[str, int]:
    """What measuring the NLL of `rows` validation rows takes; FLOPs by formula, with half of the positions masked."""
    passes = draws * (1 if config.soft_mask is None else 2)
    evaluated = rows * config.length
    flops = passes * (trunk_flops(config, evaluated) + head_flops(config, evaluated // 2))
    return {"forwards": passes * rows, "flops": flops, "tokens": evaluated}


def _gate(model: Mdlm, sums: GateSums, initial_omegas: Any) -> dict[str, Any] | None:
    if model.soft_mask is None:
        return None
    return {**sums.summary(), "omegas": model.soft_mask.omegas(), "initial_omegas": initial_omegas}


def measure_nll(
    context: Context[Params], model: Mdlm, tokens: PackedTokens, units: Units
) -> tuple[dict[str, NDArray[np.float64]], GateSums]:
    """Summed NLL `[draws, units]` of each path, and lambda's statistics over all masked positions."""
    evaluation, diffusion = context.params.evaluation, context.params.diffusion
    noise = EvaluationNoise(
        seed=evaluation.seed,
        rows=units.rows,
        noise=LogLinear(diffusion.noise_eps),
        sampling_eps=diffusion.sampling_eps,
        mask_token_id=tokens.mask_token_id,
    )
    paths = ["binary"] if model.soft_mask is None else ["binary", "two_pass"]
    nll = {path: np.zeros((evaluation.draws, len(units.tokens))) for path in paths}
    gate = GateSums(evaluation.entropy_bins)
    starts = range(0, units.rows, evaluation.batch_size)
    label = f"NLL of {context.axes['model']}"
    with tqdm(total=evaluation.draws * units.rows * tokens.length, unit="tok", unit_scale=True, desc=label) as bar:
        for draw in range(evaluation.draws):
            t = noise.t(draw)
            for start in starts:
                rows = np.arange(start, min(start + evaluation.batch_size, units.rows))
                batch = _Batch(draw, rows, t[rows])
                compute = partial(_measure, context, model, tokens, units, noise, batch)
                unit = context.checkpoints.unit(f"nll-{draw}-{start}", compute)
                for path in paths:
                    nll[path][draw, unit["units"]] += unit[path]
                gate.add(unit["gate"])
                bar.update(len(rows) * tokens.length)
    return nll, gate


@dataclass(frozen=True)
class _Batch:
    draw: int
    rows: NDArray[np.int64]
    t: torch.Tensor


def _measure(
    context: Context[Params],
    model: Mdlm,
    tokens: PackedTokens,
    units: Units,
    noise: EvaluationNoise,
    batch: _Batch,
) -> dict[str, Any]:
    x0 = torch.from_numpy(tokens.rows(units.indices[batch.rows]))
    x_t = noise.x_t(batch.draw, int(batch.rows[0]), x0, batch.t)
    result = batch_nll(model, x0.to(model.device), x_t.to(model.device), context.params.compute.head_chunk)
    masked, w = x_t == tokens.mask_token_id, noise.noise.nll_weight(batch.t)
    touched, local = np.unique(units.unit_of[batch.rows], return_inverse=True)
    where = torch.from_numpy(local.reshape(x0.shape))
    value: dict[str, Any] = {
        "units": touched.tolist(),
        "binary": sum_by_unit(result.binary, w, masked, where, len(touched)).tolist(),
        "gate": None,
    }
    if result.two_pass is not None and result.lam is not None:
        value["two_pass"] = sum_by_unit(result.two_pass, w, masked, where, len(touched)).tolist()
        value["gate"] = GateSums(context.params.evaluation.entropy_bins).of(result.lam, result.entropy)
    return value


def generation_rows(context: Context[Params], judge: Judge) -> tuple[list[Any], Any]:
    """The metrics of each (sampler, NFE) group of the model's samples, and what judging them cost."""
    evaluation = context.params.evaluation
    features = read_arrays(context.inputs["references"], [FEATURES])[FEATURES]
    groups: dict[tuple[str, int], list[Any]] = {}
    for line in read_lines(context.inputs["samples"], SAMPLE_FIELDS):
        groups.setdefault((line["sampler"], line["nfe"]), []).append(line)
    rows, costs = [], []
    for (sampler, nfe), samples in groups.items():
        group = SampleGroup(
            name=f"{sampler}-{nfe}",
            texts=[sample["text"] for sample in samples],
            ids=[sample["ids"] for sample in samples],
            sampler=sampler,
            nfe=nfe,
            real_nfe=[sample["real_nfe"] for sample in samples],
        )
        row, cost = generation_row(
            group,
            judge,
            features,
            evaluation.judge.rules(context.params.compute.head_chunk),
            evaluation.mauve.rules(context.params.compute.threads),
            context.checkpoints.unit,
        )
        rows.append(row)
        costs.append(cost)
    return rows, add_costs(costs)


STAGE = Stage(
    name="evaluate",
    params=Params,
    run=run,
    axes=("model",),
    inputs={
        "check": "data/check/valid.json",
        "tokens": "data/tokens/validation",
        "tokenizer": "data/tokenizer/tokenizer",
        "model": "models/mdlm/{model}/model",
        "costs": "models/mdlm/{model}/costs.json",
        "samples": "data/samples/{model}/samples.jsonl",
        "judge": "models/judge/model",
        "references": "data/references/features.safetensors",
    },
    outputs={
        "metrics": "data/evaluation/{model}/metrics.json",
        "nll": "data/evaluation/{model}/nll.safetensors",
        "manifest": "data/evaluation/{model}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
