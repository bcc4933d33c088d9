"""Make the small Python problems: training problems, and two held-out sets that share no problem with them."""

from collections.abc import Sequence
from typing import Any, ClassVar

from artifacts.files import write_lines
from runner.stage import Context, Stage, StageParams
from scoring import plain_data
from scoring.micro.generate import MicroProblem, generate
from scoring.problems import Problem
from softmask.errors import InputError
from stages.params.code.micro import MicroParams

SPLITS = ("train", "iid", "new")
_BOUNDS = plain_data.Bounds(size=10**6, nesting=8)
"""Of one call's arguments; what is made here is far smaller."""


class Params(StageParams):
    """What the problems are made from."""

    keys: ClassVar[dict[str, str]] = {"micro": "code.micro"}

    micro: MicroParams


def run(context: Context[Params]) -> None:
    """Make data/code/micro/{train,iid,new}.jsonl: problem records in EvalPlus's format, without expected outputs.

    Raises:
        InputError: params ask for more problems or structures than there are.
    """
    params = context.params.micro
    try:
        sets = generate(params.recipe(), params.train, params.iid, params.new)
    except ValueError as error:
        raise InputError(str(error), where="params.yaml: code.micro", todo="Ask for fewer") from None
    for split, problems in zip(SPLITS, (sets.train, sets.iid, sets.new), strict=True):
        write_lines(context.outputs[split], [_record(f"micro_{split}", *entry) for entry in enumerate(problems)])
        context.counts[split] = {"problems": len(problems), "structures": _structures(problems)}
    context.counts["dropped_from_train"] = dict(sets.dropped)
    context.counts["iid_solutions_in_train_but_for_names"] = sets.known_solutions


def _structures(problems: Sequence[MicroProblem]) -> list[str]:
    return sorted({problem.structure for problem in problems})


def _record(name: str, number: int, problem: MicroProblem) -> dict[str, Any]:
    return Problem(
        set=name,
        task_id=f"{name}/{number}",
        kind="code",
        request=problem.request,
        prompt=problem.prompt,
        entry_point=problem.entry_point,
        canonical_solution=problem.taught if name == "micro_train" else problem.solution,
        base_input=_encoded(problem.examples.base),
        plus_input=_encoded(problem.examples.plus),
        structure=problem.structure,
    ).record()


def _encoded(inputs: Sequence[Sequence[Any]]) -> list[Any]:
    """Plain numbers, text and lists, which stand for themselves: EvalPlus can read them as they are."""
    return [plain_data.encode(list(arguments), _BOUNDS).data for arguments in inputs]


STAGE = Stage(
    name="micro",
    params=Params,
    run=run,
    inputs={"check": "data/check/valid.json"},
    outputs={
        "train": "data/code/micro/train.jsonl",
        "iid": "data/code/micro/iid.jsonl",
        "new": "data/code/micro/new.jsonl",
        "manifest": "data/code/micro/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
