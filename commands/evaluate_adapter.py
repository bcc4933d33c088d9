"""Evaluate your own adapter as the arms are evaluated: `python -m commands.evaluate_adapter PATH --family NAME`.

A command, no stage of the pipeline: it runs the stages `code_generate` and `code_score` on the family's base, tokenizer
and problems with the parameters of params.yaml, and writes to reports/adapters/. Run again, it goes on where it was.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from artifacts.files import read_json
from artifacts.hashing import file_md5, path_hash
from runner.section import lookup, read_yaml
from runner.stage import PARAMS_FILE, Context, Stage, declared_code, run_command, write_manifests
from runner.store import hold, location
from softmask.errors import InputError
from stages import code_generate, code_score

REPORTS = Path("reports/adapters")
SCORES = Path("data/code/scores")
ADAPTER_CONFIG = "adapter_config.json"
BASE = "base"
NAME = re.compile(r"[\w.+-]+")


def main(
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder of the adapter: peft's files, and soft_mask.json or the official "
            "transparency_config.json if it is soft-masked."
        ),
    ],
    family: Annotated[str, typer.Option(help="Whose base, tokenizer and problems: one of params.yaml: code.families.")],
    name: Annotated[str, typer.Option(help="Name in reports/adapters/; empty: the folder's.")] = "",
) -> None:
    """Evaluate an adapter as the arms are, and show its scores beside theirs."""
    metrics = evaluate(path, family, name or path.resolve().name)
    Console().print(table(metrics, others(family)))


def evaluate(path: Path, family: str, name: str) -> dict[str, Any]:
    """Generate and score with the adapter in a folder; its metrics, as `code_score` makes them.

    Raises:
        InputError: the folder is no adapter, the name is none, params.yaml has no such family, or the family's base,
            tokenizer or problems have not been made.
    """
    axes = {"family": family, "model": name}
    _check(path, axes)
    folder = REPORTS / family / name
    answers, scores = folder / "answers", folder / "scores"
    started = time.time()
    with ExitStack() as held:
        generated, generating = _context(held, code_generate.STAGE, axes, answers, {"adapter": path})
        code_generate.run(generating)
        samples = {"samples": generating.outputs["samples"]}
        scored, scoring = _context(held, code_score.STAGE, axes, scores, samples)
        code_score.run(scoring)
        for record, context in ((generated, generating), (scored, scoring)):
            write_manifests(record, context, context.made(), started)
            context.checkpoints.clear()
    metrics: dict[str, Any] = read_json(scoring.outputs["metrics"])
    return metrics


def _check(path: Path, axes: Mapping[str, str]) -> None:
    if not NAME.fullmatch(axes["model"]):
        raise InputError(f"{axes['model']!r} is no name", where="--name", expected="letters, digits and . + - _")
    if not (path / ADAPTER_CONFIG).is_file():
        raise InputError(f"has no {ADAPTER_CONFIG}", where=str(path), expected="the folder of a peft adapter")
    families = lookup(read_yaml(PARAMS_FILE), "code.families", str(PARAMS_FILE))
    if axes["family"] not in families:
        expected = f"one of params.yaml: code.families: {', '.join(map(str, families))}"
        raise InputError(f"there is no family {axes['family']!r}", where="--family", expected=expected)


def _context(
    held: ExitStack, stage: Stage[Any], axes: Mapping[str, str], folder: Path, inputs: Mapping[str, Path]
) -> tuple[dict[str, Any], Context[Any]]:
    """What a stage gets when the pipeline runs it, but for some inputs, its outputs' folder and its checkpoints.

    Before it, what a manifest says of that.
    """
    params = stage.params.read(axes)
    read = {**{name: Path(pattern.format(**axes)) for name, pattern in stage.inputs.items()}, **inputs}
    for path in read.values():
        if not path.exists():
            raise InputError("the input is missing", where=str(path), todo="Make it first: dvc repro")
    outputs = {name: folder / Path(pattern).name for name, pattern in stage.outputs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "stage": stage.instance(axes),
        "params": params.recorded(axes),
        "inputs": {str(path): path_hash(path) for name, path in read.items() if name not in stage.collections},
        "code": {file: file_md5(Path(file)) for file in declared_code(stage.name)},
    }
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    checkpoints = held.enter_context(hold(location(), f"adapter-{stage.instance(axes)}", key))
    return record, Context(params, read, outputs, axes, checkpoints)


def others(family: str) -> dict[str, list[dict[str, Any]]]:
    """Label -> metrics of the base and of each arm's seeds, as far as the pipeline has scored them."""
    raw = read_yaml(PARAMS_FILE)
    arms, seeds = (lookup(raw, key, str(PARAMS_FILE)) for key in ("code.arms.names", "code.seeds"))
    models = {BASE: [BASE], **{arm: [f"{arm}-{seed}" for seed in seeds] for arm in arms}}
    files = {label: [SCORES / family / model / "metrics.json" for model in names] for label, names in models.items()}
    there = {label: [file for file in paths if file.exists()] for label, paths in files.items()}
    return {label: [read_json(file) for file in paths] for label, paths in there.items() if paths}


def table(metrics: Mapping[str, Any], beside: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """pass@1 of the adapter in every set and cell, beside that of others (arms: mean over seeds)."""
    shown = Table(title=f"pass@1 in %, {metrics['family']}", title_justify="left")
    for column in ("set", "cell", "part"):
        shown.add_column(column)
    for column in (str(metrics["model"]), *beside):
        count = len(beside.get(column, ()))
        shown.add_column(column if count < 2 else f"{column} ({count} seeds)", justify="right")
    for cell in metrics["cells"]:
        for part in ("base", "plus"):
            if cell[f"pass_{part}"] is None:
                continue
            values = [_percent([metrics], cell, part), *(_percent(them, cell, part) for them in beside.values())]
            shown.add_row(cell["set"], cell["cell"], part, *values)
    return shown


def _percent(models: Sequence[Mapping[str, Any]], cell: Mapping[str, Any], part: str) -> str:
    values = [
        own[f"pass_{part}"]
        for model in models
        for own in model["cells"]
        if (own["set"], own["cell"]) == (cell["set"], cell["cell"]) and own[f"pass_{part}"] is not None
    ]
    return f"{100 * mean(values):.1f}" if values else ""


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
