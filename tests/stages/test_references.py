"""The references stage: what is real text, of which documents, and what is measured on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from softmask.evaluation.rules import EosRule, FirstToken
from softmask.tokens import PackedTokens
from stages.params.compute import ComputeParams
from stages.params.evaluation import JudgingParams, MauveParams, ReferencesParams
from stages.references import FEATURES, Params, choose, run
from tests.tiny_judge import gpt2_folder, packed_letters

COMPUTE = ComputeParams(
    device="cpu", threads=1, precision="fp32", deterministic=True, processes=1, fsdp=False, head_chunk=64
)
JUDGING = JudgingParams(batch_size=8, max_length=8, stride=8, eos_rule=EosRule.FIRST_ONLY, first_token=FirstToken.SKIP)
MAUVE = MauveParams(
    min_samples=10,
    seeds=(1, 2),
    max_text_length=8,
    num_buckets="auto",
    pca_max_data=None,
    explained_variance=0.9,
    kmeans_redo=1,
    kmeans_iterations=20,
    curve_points=25,
    scaling_factor=5.0,
)


def asked(count: int, real_text: int, judge_rows: int = 12, seed: int = 1) -> ReferencesParams:
    return ReferencesParams(count=count, real_text=real_text, judge_rows=judge_rows, seed=seed)


def make(folder: Path, references: ReferencesParams, lengths: list[int], mauve: MauveParams = MAUVE) -> Context[Params]:
    """Run the stage on a packed validation split of random documents, with a random judge."""
    packed_letters(folder / "tokens", folder / "tokenizer", lengths)
    out = folder / "references"
    context = Context(
        Params(compute=COMPUTE, judging=JUDGING, references=references, mauve=mauve),
        {"tokens": folder / "tokens", "tokenizer": folder / "tokenizer", "judge": gpt2_folder(folder / "judge")},
        {
            "references": out / "references.jsonl",
            "features": out / "features.safetensors",
            "metrics": out / "metrics.json",
        },
        {},
        Checkpoints(folder / "store", "key"),
    )
    out.mkdir()
    run(context)
    return context


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Context[Params]:
    return make(tmp_path_factory.mktemp("references"), asked(12, 10), [100] * 8)


def metrics(context: Context[Params]) -> Any:
    return json.loads(context.outputs["metrics"].read_text())


def documents(tokens: PackedTokens, rows: np.ndarray[Any, Any]) -> set[int]:
    return set(tokens.documents_of(rows).ravel().tolist())


def test_references_and_real_text_share_no_document_where_validation_allows_it(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [60] * 40)
    chosen = choose(tokens, asked(60, 40))
    assert (len(chosen.references), len(chosen.held_out), chosen.note) == (60, 40, None)
    assert not documents(tokens, chosen.references) & documents(tokens, chosen.held_out)
    other = choose(tokens, asked(60, 40, seed=2))
    assert other.references.tolist() != chosen.references.tolist()
    assert choose(tokens, asked(60, 40)).references.tolist() == chosen.references.tolist()


def test_a_validation_split_of_one_document_gives_different_rows_and_says_so(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [400])
    chosen = choose(tokens, asked(20, 10))
    assert (len(chosen.references), len(chosen.held_out)) == (20, 10)
    assert not set(chosen.references) & set(chosen.held_out)
    assert chosen.note is not None and "some of the same documents" in chosen.note


def test_a_validation_split_that_is_too_small_is_divided_in_proportion_and_says_so(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [96])
    chosen = choose(tokens, asked(200, 100))
    assert (len(tokens), len(chosen.references), len(chosen.held_out)) == (12, 8, 4)
    assert chosen.note is not None
    assert "validation has 12 rows: 8 of 200 references and 4 of 100 rows of real text" in chosen.note


def test_one_row_is_too_few(tmp_path: Path) -> None:
    tokens = packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [9])
    with pytest.raises(InputError, match="validation has one row"):
        choose(tokens, asked(1, 1))


def test_the_references_are_kept_with_their_rows_and_features(made: Context[Params]) -> None:
    lines = [json.loads(line) for line in made.outputs["references"].read_text(encoding="utf-8").splitlines()]
    tokens = PackedTokens.open(made.inputs["tokens"])
    assert [line["index"] for line in lines] == choose(tokens, asked(12, 10)).references.tolist()
    assert all(len(line["text"].replace("<|endoftext|>", ".")) == 8 for line in lines)
    features = load_file(made.outputs["features"])[FEATURES]
    assert features.shape == (12, 16) and features.dtype == np.float32


def test_the_real_text_row_has_the_keys_of_a_samples_row(made: Context[Params]) -> None:
    row = metrics(made)["generation_row"]
    assert (row["sampler"], row["nfe"], row["real_nfe_mean"], row["samples"], row["tokens"]) == (
        None,
        None,
        None,
        10,
        80,
    )
    assert row["gen_ppl"] > 1 and row["entropy"] > 0
    assert set(row["mauve"]["seeds"]) == {"1", "2"} and row["mauve"]["references"] == 12


def test_the_judges_own_perplexity_is_shown(made: Context[Params]) -> None:
    judge = metrics(made)["judge"]
    assert judge["ppl"] == pytest.approx(np.exp(judge["nll"]))
    assert 11 * 7 <= judge["tokens"] <= 12 * 7
    assert made.counts["judge_rows"] == 12
    assert made.counts["judging"]["forwards"] == 12 + 2 * 10 + 12


def test_with_few_references_mauve_is_empty_and_says_why(tmp_path: Path) -> None:
    few = MauveParams.model_validate({**MAUVE.model_dump(), "min_samples": 11})
    row = metrics(make(tmp_path, asked(12, 10), [100] * 8, few))["generation_row"]
    assert row["mauve"] is None and row["mauve_note"] == "10 samples; MAUVE is printed from 11 on"


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path, made: Context[Params]) -> None:
    again = make(tmp_path, asked(12, 10), [100] * 8)
    assert {n: path_hash(p) for n, p in again.outputs.items()} == {n: path_hash(p) for n, p in made.outputs.items()}


def test_a_judge_with_another_end_of_text_than_the_corpus_is_refused(tmp_path: Path) -> None:
    packed_letters(tmp_path / "tokens", tmp_path / "tokenizer", [100] * 8)
    judge = gpt2_folder(tmp_path / "judge")
    file = judge / "tokenizer.json"
    file.write_text(file.read_text().replace("<|endoftext|>", "</s>"))
    inputs = {"tokens": tmp_path / "tokens", "tokenizer": tmp_path / "tokenizer", "judge": judge}
    params = Params(compute=COMPUTE, judging=JUDGING, references=asked(12, 10), mauve=MAUVE)
    with pytest.raises(InputError, match=r"end-of-text is '</s>', the corpus's is '<\|endoftext\|>'"):
        run(Context(params, inputs, {}, {}, Checkpoints(tmp_path / "store", "key")))


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (JUDGING, {"stride": 9}, r"stride 9 with max_length 8 would leave tokens out"),
        (JUDGING, {"eos_rule": "all"}, r"eos_rule: 'all' is wrong; expected 'keep_all', 'first_only'"),
        (MAUVE, {"seeds": [1]}, r"seeds: .* at least 2"),
        (MAUVE, {"seeds": [1, 1]}, r"seeds \[1, 1\] has a repeated seed; expected each once"),
        (MAUVE, {"num_buckets": 11}, r"num_buckets 11 with min_samples 10 is wrong"),
        (MAUVE, {"num_buckets": "some"}, r"num_buckets"),
        (MAUVE, {"explained_variance": 1.0}, r"explained_variance: 1.0 is wrong; expected less than 1"),
    ],
)
def test_wrong_parameters_are_named(model: JudgingParams | MauveParams, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(type(model), {**model.model_dump(mode="json"), **change}, "params.yaml")
