"""Generate unconditional samples with one model, for every cell and variant in params, and trace one denoising."""

from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from artifacts.files import read_tokenizer, write_json, write_lines
from runner.stage import Context, Stage, StageParams
from softmask.backbones.dit import Mdlm, load
from softmask.backbones.flops import head_flops, trunk_flops
from softmask.decoding.decoder import DecodingSettings, Generated, generate
from softmask.decoding.kinds import Sampler
from softmask.decoding.trace import Trace
from softmask.seeds import mix_seed
from stages.params.compute import ComputeParams
from stages.params.sampling import Cell, Decoding, SamplingParams
from stages.shared.compute import set_up


class Params(StageParams):
    """What generation depends on, beside the model."""

    compute: ComputeParams
    sampling: SamplingParams


def run(context: Context[Params]) -> None:
    """Make data/samples/{model}/samples.jsonl and trace.json; each batch is a unit that a killed run keeps."""
    params = context.params
    device = set_up(params.compute)
    model = load(context.inputs["model"], device)
    tokenizer = read_tokenizer(context.inputs["tokenizer"])
    model.check_vocabulary(tokenizer.get_vocab_size(), context.inputs["tokenizer"])
    rows: list[dict[str, Any]] = []
    forwards = head_rows = 0
    decodings = [*params.sampling.decodings(model.soft_mask is not None)]
    total = len(decodings) * params.sampling.samples * int(model.config.length)
    with tqdm(total=total, unit="tok", unit_scale=True, desc=f"samples of {context.axes['model']}") as bar:
        for decoding in decodings:
            for start in range(0, params.sampling.samples, params.sampling.batch_size):
                unit = _generate_batch(context, model, decoding, start)
                rows += _rows(decoding, start, unit, tokenizer)
                forwards += sum(unit["forwards"])
                head_rows += unit["head_rows"]
                bar.update(len(unit["tokens"]) * int(model.config.length))
    write_lines(context.outputs["samples"], rows)
    write_json(context.outputs["trace"], _trace(context, model, tokenizer))
    length = int(model.config.length)
    flops = forwards * trunk_flops(model.config, length) + head_flops(model.config, head_rows)
    context.counts.update({"samples": len(rows), "forwards": forwards, "head_rows": head_rows, "flops": flops})


def settings_of(decoding: Decoding, params: SamplingParams, head_chunk: int) -> DecodingSettings:
    """The decoder's settings for one cell and way of decoding."""
    cell = decoding.cell
    return DecodingSettings(
        sampler=cell.sampler,
        nfe=cell.nfe,
        nucleus_p=params.nucleus_p,
        temperature=decoding.temperature,
        refresh=params.refresh,
        remask_feedback=params.remask_feedback,
        omega_schedule=decoding.omega_schedule,
        feedback_from=decoding.feedback_from,
        feedback_until=decoding.feedback_until,
        remdm=params.remdm(cell),
        final_t=params.final_t,
        final_argmax=params.final_argmax,
        head_chunk=head_chunk,
    )


def batch_seed(seed: int, cell: Cell, start: int) -> int:
    """The seed of a batch: the same for every model and every way of decoding, another for every cell and batch."""
    return mix_seed(seed, list(Sampler).index(cell.sampler), cell.nfe, start)


def _generate_batch(context: Context[Params], model: Mdlm, decoding: Decoding, start: int) -> Any:
    params = context.params.sampling
    size = min(params.batch_size, params.samples - start)

    def compute() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(batch_seed(params.seed, decoding.cell, start))
        settings = settings_of(decoding, params, context.params.compute.head_chunk)
        made: Generated = generate(model, settings, size, int(model.config.length), generator)
        tokens, forwards = made.tokens.tolist(), made.forwards.tolist()
        return {"tokens": tokens, "forwards": forwards, "head_rows": made.head_rows}

    return context.checkpoints.unit(f"{decoding.label}-{decoding.cell.nfe}-{start}", compute)


def _rows(decoding: Decoding, start: int, unit: Any, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [
        {
            "sampler": decoding.label,
            "nfe": decoding.cell.nfe,
            "index": start + offset,
            "real_nfe": forwards,
            "text": tokenizer.decode(tokens, skip_special_tokens=False),
            "ids": tokens,
        }
        for offset, (tokens, forwards) in enumerate(zip(unit["tokens"], unit["forwards"], strict=True))
    ]


def _trace(context: Context[Params], model: Mdlm, tokenizer: Tokenizer) -> Any:
    params = context.params.sampling
    cell = params.cells[params.trace.cell]

    def compute() -> dict[str, Any]:
        trace = Trace(int(model.config.mask_token_id), params.trace.guesses, partial(_token, tokenizer))
        generator = torch.Generator().manual_seed(batch_seed(params.seed, cell, params.samples))
        settings = settings_of(params.plain(cell), params, context.params.compute.head_chunk)
        generate(model, settings, 1, int(model.config.length), generator, observer=trace)
        header = {"model": context.axes["model"], "sampler": cell.sampler.value, "nfe": cell.nfe}
        return {**header, "length": int(model.config.length), "steps": trace.steps}

    return context.checkpoints.unit("trace", compute)


def _token(tokenizer: Tokenizer, token_id: int) -> str:
    return str(tokenizer.decode([token_id], skip_special_tokens=False))


STAGE = Stage(
    name="generate",
    params=Params,
    run=run,
    axes=("model",),
    inputs={
        "check": "data/check/valid.json",
        "model": "models/mdlm/{model}/model",
        "tokenizer": "data/tokenizer/tokenizer",
    },
    outputs={
        "samples": "data/samples/{model}/samples.jsonl",
        "trace": "data/samples/{model}/trace.json",
        "manifest": "data/samples/{model}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
