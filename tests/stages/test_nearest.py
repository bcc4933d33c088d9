"""The nearest-example baseline: what is near, the name that is asked for, and rows that are scored like a model's."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.files import read_lines, write_lines
from artifacts.hashing import path_hash
from runner.section import validate
from scoring.code_scoring import Verdict, extract, score
from scoring.problems import Problem, read_problems
from scoring.sandbox import Sandbox
from softmask.errors import InputError
from stages import nearest, problems
from stages.code_score import FIELDS
from stages.params.code.nearest import NearestParams
from tests.scoring.sandboxes import PATIENT
from tests.stages.tiny_problems import (
    IID,
    NEAREST,
    SUMS,
    WHEEL,
    made_by_stages,
    nearest_context,
    problem_set,
    problems_context,
)

SETS = {
    "micro_iid": problem_set("micro", IID),
    "micro_new": problem_set("micro", {"split": "new"}),
    "arithmetic": problem_set("maths", SUMS),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = made_by_stages(tmp_path_factory.mktemp("nearest"))
    problems.run(problems_context(made, SETS))
    return made


def code(request: str, solution: str, entry_point: str) -> Problem:
    return Problem(
        set="train",
        task_id=request,
        kind="code",
        request=request,
        prompt=f"def {entry_point}(x):\n",
        entry_point=entry_point,
        canonical_solution=solution,
        base_input=[[1]],
    )


EXAMPLES = [
    code("Write f_one(x) that returns x plus 3.", "def f_one(x):\n    return x + 3", "f_one"),
    code("Write f_two(x) that returns x times 3.", "def f_two(x):\n    return x * 3", "f_two"),
    code("Write f_two(x) that returns x plus 3 again.", "def f_two(x):\n    return 'f_two'", "f_two"),
]


def found(request: str, entry_point: str, **changes: Any) -> str:
    params = validate(NearestParams, {**NEAREST, **changes}, "params.yaml")
    (match,) = nearest.nearest([code(request, "def f(x):\n    return 0", entry_point)], EXAMPLES, params)
    return match.example.request


def test_the_example_whose_request_says_the_same_is_the_nearest() -> None:
    assert found("Write g(x) that returns x times 4.", "g") == EXAMPLES[1].request
    assert found("Write g(x) that returns x plus 4.", "g") == EXAMPLES[0].request


def test_a_name_decides_only_if_it_is_not_hidden() -> None:
    request = "Write f_two(x) that returns x plus 3."
    assert found(request, "f_two") == EXAMPLES[0].request
    assert found(request, "f_two", hide_names=False, longest=1) == EXAMPLES[2].request


def test_answers_are_solutions_of_training_under_the_name_that_is_asked_for(folder: Path) -> None:
    context = nearest_context(folder, SETS)
    nearest.run(context)
    rows = read_lines(context.outputs["samples"], (*FIELDS, "prefill", "ids", "ended", "prompt_tokens"))
    assert len(rows) == 32 == context.counts["samples"] and {row["cell"] for row in rows} == {"nearest"}
    train = {p.task_id: p for p in read_problems(folder / "data/code/micro/train.jsonl")}
    train |= {p.task_id: p for p in read_problems(folder / "data/code/micro/arithmetic_train.jsonl")}
    asked = {p.task_id: p for name in SETS for p in read_problems(folder / f"data/code/problems/{name}.jsonl")}
    for row in rows:
        example, problem = train[row["example"]], asked[row["task_id"]]
        assert 0 < row["similarity"] <= 1 and row["forwards"] == row["positions"] == 0 < row["tokens"]
        if problem.kind == "math":
            assert row["text"] == example.canonical_solution
        else:
            assert f"def {problem.entry_point}(" in row["text"]
            assert row["text"].replace(problem.entry_point, example.entry_point) == example.canonical_solution
    read = {f"data/code/problems/{name}.jsonl" for name in SETS}
    assert {Path(path).relative_to(folder).as_posix() for path in context.read} == read


def test_a_problem_of_training_would_be_solved_so_that_memorising_shows(folder: Path) -> None:
    train = read_problems(folder / "data/code/micro/train.jsonl")
    matches = nearest.nearest(train[:40], train, validate(NearestParams, NEAREST, "params.yaml"))
    assert all(match.similarity == pytest.approx(1) for match in matches)
    same = [match.example.structure == problem.structure for match, problem in zip(matches, train, strict=False)]
    assert sum(same) >= 38


def test_answers_can_be_scored(folder: Path) -> None:
    context = nearest_context(folder, SETS)
    nearest.run(context)
    asked = {p.task_id: p for name in SETS for p in read_problems(folder / f"data/code/problems/{name}.jsonl")}
    rows = [row for row in read_lines(context.outputs["samples"], FIELDS) if asked[row["task_id"]].kind == "code"][:6]
    with Sandbox(PATIENT) as sandbox:
        for row in rows:
            problem = asked[row["task_id"]]
            solution = extract(row["text"], problem.entry_point, 100)
            base = score(problem, solution, sandbox).base
            assert base is not None and base.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.ERROR)
            assert f"def {problem.entry_point}" in solution


def test_sets_without_training_examples_have_no_answers_and_removed_sets_leave_no_trace(folder: Path) -> None:
    both, one = nearest_context(folder, SETS), nearest_context(folder, {"micro_iid": SETS["micro_iid"]})
    nearest.run(both)
    whole = path_hash(both.outputs["samples"])
    wheel = {**SETS, "humaneval": problem_set("wheel", WHEEL)}
    again = nearest_context(folder, wheel)
    nearest.run(again)
    assert path_hash(again.outputs["samples"]) == whole
    nearest.run(one)
    assert {row["set"] for row in read_lines(one.outputs["samples"], FIELDS)} == {"micro_iid"}


def test_no_set_of_ours_gives_no_answers(folder: Path) -> None:
    context = nearest_context(folder, {"humaneval": problem_set("wheel", WHEEL)})
    nearest.run(context)
    assert read_lines(context.outputs["samples"], FIELDS) == [] and context.counts["samples"] == 0


def test_damaged_training_examples_are_named(folder: Path, tmp_path: Path) -> None:
    context = nearest_context(tmp_path, {"micro_iid": SETS["micro_iid"]})
    for name in ("problems/micro_iid.jsonl", "micro/train.jsonl"):
        target = tmp_path / "data/code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_lines(target, read_lines(folder / "data/code" / name, ()))
    lines = (tmp_path / "data/code/micro/train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "data/code/micro/train.jsonl").write_text("".join([*lines[:2], "{}\n"]))
    with pytest.raises(InputError, match=r"train\.jsonl, line 3: set: Field required"):
        nearest.run(context)


def test_impossible_params_are_refused() -> None:
    with pytest.raises(InputError, match="shortest 3 with longest 2 is impossible"):
        validate(NearestParams, {**NEAREST, "shortest": 3}, "params.yaml")
