"""Stage `report`: the comparisons, samples and traces -> `reports/report.html` and the same as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError

from artifacts.files import write_text
from reporting.code_schema import CodeComparison, Disagreements
from reporting.code_sections import CodeStudy
from reporting.content import Sample, SampleColumn
from reporting.costs import cost_lines
from reporting.labels import count, model_label
from reporting.params.report import ReportParams
from reporting.readings import Instance, Reader, instances, parse
from reporting.render import render_html, render_markdown
from reporting.schema import Comparison, Cost, CostLine, Record
from reporting.sections import assemble
from reporting.series import read_csv
from reporting.trace import Denoising, Trace, denoising
from runner.stage import Context, Stage, StageParams
from softmask.errors import InputError


class ReportStageParams(StageParams):
    """What the report reads."""

    keys: ClassVar[Mapping[str, str]] = {"arms": "arms.names"}

    seeds: list[int]
    """Training seeds; samples and traces are the first one's."""
    arms: list[str]
    """Names of the arms."""
    report: ReportParams


class SampleRow(Record):
    """A line of `samples.jsonl`, as far as it is shown."""

    sampler: str
    nfe: int
    index: int
    real_nfe: float
    text: str


class ReferenceCounts(Record):
    """The counts of the stage `references`, as far as they are shown."""

    judging: Cost


def run(context: Context[ReportStageParams]) -> None:
    """Read, put together, and write both files."""
    params, inputs = context.params, context.inputs
    reader = Reader()
    comparison = reader.cited(inputs["comparison"], Comparison)
    if (comparison.arms, comparison.seeds) != (params.arms, params.seeds):
        raise InputError(
            f"was made from arms {comparison.arms} and seeds {comparison.seeds}",
            where=str(inputs["comparison"]),
            expected=f"{params.arms} and {params.seeds}, as params say",
        )
    plots = {}
    for name in ("loss", "gate"):
        file = inputs["plots"] / f"{name}.csv"
        plots[name] = read_csv(file)
        reader.note(file)
    shown = instances(params.arms, params.seeds[:1])
    samples = [sample_column(reader, inputs["samples"], instance, params.report) for instance in shown]
    traces = [read_trace(reader, inputs["samples"], instance, params.report) for instance in shown]
    costs = read_costs(reader, inputs, comparison)
    code = read_code(reader, inputs)
    hashes = {**comparison.inputs, **(code.comparison.inputs if code else {}), **reader.hashes}
    report = assemble(comparison, params.report.regime, plots, samples, traces, costs, hashes, code)
    write_text(context.outputs["html"], render_html(report))
    write_text(context.outputs["markdown"], render_markdown(report))
    context.read.update({path: {"md5": md5} for path, md5 in reader.hashes.items()})
    context.counts.update(samples=sum(len(column.samples) for column in samples), traces=len(traces))


def read_code(reader: Reader, inputs: Mapping[str, Path]) -> CodeStudy | None:
    """The code study; None for a run without families of code models.

    Raises:
        InputError: a file is missing or torn.
    """
    comparison = reader.cited(inputs["code_comparison"], CodeComparison)
    if not comparison.families:
        return None
    plots = {}
    for name in ("loss", "validation", "gate"):
        file = inputs["code_plots"] / f"{name}.csv"
        plots[name] = read_csv(file)
        reader.note(file)
    return CodeStudy(comparison, reader.cited(inputs["disagreements"], Disagreements), plots)


def read_costs(reader: Reader, inputs: Mapping[str, Path], comparison: Comparison) -> list[CostLine]:
    """What every piece of work cost, from the manifests.

    Raises:
        InputError: a manifest is missing or torn.
    """

    sampling = {
        row.model: reader.counts(inputs["samples"] / row.model / "manifest.json", Cost) for row in comparison.models
    }
    judge = reader.counts(inputs["judge_manifest"], Cost)
    references = reader.counts(inputs["references_manifest"], ReferenceCounts).judging
    return cost_lines(comparison, judge, references, sampling)


def sample_column(reader: Reader, folder: Path, instance: Instance, params: ReportParams) -> SampleColumn:
    """The first samples of a model with the sampler and NFE of params.

    Raises:
        InputError: the file is missing or a line is wrong, or there are no such samples.
    """
    file = folder / instance.name / "samples.jsonl"
    rows = [row for row in read_samples(file) if row.sampler == params.sampler and row.nfe == params.nfe]
    if not rows:
        raise InputError(
            f"has no samples of sampler {params.sampler} at NFE {params.nfe}",
            where=str(file),
            expected="report.sampler and report.nfe to be among those that were generated",
            todo="Change them in params.yaml",
        )
    reader.note(file)
    rows = sorted(rows, key=lambda row: row.index)[: params.samples]
    return SampleColumn(
        model_label(instance.arm, instance.seed), [_sample(row, params.sample_characters) for row in rows]
    )


def read_samples(file: Path) -> Sequence[SampleRow]:
    """The lines of a `samples.jsonl`.

    Raises:
        InputError: the file is missing, or names the line that is wrong.
    """
    rows = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    rows.append(SampleRow.model_validate_json(line))
                except ValidationError as error:
                    message = error.errors()[0]["msg"]
                    raise InputError(message, where=f"{file}, line {number}") from None
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(file)) from None
    return rows


def _sample(row: SampleRow, characters: int) -> Sample:
    note = f"{row.sampler}, NFE {row.nfe}, {row.real_nfe:g} real passes"
    if len(row.text) > characters:
        note += f"; first {count(characters)} of {count(len(row.text))} characters"
    return Sample(row.text[:characters], note)


def read_trace(reader: Reader, folder: Path, instance: Instance, params: ReportParams) -> Denoising:
    """A model's trace, thinned for the page.

    Raises:
        InputError: the file is missing or wrong.
    """
    file = folder / instance.name / "trace.json"
    trace = parse(reader.json(file), Trace, file)
    if not trace.steps or any(len(step.tokens) != trace.length for step in trace.steps):
        raise InputError("steps are missing or misshapen", where=str(file), expected=f"{trace.length} tokens a step")
    return denoising(
        trace,
        model_label(instance.arm, instance.seed),
        params.trace_steps,
        params.trace_guesses,
        params.trace_snapshots,
    )


STAGE = Stage(
    name="report",
    params=ReportStageParams,
    run=run,
    collections=("samples",),
    inputs={
        "check": "data/check/valid.json",
        "comparison": "reports/comparison.json",
        "plots": "reports/plots",
        "samples": "data/samples",
        "code_comparison": "reports/code_comparison.json",
        "disagreements": "reports/code_disagreements.json",
        "code_plots": "reports/code_plots",
        "judge_manifest": "models/judge/manifest.json",
        "references_manifest": "data/references/manifest.json",
    },
    outputs={
        "html": "reports/report.html",
        "markdown": "reports/report.md",
        "manifest": "reports/manifests/report/manifest.json",
    },
)

if __name__ == "__main__":
    STAGE.main()
