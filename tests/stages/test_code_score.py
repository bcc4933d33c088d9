"""The scoring stage: its files, dedupe and resuming, maths beside code, and what it says about bad inputs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from artifacts.files import read_json, read_lines, write_lines
from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.errors import InputError
from stages import code_score
from stages.code_score import FIELDS, Params, Scorer, metrics, run
from stages.params.code.scoring import SandboxParams, ScoringParams
from stages.shared.sandboxes import Workers

SANDBOX: dict[str, Any] = {
    "isolation": "namespaces",
    "importable": [],
    "seed": 0,
    "call_cpu_s": 0.5,
    "call_wall_s": 5.0,
    "program_wall_s": 10,
    "memory_mib": 256,
    "output_mib": 1,
    "nesting": 64,
    "files_mib": 4,
    "files": 64,
    "open_files": 64,
    "threads": 16,
}
MATH = {"float_rounding": 6, "numeric_precision": 15, "step_seconds": 5, "total_seconds": 20, "memory_mib": 1024}
VALUES: dict[str, Any] = {"extraction_lines": 100, "batch_size": 2, "workers": 2, "sandbox": SANDBOX, "math": MATH}
VERDICT_FIELDS = ("set", "task_id", "cell", "solution", "base", "plus", "detail")


def code(number: int, **changes: Any) -> dict[str, Any]:
    """Adding a number; a base and a plus test."""
    return {
        "set": "adding",
        "task_id": f"adding/{number}",
        "kind": "code",
        "request": f"Add {number}.",
        "prompt": f"def add(x):\n    # Add {number}.\n",
        "entry_point": "add",
        "canonical_solution": f"    return x + {number}\n",
        "contract": "",
        "base_input": [[1]],
        "plus_input": [[-5]],
        "atol": 0,
        "check": None,
        "base_expected": [1 + number],
        "plus_expected": [number - 5],
    } | changes


NO_TESTS: dict[str, Any] = {name: [] for name in ("base_input", "base_expected", "plus_input", "plus_expected")}
CHECK = "def check(candidate):\n    assert candidate(1) == 4\n"
CODE = [code(1), code(2), code(3, **NO_TESTS, check=CHECK)]
SUMS = [{"set": "sums", "task_id": "sums/0", "kind": "math", "request": "What is 2 + 2?", "answer": "4"}]


def answer(problem: Mapping[str, Any], text: str, cell: str = "1/1", **changes: Any) -> dict[str, Any]:
    return {
        "set": problem["set"],
        "task_id": problem["task_id"],
        "cell": cell,
        "prompt_tokens": 9,
        "prefill": "",
        "text": text,
        "ids": [1, 2],
        "tokens": len(text.split()),
        "forwards": 4,
        "positions": 40,
        "ended": True,
    } | changes


RIGHT = "```python\ndef add(x):\n    return x + 1\n```"
ONLY_BASE = "def add(x):\n    return abs(x) + 1\n"
ANSWERS = [
    answer(CODE[0], RIGHT),
    answer(CODE[1], "def add(x):\n    while True: pass\n"),
    answer(CODE[2], "    return x + 3\n", prefill="def add(x):\n"),
    answer(CODE[0], ONLY_BASE, "1/4", forwards=1, positions=10),
    answer(CODE[1], "", "1/4"),
    answer(CODE[2], "def add(x):\n    return x\n", "1/4"),
    answer(SUMS[0], "2 + 2 = 4. The answer is 4."),
]


def params(sets: Sequence[str] = ("adding", "sums"), **changes: Any) -> Params:
    return Params(sets=list(sets), scoring=validate(ScoringParams, {**VALUES, **changes}, "params.yaml"))


def context(folder: Path, answers: Sequence[Any] = ANSWERS, model: str = "sm-3", **changes: Any) -> Context[Params]:
    problems = folder / "problems"
    write_lines(problems / "adding.jsonl", CODE)
    write_lines(problems / "sums.jsonl", SUMS)
    write_lines(folder / "samples.jsonl", answers)
    names = {"verdicts": "verdicts.jsonl", "metrics": "metrics.json", "manifest": "manifest.json"}
    return Context(
        params(**changes),
        {"problems": problems, "samples": folder / "samples.jsonl"},
        {name: folder / file for name, file in names.items()},
        {"family": "dream", "model": model},
        Checkpoints(folder / "store", "key"),
    )


def rows(made: Context[Params]) -> list[dict[str, Any]]:
    return read_lines(made.outputs["verdicts"], VERDICT_FIELDS)


def test_each_answer_gets_a_verdict_and_each_cell_its_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = context(tmp_path)
    run(made)
    assert "generated code: isolation namespaces, memory bounded by limits" in capsys.readouterr().err
    found = [(row["task_id"], row["cell"], row["base"], row["plus"], row["detail"]) for row in rows(made)]
    assert found == [
        ("adding/1", "1/1", "pass", "pass", ""),
        (
            "adding/2",
            "1/1",
            "timeout",
            "timeout",
            "base: input 0: a call took too long; plus: input 0: a call took too long",
        ),
        ("adding/3", "1/1", "pass", None, ""),
        ("adding/1", "1/4", "pass", "fail", "plus: input 0"),
        ("adding/2", "1/4", "error", "error", "base: input 0: KeyError; plus: input 0: KeyError"),
        ("adding/3", "1/4", "fail", None, "base: AssertionError"),
        ("sums/0", "1/1", "pass", None, ""),
    ]
    assert rows(made)[0]["solution"] == "def add(x):\n    return x + 1"
    scores = read_json(made.outputs["metrics"])
    assert {name: scores[name] for name in ("family", "model", "arm", "seed")} == {
        "family": "dream", "model": "sm-3", "arm": "sm", "seed": 3,
    }  # fmt: skip
    assert [(cell["set"], cell["cell"], cell["problems"], cell["pass_base"]) for cell in scores["cells"]] == [
        ("adding", "1/1", 3, pytest.approx(2 / 3)),
        ("adding", "1/4", 3, pytest.approx(1 / 3)),
        ("sums", "1/1", 1, 1.0),
    ]
    assert [cell["pass_plus"] for cell in scores["cells"]] == [0.5, 0.0, None]
    assert [cell["empty_share"] for cell in scores["cells"]] == [0, pytest.approx(1 / 3), 0]
    assert [cell["forwards_mean"] for cell in scores["cells"]] == [4, 3, 4]
    assert made.counts == {"answers": 7, "solutions": 7}
    assert set(made.read) == {f"{tmp_path.as_posix()}/problems/{name}.jsonl" for name in ("adding", "sums")}


@pytest.mark.parametrize(
    ("model", "arm", "seed"),
    [("base", "base", None), ("sm_iso-12", "sm_iso", 12), ("train", "train", None), ("my-own", "my-own", None)],
)
def test_a_model_s_name_says_its_arm_and_seed(tmp_path: Path, model: str, arm: str, seed: int | None) -> None:
    made = context(tmp_path, ANSWERS[:1], model)
    run(made)
    assert (read_json(made.outputs["metrics"])["arm"], read_json(made.outputs["metrics"])["seed"]) == (arm, seed)


def test_the_plus_tests_take_the_base_ones_in() -> None:
    verdicts = [{"base": base, "plus": plus} for base, plus in (("pass", "pass"), ("fail", "pass"), ("pass", "error"))]
    (row,) = metrics([answer(CODE[0], "x")] * 3, verdicts)
    assert (row["pass_base"], row["pass_plus"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_the_same_answers_give_the_same_bytes_however_they_are_cut(tmp_path: Path) -> None:
    first, second = context(tmp_path / "a"), context(tmp_path / "b", batch_size=100, workers=1)
    run(first)
    run(second)
    for name in ("verdicts", "metrics"):
        assert path_hash(first.outputs[name]) == path_hash(second.outputs[name])
    assert first.counts == second.counts


def test_the_same_solution_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    real = Workers.map

    def counted(workers: Workers, work: Any, items: Sequence[Any], *rest: Any) -> Any:
        judged.extend(item.solution for item in items if work is code_score._run)
        return real(workers, work, items, *rest)

    monkeypatch.setattr(Workers, "map", counted)
    again = [answer(CODE[0], RIGHT, cell) for cell in ("1/1", "1/2", "1/4")]
    made = context(tmp_path, [*again, answer(CODE[1], RIGHT)])
    run(made)
    assert len(judged) == 2  # the same text is another solution for another problem
    assert [row["base"] for row in rows(made)] == ["pass", "pass", "pass", "fail"]
    assert made.counts == {"answers": 4, "solutions": 2}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = context(tmp_path / "whole")
    run(whole)
    batches: list[int] = []
    real = Scorer.rows

    def counted(scorer: Scorer, answers: Sequence[Any], problems: Sequence[Any]) -> Any:
        if len(batches) == 2:
            batches.append(0)
            raise KeyboardInterrupt
        batches.append(len(answers))
        return real(scorer, answers, problems)

    monkeypatch.setattr(Scorer, "rows", counted)
    made = context(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run(made)
    assert not made.outputs["verdicts"].exists()
    run(made)
    assert batches == [2, 2, 0, 2, 1]
    for name in ("verdicts", "metrics"):
        assert path_hash(made.outputs[name]) == path_hash(whole.outputs[name])


@pytest.mark.parametrize(
    ("answers", "changes", "message"),
    [
        ([answer(CODE[0], "x", set="other")], {}, r"line 1: the set 'other' is unknown; expected one of adding, sums"),
        ([answer(CODE[0], "x", task_id="adding/9")], {}, r"line 1: the set 'adding' has no problem 'adding/9'"),
        ([{"set": "adding"}], {}, r"line 1: no field 'task_id'"),
        (ANSWERS, {"sets": ["adding", "gone"]}, r"gone.jsonl"),
        (ANSWERS, {"sandbox": {**SANDBOX, "importable": ["no-such"]}}, r"'no-such' is not installed"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_named(
    tmp_path: Path, answers: list[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(context(tmp_path, answers, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"isolation": "none"}, r"isolation: .*none.* is wrong"),
        ({"call_cpu_s": 9.0}, r"call_wall_s 5.0 with call_cpu_s 9.0 is impossible"),
        ({"program_wall_s": 2}, r"program_wall_s 2 with call_wall_s 5.0 is impossible"),
        ({"nesting": 1000}, r"nesting: 1000 is wrong"),
        ({"memory_mib": 1}, r"memory_mib: 1 is wrong"),
    ],
)
def test_impossible_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(SandboxParams, {**SANDBOX, **changes}, "params.yaml")


def test_every_field_that_is_read_is_asked_for() -> None:
    assert set(FIELDS) < set(ANSWERS[0])
    assert json.loads(json.dumps(ANSWERS)) == ANSWERS
