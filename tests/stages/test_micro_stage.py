"""The stage micro: records that EvalPlus itself reads, counts, and what params can't ask for."""

from pathlib import Path
from typing import Any

import pytest
from evalplus.data import get_human_eval_plus, humaneval

from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from scoring.problems import read_problems
from softmask.errors import InputError
from stages import micro
from stages.params.code.micro import MicroParams
from tests.stages.tiny_problems import MICRO, context


def params(**changes: Any) -> micro.Params:
    return micro.Params(micro=validate(MicroParams, {**MICRO, **changes}, "params.yaml"))


def make(folder: Path, **changes: Any) -> Context[micro.Params]:
    made: Context[micro.Params] = context(micro.STAGE, params(**changes), folder)
    micro.run(made)
    return made


def test_evalplus_reads_the_sets_through_its_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    for split in ("train", "iid", "new"):
        monkeypatch.setattr(humaneval, "HUMANEVAL_OVERRIDE_PATH", str(made.outputs[split]))
        tasks = get_human_eval_plus()
        assert list(tasks) == [f"micro_{split}/{number}" for number in range(len(tasks))]
        for task in tasks.values():
            namespace: dict[str, Any] = {}
            exec(task["prompt"] + task["canonical_solution"], namespace)
            for given in task["base_input"] + task["plus_input"]:
                namespace[task["entry_point"]](*given)


def test_records_are_problems_and_counts_add_up(tmp_path: Path) -> None:
    made = make(tmp_path)
    for split, count in (("train", 200), ("iid", 12), ("new", 12)):
        problems = read_problems(made.outputs[split])
        assert len(problems) == count == made.counts[split]["problems"]
        assert {problem.structure for problem in problems} == set(made.counts[split]["structures"])
        assert all(not problem.base_expected for problem in problems)
    assert not set(made.counts["train"]["structures"]) & set(made.counts["new"]["structures"])
    assert made.counts["iid_solutions_in_train_but_for_names"] <= 12
    assert all(count > 0 for count in made.counts["dropped_from_train"].values())


def test_a_prompt_with_its_solution_is_a_program_and_so_is_the_solution_alone(tmp_path: Path) -> None:
    for problem in read_problems(make(tmp_path).outputs["iid"]):
        for source in (problem.reference, problem.canonical_solution):
            namespace: dict[str, Any] = {}
            exec(source, namespace)
            assert callable(namespace[problem.entry_point])


def test_the_same_params_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name).outputs for name in ("a", "b"))
    assert [path_hash(first[split]) for split in micro.SPLITS] == [path_hash(second[split]) for split in micro.SPLITS]
    other = make(tmp_path / "c", seed=2).outputs
    assert path_hash(other["train"]) != path_hash(first["train"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 0}, r"train: 0 is wrong; expected at least 1"),
        ({"new_pairs": 0, "new_singles": 0}, "leaves no new structure"),
        ({"new_singles": 40}, "new_singles 40 is too many"),
        ({"known_pairs": 9999}, "known_pairs 9999 with new_pairs 4 is too many"),
        ({"held_out": {**MICRO["held_out"], "names": 1.0}}, "held_out.names"),
    ],
)
def test_impossible_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        params(**changes)


def test_more_problems_than_there_are_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"code\.micro: there are .* distinct problems for new, not 9000"):
        make(tmp_path, new=9000, new_pairs=0, new_singles=1)
    assert not (tmp_path / "data/code/micro/train.jsonl").exists()
