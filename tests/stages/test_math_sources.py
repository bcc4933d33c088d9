"""Maths problem sets: read from jsonl, Parquet, a dataset's folder and the arithmetic stage; what is wrong is named."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.section import validate
from scoring.problems import Problem
from softmask.errors import InputError
from stages.params.code.math_problems import MathSetParams
from stages.sources.code_problems import How
from stages.sources.math_problems import math_problems

GSM8K = [
    {"question": "Anna has 3 apples and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7 apples.\n#### 7"},
    {"question": "What does it cost?", "answer": "A #### sign, then\n#### 1,234"},
]
MATH = [{"problem": "Find $x$.", "answer": "\\frac{1}{2}", "unique_id": "test/algebra/1.json", "level": 1}]
GSM8K_FIELDS = {"request": "question", "answer": "answer", "answer_after": "####", "task_id": None}
MATH_FIELDS = {"request": "problem", "answer": "answer", "answer_after": None, "task_id": "unique_id"}


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(record) for record in records]), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(name: str, arithmetic: Path = Path("nowhere"), **values: Any) -> list[Problem]:
    settings = {"source": "file", "hub": None, "file": None, "fields": None, **values}
    drafts = math_problems(name, validate(MathSetParams, settings, "params.yaml"), arithmetic)
    assert {draft.how for draft in drafts} <= {How.AS_IS}
    return [draft.problem for draft in drafts]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_gsm8k_answers_are_what_follows_the_last_mark(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"test.{suffix}", GSM8K)
    problems = read("gsm8k", file=str(file), fields=GSM8K_FIELDS)
    assert [problem.answer for problem in problems] == ["7", "1,234"]
    assert problems[0] == Problem(
        set="gsm8k", task_id="gsm8k/0", kind="math", request="Anna has 3 apples and buys 4. How many?", answer="7"
    )


def test_math_500_keeps_its_ids_and_its_latex(tmp_path: Path) -> None:
    (problem,) = read("math500", file=str(write(tmp_path / "test.jsonl", MATH)), fields=MATH_FIELDS)
    assert (problem.task_id, problem.answer) == ("test/algebra/1.json", "\\frac{1}{2}")


def test_a_dataset_is_read_from_a_folder_in_the_hubs_layout(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    write(tmp_path / "main" / "test-00000-of-00001.parquet", GSM8K)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test-*\n---\n"
    )
    hub = {"path": str(tmp_path), "config": "main", "split": "test", "revision": "0" * 40}
    problems = read("gsm8k", source="hub", hub=hub, fields=GSM8K_FIELDS)
    assert [problem.answer for problem in problems] == ["7", "1,234"]
    with pytest.raises(InputError, match="config main, split train"):
        read("gsm8k", source="hub", hub={**hub, "split": "train"}, fields=GSM8K_FIELDS)


def test_the_arithmetic_test_problems_are_a_set_under_its_name(tmp_path: Path) -> None:
    record = {"set": "arithmetic", "task_id": "arithmetic/test/0", "kind": "math", "request": "1 + 1?", "answer": "2"}
    file = write(tmp_path / "arithmetic_test.jsonl", [{**record, "canonical_solution": "1 + 1 = 2"}])
    (problem,) = read("sums", source="arithmetic", arithmetic=file)
    assert problem.record().items() >= {**record, "set": "sums"}.items()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([GSM8K[0], {"question": "?"}], r"test\.jsonl, record 2: the field 'answer' is missing"),
        ([{"question": " ", "answer": "#### 7"}], r"record 1: the field 'question' has no text"),
        ([{"question": "?", "answer": 7}], r"record 1: the field 'answer' has no text"),
        ([{"question": "?", "answer": "7"}], r"record 1: the field 'answer' has no '####'"),
        ([{"question": "?", "answer": "7 #### "}], r"record 1: the field 'answer' has no answer"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read("gsm8k", file=str(write(tmp_path / "test.jsonl", records)), fields=GSM8K_FIELDS)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no\.jsonl: the file is missing.*Mend it, or params\.yaml: code\.problem_sets"
    ):
        read("gsm8k", file=str(tmp_path / "no.jsonl"), fields=GSM8K_FIELDS)
    with pytest.raises(InputError, match=r"no\.parquet: the file is missing"):
        read("gsm8k", file=str(tmp_path / "no.parquet"), fields=GSM8K_FIELDS)
    with pytest.raises(InputError, match=r"'\.csv' files can't be read; expected \.jsonl, \.parquet"):
        read("gsm8k", file=str(tmp_path / "no.csv"), fields=GSM8K_FIELDS)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"broken\.parquet: can't be read as Parquet"):
        read("gsm8k", file=str(broken), fields=GSM8K_FIELDS)
    broken.with_suffix(".jsonl").write_text('{"question": "?", "answer": "#### 7"}\nno\n')
    with pytest.raises(InputError, match=r"broken\.jsonl, record 2: not valid JSON"):
        read("gsm8k", file=str(broken.with_suffix(".jsonl")), fields=GSM8K_FIELDS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "hub", "fields": GSM8K_FIELDS}, "source 'hub' with hub null"),
        ({"source": "file", "fields": GSM8K_FIELDS}, "source 'file' with file null"),
        ({"source": "file", "file": "x.jsonl"}, "source 'file' with fields null"),
    ],
)
def test_params_say_what_a_source_lacks(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read("gsm8k", **values)
