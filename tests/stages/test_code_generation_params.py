"""What `code.generation` accepts: every impossible cell is named with its problem set, and nothing else is refused."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.section import validate
from scoring.prompts import fill_template
from softmask.errors import InputError
from stages.params.code.generation import CellParams, GenerationParams

REPOSITORY = Path(__file__).parents[2]
TASK = {"response_length": 64, "instruction": "Solve:\n{request}\n{prompt}", "prefill": "```python\n"}


def cell(name: str = "1/4", **changes: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("tokens_per_step", "threshold", "block_length", "refresh_every", "sets"))
    return {"name": name, "nfe_ratio": name, "cache": "none", **empty, **changes}


def section(**changes: Any) -> dict[str, Any]:
    return {
        "seed": 1,
        "batch_size": 8,
        "algorithm": "entropy",
        "temperature": 0.1,
        "top_p": 0.9,
        "top_k": None,
        "alg_temp": None,
        "omega_schedule": "constant",
        "eos_rule": "free",
        "stop_at_end": True,
        "eps": 0.001,
        "tasks": {"micro_iid": TASK, "arithmetic": {**TASK, "response_length": 32}},
        "cells": [cell("1/4"), cell("1/2"), cell("1/1")],
        **changes,
    }


def read(**changes: Any) -> GenerationParams:
    return validate(GenerationParams, section(**changes), "params.yaml")


def complaint(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(**changes)
    return str(caught.value)


def test_steps_are_the_ratio_of_each_sets_response_length() -> None:
    params = read()
    steps = [
        (name, cell.name, cell.steps(task.response_length)) for name, task, cell in params.decodes(list(params.tasks))
    ]
    assert steps == [
        *(("micro_iid", "1/4", 16), ("micro_iid", "1/2", 32), ("micro_iid", "1/1", 64)),
        *(("arithmetic", "1/4", 8), ("arithmetic", "1/2", 16), ("arithmetic", "1/1", 32)),
    ]


@given(length=st.integers(1, 4096), top=st.integers(1, 64), bottom=st.integers(1, 64))
def test_a_ratio_is_refused_exactly_where_it_makes_no_whole_steps(length: int, top: int, bottom: int) -> None:
    top = min(top, bottom)
    one = CellParams.model_validate_json(json.dumps(cell("r", nfe_ratio=f"{top}/{bottom}")))
    exact = Fraction(top * length, bottom)
    assert (list(one.misfits(length)) == []) == (exact.denominator == 1)
    if exact.denominator == 1:
        assert one.steps(length) == exact >= 1


def test_a_cell_is_for_the_sets_that_it_names() -> None:
    params = read(cells=[cell("1/2"), cell("dual", nfe_ratio="1/2", cache="dual", block_length=16, sets=["micro_iid"])])
    names = [(name, one.name) for name, _, one in params.decodes(["arithmetic", "micro_iid"])]
    assert names == [("arithmetic", "1/2"), ("micro_iid", "1/2"), ("micro_iid", "dual")]


def test_a_threshold_has_no_steps() -> None:
    params = read(cells=[cell("sure", nfe_ratio=None, threshold=0.9, cache="dual", block_length=16)])
    assert params.cells[0].steps(64) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfe_ratio": None}, "has none of nfe_ratio, tokens_per_step, threshold; expected one of them"),
        ({"tokens_per_step": 2}, "has nfe_ratio and tokens_per_step"),
        ({"nfe_ratio": "3/2"}, "nfe_ratio '3/2' is wrong; expected a fraction above 0 and up to 1, such as '1/4'"),
        ({"nfe_ratio": "1/0"}, "nfe_ratio '1/0' is wrong"),
        ({"nfe_ratio": "a quarter"}, "nfe_ratio 'a quarter' is wrong"),
        ({"nfe_ratio": 0.25}, "0.25 is wrong; expected text"),
        ({"refresh_every": 2}, "refresh_every 2 with cache 'none' has no effect; expected null"),
        ({"cache": "duel"}, "'none', 'prefix' or 'dual'"),
        ({"threshold": 1.5, "nfe_ratio": None}, "at most 1"),
    ],
)
def test_an_impossible_cell_is_named_by_its_place(changes: dict[str, Any], message: str) -> None:
    text = complaint(cells=[cell("1/2"), cell("1/4", **changes)])
    assert message in text
    assert "cells.1" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfe_ratio": "1/3"}, "'bad', which for micro_iid with response_length 64 makes 21.3333 steps"),
        ({"block_length": 48}, "which for micro_iid with response_length 64 has block_length 48, which is no divisor"),
        ({"block_length": 64}, "which for arithmetic with response_length 32 has block_length 64"),
        ({"nfe_ratio": "1/8", "block_length": 2}, "has 8 steps for 32 blocks; expected as many steps for each"),
        ({"sets": ["micro_iid", "humaneval"]}, "for 'humaneval', which has no task; expected one of micro_iid"),
    ],
)
def test_a_cell_that_does_not_fit_a_task_is_named_with_it(changes: dict[str, Any], message: str) -> None:
    assert message in complaint(cells=[cell("bad", **{"nfe_ratio": "1/2", **changes})])


def test_a_cell_fits_only_the_sets_that_it_is_for() -> None:
    assert read(cells=[cell("1/2", block_length=64, sets=["micro_iid"])]).cells[0].block_length == 64


def test_names_are_unique() -> None:
    assert "cells has '1/2' twice; expected each name once" in complaint(cells=[cell("1/2"), cell("1/2")])


def test_chance_has_no_confidence() -> None:
    sure = cell("sure", nfe_ratio=None, threshold=0.9)
    assert "algorithm 'origin' has no confidence" in complaint(algorithm="origin", cells=[sure])
    assert "eos_rule 'last' with algorithm 'origin'" in complaint(algorithm="origin", eos_rule="last")
    assert "alg_temp 0.5 with algorithm 'origin' has no effect" in complaint(algorithm="origin", alg_temp=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"instruction": "Write a function."},
            "instruction has no placeholder; expected {request}, {prompt} or {signature}",
        ),
        (
            {"instruction": "{question}{request}"},
            "instruction has {question}; expected {request}, {prompt} or {signature}",
        ),
        ({"prefill": "def {name}"}, "prefill has {name}"),
    ],
)
def test_a_template_that_asks_for_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in complaint(tasks={"micro_iid": {**TASK, **changes}})


def test_every_problem_set_needs_a_task_and_a_cell() -> None:
    params = read(cells=[cell("1/2", sets=["micro_iid"])])
    assert list(params.lacking(["micro_iid"])) == []
    lacking = list(params.lacking(["arithmetic", "humaneval"]))
    assert lacking[0].startswith("cells has none for the problem set 'arithmetic'")
    assert lacking[1].startswith("tasks has none for the problem set 'humaneval'; expected one, beside micro_iid")


@given(request=st.text(), prompt=st.text())
def test_braces_in_a_problem_stay_as_they_are(request: str, prompt: str) -> None:
    filled = fill_template("a {request} b {prompt} {c}", {"request": request, "prompt": prompt})
    assert filled == "a " + request + " b " + prompt + " {c}"


def test_checking_them_loads_no_model_library() -> None:
    code = "import sys, stages.params.code.generation, reporting.params.code_compare; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
