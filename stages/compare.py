"""Stage `compare`: all models' metrics -> intervals, paired differences, gates, findings, DVC's metrics and plots."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from artifacts.files import write_json
from reporting import generating, series
from reporting.comparing import Comparer
from reporting.findings import all_findings
from reporting.params.compare import CompareParams
from reporting.readings import Reader, Reading, check_same_text, distinct, instances, read_model, read_references
from reporting.schema import BASE, Comparison, NllPath, ReferenceMetrics, Resampling
from runner.stage import Context, Stage, StageParams


class CompareStageParams(StageParams):
    """What the comparison reads."""

    keys: ClassVar[Mapping[str, str]] = {"arms": "arms.names"}

    profile: str
    """The profile's name."""
    seeds: list[int]
    """Training seeds."""
    arms: list[str]
    """Names of the arms."""
    compare: CompareParams


def run(context: Context[CompareStageParams]) -> None:
    """Read exactly the models that params name, compare them, and write what DVC and the report show."""
    params, inputs, outputs = context.params, context.inputs, context.outputs
    reader = Reader()
    readings = [
        read_model(reader, instance, inputs["evaluation"], inputs["models"])
        for instance in instances(params.arms, params.seeds)
    ]
    check_same_text(readings)
    references = read_references(reader, inputs["references"])
    comparison = compare(params, readings, references, reader)
    judge = reader.json(inputs["judge_history"])
    histories = {reading.instance.name: reading.history for reading in readings}
    series.write_plots(outputs["plots"], histories, judge, comparison.curves, params.compare.plot_points)
    write_json(outputs["metrics"], headline(comparison))
    write_json(outputs["comparison"], comparison.model_dump(mode="json"))
    context.read.update({path: {"md5": md5} for path, md5 in reader.hashes.items()})
    context.counts.update(
        models=len(readings),
        units=comparison.resampling.units,
        tokens=comparison.resampling.tokens,
        findings=len(comparison.findings),
    )


def compare(
    params: CompareStageParams, readings: Sequence[Reading], references: ReferenceMetrics, reader: Reader
) -> Comparison:
    """The whole comparison as one record."""
    comparer = Comparer.of(readings, params.compare)
    models = [comparer.model_row(reading) for reading in readings]
    arm_rows = [comparer.arm_row(arm) for arm in (BASE, *params.arms)]
    differences = comparer.differences(params.arms)
    rows = generating.rows(readings)
    curves = generating.curves(rows)
    open_gates = {row.arm: row.gate_open == row.seeds for row in arm_rows if row.gate_open is not None}
    pairs = generating.pairs(readings, params.arms, open_gates, params.compare)
    resampling = _resampling(readings[0], params.compare)
    return Comparison(
        profile=params.profile,
        seeds=params.seeds,
        arms=params.arms,
        resampling=resampling,
        findings=all_findings(models, arm_rows, differences, pairs, curves, resampling, params.compare.min_units),
        models=models,
        arm_rows=arm_rows,
        differences=differences,
        generation=rows,
        curves=curves,
        pairs=pairs,
        nfe_tolerance=params.compare.nfe_tolerance,
        gate_lam=params.compare.gate_lam,
        real_text=references.generation_row,
        real_text_note=references.note,
        judge=references.judge,
        environments=distinct(reading.environment for reading in readings),
        inputs=reader.hashes,
    )


def _resampling(reading: Reading, params: CompareParams) -> Resampling:
    arrays = reading.arrays
    return Resampling(
        unit_kind=arrays.unit_kind,
        units=len(arrays.tokens),
        tokens=int(arrays.tokens.sum()),
        bytes=int(arrays.bytes.sum()),
        draws=len(arrays.nll[NllPath.BINARY]),
        resamples=params.resamples,
        level=params.level,
        seed=params.seed,
    )


def headline(comparison: Comparison) -> dict[str, Any]:
    """The few numbers that `dvc metrics show` and `dvc exp show` have room for."""
    language: dict[str, Any] = {}
    for row in comparison.arm_rows:
        own = row.perplexity[row.own_path]
        language[row.arm] = {
            "ppl": own.ppl.estimate,
            "ppl_low": own.ppl.low,
            "ppl_high": own.ppl.high,
            "bits_per_byte": own.bits_per_byte.estimate,
        }
        if row.own_path is NllPath.TWO_PASS:
            language[row.arm]["ppl_one_pass"] = row.perplexity[NllPath.BINARY].ppl.estimate
    for difference in comparison.differences:
        if difference.reference != BASE and difference.path is not NllPath.BINARY:
            language[difference.arm][f"nll_vs_{difference.reference}"] = {
                **difference.nll.model_dump(),
                "verdict": str(difference.verdict),
            }
    gates = {
        row.model: {
            "open": row.gate.open,
            "lam_mean": row.gate.metrics.lam_mean,
            "omega_s": row.gate.metrics.omegas.omega_s,
        }
        for row in comparison.models
        if row.gate is not None
    }
    generation: dict[str, Any] = {}
    for point in comparison.curves:
        cell = {"gen_ppl": point.gen_ppl, "entropy": point.entropy, "real_nfe": point.real_nfe}
        if point.mauve is not None:
            cell["mauve"] = point.mauve
        generation.setdefault(point.arm, {}).setdefault(point.sampler, {})[str(point.nfe)] = cell
    real = {"gen_ppl": comparison.real_text.gen_ppl, "entropy": comparison.real_text.entropy}
    judge = {"ppl": comparison.judge.ppl}
    return {"lm": language, "gate": gates, "generation": {**generation, "real text": real}, "judge": judge}


STAGE = Stage(
    name="compare",
    params=CompareStageParams,
    run=run,
    collections=("evaluation", "models"),
    inputs={
        "check": "data/check/valid.json",
        "evaluation": "data/evaluation",
        "models": "models/mdlm",
        "references": "data/references/metrics.json",
        "judge_history": "models/judge/history.json",
    },
    outputs={
        "metrics": "reports/metrics.json",
        "comparison": "reports/comparison.json",
        "plots": "reports/plots",
        "manifest": "reports/manifests/compare/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
