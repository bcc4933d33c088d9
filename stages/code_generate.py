"""Generate one model's answers to every problem set, at every cell of params."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from tqdm import tqdm

from artifacts.files import write_json, write_lines
from artifacts.hashing import path_hash
from runner.stage import Context, Stage, StageParams
from runner.store import Checkpoints
from scoring.problems import Problem, read_problems
from scoring.prompts import fill_template
from softmask.backbones.chat_tokenizer import ChatTokenizer, load_chat_tokenizer
from softmask.backbones.dream import DreamModel
from softmask.backbones.dream_adapter import load_adapter
from softmask.backbones.dream_checkpoint import load_dream
from softmask.backbones.dream_flops import head_flops, trunk_flops
from softmask.decoding.dream_decoder import decode
from softmask.decoding.dream_settings import DreamDecoding
from softmask.errors import InputError
from softmask.feedback import SoftMask
from softmask.seeds import mix_seed
from stages.params.code.generation import CellParams, Decode, GenerationParams, TaskParams
from stages.params.compute import ComputeParams
from stages.shared.compute import set_up


class Params(StageParams):
    """What answers depend on, beside the model."""

    keys: ClassVar[Mapping[str, str]] = {"sets": "code.problem_sets.sets", "generation": "code.generation"}

    compute: ComputeParams
    sets: list[str]
    """Problem sets."""
    generation: GenerationParams


def run(context: Context[Params]) -> None:
    """Make samples.jsonl and costs.json of a model; each batch is a unit that a killed run keeps.

    Raises:
        InputError: model, adapter, tokenizer or problems are damaged, or don't fit each other.
    """
    params, inputs = context.params, context.inputs
    set_up(params.compute)
    subject = load_subject(params.compute, inputs["tokenizer"], inputs["model"], inputs["adapter"])
    files = {name: inputs["problems"] / f"{name}.jsonl" for name in params.sets}
    problems = {name: read_problems(file) for name, file in files.items()}
    context.read.update({file.as_posix(): path_hash(file) for file in files.values()})
    answering = Answering(
        **subject._asdict(),
        params=params.generation,
        head_chunk=params.compute.head_chunk,
        checkpoints=context.checkpoints.bound_to(context.read),
        label=f"answers of {context.axes['family']}/{context.axes['model']}",
    )
    samples, cells = answering.answers(problems)
    write_lines(context.outputs["samples"], samples)
    write_json(context.outputs["costs"], {**context.axes, "cells": cells})
    totals = {name: sum(cell[name] for cell in cells) for name in ("forwards", "positions", "head_rows", "flops")}
    context.counts.update({"samples": len(samples), "tokens": sum(sample["tokens"] for sample in samples), **totals})


class Subject(NamedTuple):
    """A model with what it needs to answer, on the device that computes."""

    model: DreamModel
    soft_mask: SoftMask | None
    tokenizer: ChatTokenizer


def load_subject(compute: ComputeParams, tokenizer: Path, model: Path, adapter: Path) -> Subject:
    """Load a base with an adapter in place.

    Raises:
        InputError: one of the folders is damaged, or they don't fit each other.
    """
    chat, device = load_chat_tokenizer(tokenizer), torch.device(compute.device)
    loaded = load_dream(model, torch.bfloat16 if compute.precision == "bf16" else torch.float32, device)
    check_vocabulary(loaded, chat, tokenizer)
    soft_mask = load_adapter(loaded, adapter)
    loaded.train(False)
    return Subject(loaded, None if soft_mask is None else soft_mask.to(device), chat)


def check_vocabulary(model: DreamModel, tokenizer: ChatTokenizer, where: Path) -> None:
    """Hold model and tokenizer to the same vocabulary.

    Raises:
        InputError: the model has too few rows, or another mask token.
    """
    if tokenizer.size > model.config.vocab_size or tokenizer.mask_token_id != model.config.mask_token_id:
        own, theirs = int(model.config.mask_token_id), tokenizer.mask_token_id
        raise InputError(
            f"has {tokenizer.size} ids and the mask {theirs}",
            where=str(where),
            expected=f"at most the model's {model.config.vocab_size} ids, and its mask {own}",
            todo="Take the tokenizer that the model was trained with",
        )


@dataclass(frozen=True)
class Answering:
    """A model with all that decides what it answers."""

    model: DreamModel
    soft_mask: SoftMask | None
    tokenizer: ChatTokenizer
    params: GenerationParams
    head_chunk: int
    checkpoints: Checkpoints
    label: str
    """What the progress bar says."""

    def answers(self, problems: Mapping[str, Sequence[Problem]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Answers to each set at each cell that is for it.

        Returns:
            The rows of samples.jsonl, in the order of sets, cells and problems, and the cost of each set and cell.
        """
        decodes = self.params.decodes(list(problems))
        total = sum(len(problems[decode.set_name]) * decode.task.response_length for decode in decodes)
        samples, cells = [], []
        with tqdm(total=total, unit="tok", unit_scale=True, desc=self.label) as bar:
            for item in decodes:
                rows, cost = self._answer(item, problems[item.set_name], bar)
                samples += rows
                cells.append(cost)
        return samples, cells

    def _answer(
        self, item: Decode, problems: Sequence[Problem], bar: "tqdm[Any]"
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        prompts = [prompt_of(self.tokenizer, item.task, problem) for problem in problems]
        # neighbours in a batch are of similar length, so that little of it is padding
        order = sorted(range(len(problems)), key=lambda index: (len(prompts[index]), index))
        rows: dict[int, dict[str, Any]] = {}
        head_rows = flops = 0
        for start in range(0, len(order), self.params.batch_size):
            indices = order[start : start + self.params.batch_size]
            unit = self._batch(item, [problems[i] for i in indices], [prompts[i] for i in indices], start)
            for place, index in enumerate(indices):
                context = len(prompts[index]) + item.task.response_length
                flops += trunk_flops(self.model.config, unit["positions"][place], context)
                rows[index] = self._row(item, problems[index], len(prompts[index]), unit, place)
            head_rows += unit["head_rows"]
            bar.update(len(indices) * item.task.response_length)
        samples = [rows[index] for index in range(len(problems))]
        cost = {name: sum(sample[name] for sample in samples) for name in ("forwards", "positions")}
        cost |= {"head_rows": head_rows, "flops": flops + head_flops(self.model.config, head_rows)}
        return samples, {"set": item.set_name, "cell": item.cell.name, "problems": len(samples), **cost}

    def _batch(self, item: Decode, problems: Sequence[Problem], prompts: list[list[int]], start: int) -> Any:
        def compute() -> dict[str, Any]:
            seeds = [answer_seed(self.params.seed, item, problem.task_id) for problem in problems]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            length = item.task.response_length
            settings = settings_of(item.cell, length, self.params, self.tokenizer, self.head_chunk)
            made = decode(self.model, self.soft_mask, prompts, length, settings, generators)
            counts = {"forwards": made.forwards.tolist(), "positions": made.positions.tolist()}
            return {"tokens": made.tokens.tolist(), "head_rows": int(made.head_rows), **counts}

        cell = self.params.cells.index(item.cell)
        return self.checkpoints.unit(f"{item.set_name}-{cell}-{start}", compute)

    def _row(self, item: Decode, problem: Problem, prompt_tokens: int, unit: Any, place: int) -> dict[str, Any]:
        ids = unit["tokens"][place]
        ends = [index for index, token in enumerate(ids) if token in self.tokenizer.end_token_ids]
        answer = ids[: ends[0]] if ends else ids
        return {
            "set": item.set_name,
            "task_id": problem.task_id,
            "cell": item.cell.name,
            "prompt_tokens": prompt_tokens,
            "prefill": fill_template(item.task.prefill, problem.texts()),
            "text": self.tokenizer.decode(answer),
            "ids": ids,
            "tokens": len(answer),
            "forwards": unit["forwards"][place],
            "positions": unit["positions"][place],
            "ended": bool(ends),
        }


def prompt_of(tokenizer: ChatTokenizer, task: TaskParams, problem: Problem) -> list[int]:
    """The user's message and how the answer begins, as ids."""
    texts = problem.texts()
    message = {"role": "user", "content": fill_template(task.instruction, texts)}
    return tokenizer.prompt_ids([message], fill_template(task.prefill, texts))


def answer_seed(seed: int, item: Decode, task_id: str) -> int:
    """The seed of an answer: the same for every model, another for every set, cell and problem."""
    name = "\n".join((item.set_name, item.cell.name, task_id))
    return mix_seed(seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def settings_of(
    cell: CellParams, response_length: int, params: GenerationParams, tokenizer: ChatTokenizer, head_chunk: int
) -> DreamDecoding:
    """The decoder's settings for one cell and response length."""
    return DreamDecoding(
        algorithm=params.algorithm,
        steps=cell.steps(response_length),
        threshold=cell.threshold,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        alg_temp=params.alg_temp,
        eps=params.eps,
        omega_schedule=params.omega_schedule,
        eos_rule=params.eos_rule,
        end_ids=tokenizer.end_token_ids,
        stop_at_end=params.stop_at_end,
        cache=cell.cache,
        block_length=cell.block_length,
        refresh_every=cell.refresh_every,
        head_chunk=head_chunk,
    )


STAGE = Stage(
    name="code_generate",
    params=Params,
    run=run,
    axes=("family", "model"),
    collections=("problems",),
    inputs={
        "check": "data/check/valid.json",
        "model": "models/dream/{family}/base/model",
        "adapter": "models/dream/{family}/{model}/adapter",
        "tokenizer": "models/dream/{family}/tokenizer",
        "problems": "data/code/problems",
    },
    outputs={
        "samples": "data/code/samples/{family}/{model}/samples.jsonl",
        "costs": "data/code/samples/{family}/{model}/costs.json",
        "manifest": "data/code/samples/{family}/{model}/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
