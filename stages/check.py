"""Validate all of params.yaml before anything is computed. Every other stage depends on this one's output."""

from typing import ClassVar

from artifacts.files import write_json
from runner.lock import require_whole
from runner.stage import Context, Stage, StageParams, declared_stages
from softmask.errors import InputError
from stages.params.root import RootParams

COMMANDS = ("snapshot", "promotion")
"""What a retrain runs beside the stages."""


class Params(StageParams, RootParams):
    """All of params.yaml."""

    whole_file: ClassVar[bool] = True


def run(context: Context[Params]) -> None:
    """Write a constant: params that are valid, whatever they are, must not make other stages run again.

    Raises:
        InputError: a stage that params name isn't in dvc.yaml, or dvc.lock is torn.
    """
    require_whole()
    known = [*declared_stages(), *COMMANDS]
    for name in context.params.orchestration.stages:
        if name not in known:
            raise InputError(
                f"there is no stage {name!r}",
                where=f"params.yaml: orchestration.stages.{name}",
                expected=f"some of {', '.join(known)}",
            )
    write_json(context.outputs["valid"], {"params": "valid"})


STAGE = Stage(
    name="check",
    params=Params,
    run=run,
    inputs={},
    outputs={"valid": "data/check/valid.json", "manifest": "data/check/manifest.json"},
)

if __name__ == "__main__":
    STAGE.main()
