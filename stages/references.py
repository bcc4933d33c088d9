"""Choose real text: MAUVE's references, and other held-out text that is scored as samples are; score the judge, too."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from artifacts.files import read_tokenizer, write_json, write_text
from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError
from softmask.evaluation.generation import (
    SampleGroup,
    features_in_units,
    generation_row,
    perplexity,
    score_in_units,
)
from softmask.evaluation.judge import Judge, add_costs
from softmask.tokens import PackedTokens
from stages.params.compute import ComputeParams
from stages.params.evaluation import JudgingParams, MauveParams, ReferencesParams
from stages.shared.compute import set_up

Int64Array = npt.NDArray[np.int64]
FEATURES = "features"
"""Name of the tensor `[n, d]` in features.safetensors."""
SHARED_DOCUMENTS = "references and real text are different rows, some of the same documents: validation is too small"
ROWS_AT_A_TIME = 4096
"""Rows whose documents are looked up at once; bounds memory."""


class Params(StageParams):
    """What the references are made from."""

    keys: ClassVar[Mapping[str, str]] = {
        "judging": "evaluation.judge",
        "references": "evaluation.references",
        "mauve": "evaluation.mauve",
    }

    compute: ComputeParams
    judging: JudgingParams
    references: ReferencesParams
    mauve: MauveParams


@dataclass(frozen=True)
class RealText:
    """Validation rows for both roles: references, and text that is measured against them."""

    references: Int64Array
    held_out: Int64Array
    note: str | None
    """How this differs from what was asked for, or None."""


def run(context: Context[Params]) -> None:
    """Write the references, their features, and the metrics of real text and of the judge.

    Raises:
        InputError: validation has one row only, or the judge's end-of-text is not the corpus's.
    """
    params, memo = context.params, context.checkpoints.unit
    device = set_up(params.compute)
    tokens = PackedTokens.open(context.inputs["tokens"])
    tokenizer = read_tokenizer(context.inputs["tokenizer"])
    judge = Judge.load(context.inputs["judge"], device)
    check_end_of_text(judge, str(tokenizer.id_to_token(tokens.eos_token_id)))
    scoring, mauve = params.judging.rules(params.compute.head_chunk), params.mauve.rules(params.compute.threads)

    chosen = choose(tokens, params.references)
    references = decode(tokenizer, tokens.rows(chosen.references))
    _write_lines(context.outputs["references"], chosen.references, references)
    features, features_cost = features_in_units("references", references, judge, mauve, scoring.batch_size, memo)
    save_file({FEATURES: features}, context.outputs["features"])

    ids = tokens.rows(chosen.held_out)
    group = SampleGroup("real-text", decode(tokenizer, ids), ids.tolist(), sampler=None, nfe=None, real_nfe=None)
    row, row_cost = generation_row(group, judge, features, scoring, mauve, memo)
    own_rows = rows_for_judge(len(tokens), params.references)
    own = score_in_units("judge", decode(tokenizer, tokens.rows(own_rows)), judge, scoring, memo)
    ppl, scored = perplexity(own, "the judge's validation text"), sum(own["tokens"])
    write_json(
        context.outputs["metrics"],
        {
            "model": "real text",
            "generation_row": row,
            "judge": {"ppl": ppl, "nll": float(np.log(ppl)), "tokens": scored},
            "note": chosen.note,
        },
    )
    context.counts.update(
        {
            "references": len(chosen.references),
            "real_text": len(chosen.held_out),
            "judge_rows": len(own_rows),
            "judging": add_costs([features_cost, row_cost, own["cost"]]),
        }
    )


def choose(tokens: PackedTokens, params: ReferencesParams) -> RealText:
    """Which validation rows are references and which are measured: of different documents, if validation allows it.

    Documents are dealt to both roles in a seeded order, in proportion to the rows asked for; a row can play a role if
    all its documents have it. Where that leaves too few rows, different rows are taken whatever their documents, and
    where even those are too few, all of them; both are noted.

    Raises:
        InputError: there is only one row.
    """
    total, wanted = len(tokens), params.count + params.real_text
    if total < 2:
        raise InputError(
            "validation has one row: nothing is left to measure against it",
            where="data/tokens/validation",
            expected="two rows or more: more text, or a larger share for validation",
        )
    random = np.random.default_rng(params.seed)
    share = params.count / wanted
    ours, others = _rows_by_side(tokens, share, random)
    if len(ours) >= params.count and len(others) >= params.real_text:
        return RealText(_pick(ours, params.count, random), _pick(others, params.real_text, random), None)
    order = random.permutation(total)
    count, held_out = role_sizes(total, params)
    note = SHARED_DOCUMENTS
    if total < wanted:
        note = (
            f"validation has {total} rows: {count} of {params.count} references and {held_out} of {params.real_text} "
            f"rows of real text; {SHARED_DOCUMENTS}"
        )
    return RealText(np.sort(order[:count]), np.sort(order[count : count + held_out]), note)


def role_sizes(total: int, params: ReferencesParams) -> tuple[int, int]:
    """How many of `total` rows, two and more, are references and how many are measured."""
    wanted = params.count + params.real_text
    if total >= wanted:
        return params.count, params.real_text
    count = min(max(1, round(total * (params.count / wanted))), total - 1)
    return count, total - count


def _pick(rows: Int64Array, count: int, random: np.random.Generator) -> Int64Array:
    return np.sort(random.permutation(rows)[:count])


def _rows_by_side(tokens: PackedTokens, share: float, random: np.random.Generator) -> tuple[Int64Array, Int64Array]:
    """Rows whose documents are all the references', and rows whose documents are all the other side's."""
    is_reference = np.zeros(tokens.n_documents, dtype=bool)
    is_reference[random.permutation(tokens.n_documents)[: round(tokens.n_documents * share)]] = True
    before = np.concatenate([[0], np.cumsum(is_reference)])
    first, last = _outer_documents(tokens)
    of_references = before[last + 1] - before[first]
    return np.flatnonzero(of_references == last + 1 - first), np.flatnonzero(of_references == 0)


def _outer_documents(tokens: PackedTokens) -> tuple[Int64Array, Int64Array]:
    """The first and the last document of each row."""
    blocks = np.array_split(np.arange(len(tokens)), -(-len(tokens) // ROWS_AT_A_TIME))
    outer = np.concatenate([tokens.documents_of(rows)[:, [0, -1]] for rows in blocks])
    return outer[:, 0], outer[:, 1]


def rows_for_judge(total: int, params: ReferencesParams) -> Int64Array:
    """Seeded choice of validation rows for the judge's own perplexity, in order."""
    order = np.random.default_rng([params.seed, 1]).permutation(total)
    return np.sort(order[: params.judge_rows])


