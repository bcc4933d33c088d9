"""Puts the report together: what ran and what was found first, then the tables, pictures, samples and cost."""

from collections.abc import Mapping, Sequence

from reporting import figures, paper, tables
from reporting.cited import cite
from reporting.code_sections import CodeStudy, code_bullets, code_sections, code_summary
from reporting.content import (
    Block,
    Bullets,
    DenoisingView,
    Paragraph,
    Report,
    SampleColumn,
    Samples,
    Section,
)
from reporting.labels import arm_label, count, listing
from reporting.params.report import Regime
from reporting.schema import Comparison, CostLine, Topic
from reporting.series import ReadRow
from reporting.trace import Denoising

TITLE = "Soft-masked against binary masked diffusion"
TOPICS = {
    Topic.GATE: "Are the soft masks in use?",
    Topic.PERPLEXITY: "Perplexity",
    Topic.GENERATION: "Generation",
    Topic.LIMITS: "Keep in mind",
}

Rows = Sequence[ReadRow]


def assemble(
    comparison: Comparison,
    regime: Regime,
    plots: Mapping[str, Rows],
    samples: Sequence[SampleColumn],
    traces: Sequence[Denoising],
    costs: Sequence[CostLine],
    hashes: dict[str, str],
    code: CodeStudy | None,
) -> Report:
    """The report.

    Args:
        plots: `loss` and `gate`, the rows of the comparison's CSV files.
        hashes: MD5 of every file read, by the comparisons and by the report.
        code: the code study; None if this run has none.
    """
    gated = any(model.gate is not None for model in comparison.models)
    sections = [
        _paper(comparison, regime),
        Section("perplexity", "Perplexity", [tables.perplexity(comparison), tables.differences(comparison)]),
        _generation(comparison),
        *([_gate(comparison, plots["gate"])] if gated else []),
        Section("training", "Training", [figures.training(comparison, plots["loss"])]),
        _samples(samples),
        Section("denoising", "One sample's denoising", [DenoisingView(traces)]),
        *(code_sections(code) if code else []),
        Section("cost", "Cost", [tables.costs(costs)]),
        Section("sources", "What it was made from", [tables.environments(comparison), tables.inputs(hashes)]),
    ]
    found = findings(comparison) + (code_bullets(code.comparison) if code else [])
    lead = summary(comparison) + (code_summary(code.comparison) if code else "")
    return Report(TITLE, lead, found, sections)


def findings(comparison: Comparison) -> list[Bullets]:
    """The language study's findings by topic."""
    groups = [
        Bullets(title, [(cite(f, "text"), cite(f, "evidence")) for f in comparison.findings if f.topic is topic])
        for topic, title in TOPICS.items()
    ]
    return [group for group in groups if group.items]


def summary(comparison: Comparison) -> str:
    """What ran, in two sentences."""
    r = comparison.resampling
    seeds = listing([str(seed) for seed in comparison.seeds])
    arms = listing([arm_label(arm) for arm in comparison.arms])
    return (
        f"Profile {comparison.profile}: one base, then the arms {arms}, each with "
        f"seed{'' if len(comparison.seeds) == 1 else 's'} {seeds}. "
        "SM is soft-masking. "
        f"Perplexity is measured on {count(r.tokens)} tokens ({count(r.bytes)} bytes) in {r.units:,} {r.unit_kind}."
    )


def _paper(comparison: Comparison, regime: Regime) -> Section:
    profiles = (paper.TABLE_1.profile, paper.TABLE_2.profile)
    lead = (
        "In the paper's order. Paper values are second-hand and stand beside this run's as the same experiment."
        if comparison.profile in profiles
        else "In the paper's order. This run's scale is not the paper's: its values are notes for orientation, "
        "not a comparison."
    )
    blocks: list[Block] = [
        Paragraph(lead),
        tables.paper_generation(comparison, paper.TABLE_1, regime),
        tables.paper_generation(comparison, paper.TABLE_2, regime),
        tables.paper_perplexity(comparison, regime),
        tables.paper_entropy(comparison),
    ]
    return Section("paper", "The paper's tables", blocks)


def _generation(comparison: Comparison) -> Section:
    text = (
        "Read generative perplexity together with entropy: repetitive text lowers both. Real forward passes are what "
        "sampling cost; a step that changed no token costs none, and two-pass sampling costs two a step."
    )
    blocks: list[Block] = [Paragraph(text), figures.generation(comparison), tables.curve(comparison)]
    if comparison.pairs:
        blocks.append(tables.pairs(comparison))
    return Section("generation", "Generation", blocks)


def _gate(comparison: Comparison, gate: Rows) -> Section:
    blocks: list[Block] = [
        tables.gates(comparison),
        figures.gates(comparison, gate),
        tables.lam_by_entropy(comparison),
        Paragraph(paper.FIGURE_3B_NOTE),
    ]
    return Section("gate", "Soft masks", blocks)


def _samples(columns: Sequence[SampleColumn]) -> Section:
    text = "The first samples of each arm's first seed, neither chosen nor repaired."
    return Section("samples", "Samples", [Paragraph(text), Samples(columns)])
