"""The held-out sets of the stage `micro` as problems of a set with its own name."""

from pathlib import Path

from scoring.problems import read_problems
from stages.sources.code_problems import Draft, How


def micro_problems(name: str, file: Path) -> list[Draft]:
    """The problems in the file's order.

    Args:
        name: of the set.

    Raises:
        InputError: the file is missing or damaged.
    """
    problems = read_problems(file)
    return [
        Draft(problem.model_copy(update={"set": name, "task_id": f"{name}/{number}"}), How.AS_IS)
        for number, problem in enumerate(problems)
    ]