def decode(tokenizer: Tokenizer, ids: Int64Array) -> list[str]:
    """The text of each row of ids `[n, L]`, special tokens kept."""
    return list(tokenizer.decode_batch(ids.tolist(), skip_special_tokens=False))


def check_end_of_text(judge: Judge, eos_token: str) -> None:
    """Raise an InputError if the corpus's end-of-text would be read as ordinary letters by the judge."""
    if judge.eos_token != eos_token:
        raise InputError(
            f"the judge's end-of-text is {judge.eos_token!r}, the corpus's is {eos_token!r}",
            where="params.yaml: judge",
            expected="a judge and a tokenizer with the same one",
        )


def _write_lines(path: Path, rows: Int64Array, texts: Sequence[str]) -> None:
    lines = (
        json.dumps({"index": int(i), "text": text}, ensure_ascii=False) for i, text in zip(rows, texts, strict=True)
    )
    write_text(path, "".join(line + "\n" for line in lines))


STAGE = Stage(
    name="references",
    params=Params,
    run=run,
    inputs={
        "check": "data/check/valid.json",
        "tokens": "data/tokens/validation",
        "tokenizer": "data/tokenizer/tokenizer",
        "judge": "models/judge/model",
    },
    outputs={
        "references": "data/references/references.jsonl",
        "features": "data/references/features.safetensors",
        "metrics": "data/references/metrics.json",
        "manifest": "data/references/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
