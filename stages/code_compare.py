"""Stage `code_compare`: all code models' scores -> pass@1 with intervals, differences, gates, findings, plots."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from artifacts.files import write_json
from reporting.code_comparing import CodeComparer
from reporting.code_findings import code_findings
from reporting.code_readings import (
    CodeReading,
    check_same_problems,
    code_instances,
    read_code_model,
    read_nearest,
)
from reporting.code_schema import NEAREST, CellInfo, CodeComparison
from reporting.code_series import code_headline, write_code_plots
from reporting.disagreeing import disagreements
from reporting.params.code_compare import CodeCompareParams
from reporting.readings import Reader, distinct
from reporting.schema import BASE
from runner.stage import Context, Stage, StageParams
from stages.params.code.generation import CellParams


class CodeCompareStageParams(StageParams):
    """What the comparison reads."""

    keys: ClassVar[Mapping[str, str]] = {
        "families": "code.families",
        "seeds": "code.seeds",
        "arms": "code.arms.names",
        "sets": "code.problem_sets.sets",
        "cells": "code.generation.cells",
        "compare": "code.compare",
    }

    profile: str
    """The profile's name."""
    families: list[str]
    """Families of models."""
    seeds: list[int]
    """Seeds of finetuning."""
    arms: list[str]
    """Names of the arms."""
    sets: list[str]
    """Problem sets."""
    cells: list[CellParams]
    """How answers were decoded."""
    compare: CodeCompareParams


def run(context: Context[CodeCompareStageParams]) -> None:
    """Read exactly the models that params name, compare them, and write what DVC and the report show."""
    params, inputs, outputs = context.params, context.inputs, context.outputs
    reader = Reader()
    wanted = code_instances(params.families, params.arms, params.seeds)
    readings = [read_code_model(reader, instance, inputs) for instance in wanted]
    if readings:
        readings.append(read_nearest(reader, inputs["scores"]))
        check_same_problems(readings)
    comparison = compare(params, readings, reader)
    differing = disagreements(reader, comparison, params.compare, inputs["scores"], inputs["problems"])
    comparison = comparison.model_copy(update={"inputs": reader.hashes})
    histories = {f"{r.instance.family}/{r.instance.model}": [dict(record) for record in r.history] for r in readings}
    write_code_plots(outputs["plots"], comparison, histories, params.compare.plot_points)
    write_json(outputs["metrics"], code_headline(comparison))
    write_json(outputs["disagreements"], differing.model_dump(mode="json"))
    write_json(outputs["comparison"], comparison.model_dump(mode="json"))
    context.read.update({path: {"md5": md5} for path, md5 in reader.hashes.items()})
    context.counts.update(models=len(readings), points=len(comparison.points), findings=len(comparison.findings))


def compare(params: CodeCompareStageParams, readings: Sequence[CodeReading], reader: Reader) -> CodeComparison:
    """The whole comparison as one record."""
    cells = [cell_info(cell) for cell in params.cells]
    comparer = CodeComparer.of(readings, cells, params.compare)
    models = [comparer.model_row(reading) for reading in readings if reading.instance.arm != NEAREST]
    pairs = [(family, arm) for family in params.families for arm in (BASE, *params.arms)]
    points = [point for pair in (*pairs, (NEAREST, NEAREST)) for point in comparer.points(*pair)]
    differences = comparer.differences(params.families, params.arms)
    return CodeComparison(
        profile=params.profile,
        families=params.families,
        seeds=params.seeds,
        arms=params.arms,
        sets=params.sets,
        cells=cells,
        resamples=params.compare.resamples,
        level=params.compare.level,
        min_problems=params.compare.min_problems,
        gate_lam=params.compare.gate_lam,
        findings=code_findings(models, points, differences, cells, params.compare),
        models=models,
        points=points,
        differences=differences,
        environments=distinct(reading.environment for reading in readings if reading.environment),
        inputs=reader.hashes,
    )


def cell_info(cell: CellParams) -> CellInfo:
    """A cell's settings in words."""
    if cell.threshold is not None:
        budget = f"all above confidence {cell.threshold:g}"
    elif cell.tokens_per_step is not None:
        budget = f"{cell.tokens_per_step} tokens a step"
    else:
        budget = f"{cell.nfe_ratio} of the response length"
    return CellInfo(
        name=cell.name, budget=budget, cache=cell.cache.value, block_length=cell.block_length, sets=cell.sets
    )


STAGE = Stage(
    name="code_compare",
    params=CodeCompareStageParams,
    run=run,
    collections=("scores", "samples", "models", "problems"),
    inputs={
        "check": "data/check/valid.json",
        "scores": "data/code/scores",
        "samples": "data/code/samples",
        "models": "models/dream",
        "problems": "data/code/problems",
    },
    outputs={
        "metrics": "reports/code_metrics.json",
        "comparison": "reports/code_comparison.json",
        "disagreements": "reports/code_disagreements.json",
        "plots": "reports/code_plots",
        "manifest": "reports/manifests/code_compare/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
