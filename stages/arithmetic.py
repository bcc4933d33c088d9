"""Make the small arithmetic problems: training problems with worked answers, and the test."""

from typing import Any, ClassVar

from artifacts.files import write_lines
from runner.stage import Context, Stage, StageParams
from scoring.micro.arithmetic import Exercise, generate
from scoring.problems import Problem
from stages.params.code.arithmetic import ArithmeticParams

SET = "arithmetic"


class Params(StageParams):
    """What the problems are made from."""

    keys: ClassVar[dict[str, str]] = {"arithmetic": "code.arithmetic"}

    arithmetic: ArithmeticParams


def run(context: Context[Params]) -> None:
    """Make data/code/micro/arithmetic_{train,test}.jsonl: problem records of kind `math`."""
    params = context.params.arithmetic
    sets = generate(params.recipe(), params.train, params.test)
    for name, exercises in (("train", sets.train), ("test", sets.test)):
        write_lines(context.outputs[name], [_record(name, *entry) for entry in enumerate(exercises)])
        context.counts[name] = {
            operation.value: sum(exercise.operation is operation for exercise in exercises)
            for operation in params.operations
        }


def _record(side: str, number: int, exercise: Exercise) -> dict[str, Any]:
    """A problem's record; the worked answer is what a model is taught."""
    return Problem(
        set=SET,
        task_id=f"{SET}/{side}/{number}",
        kind="math",
        request=exercise.request,
        answer=exercise.answer,
        canonical_solution=exercise.response,
    ).record()


STAGE = Stage(
    name="arithmetic",
    params=Params,
    run=run,
    inputs={"check": "data/check/valid.json"},
    outputs={
        "train": "data/code/micro/arithmetic_train.jsonl",
        "test": "data/code/micro/arithmetic_test.jsonl",
        "manifest": "data/code/micro/arithmetic/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
