"""The code study's part of the report: its sentences in the summary and the findings, then its sections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reporting import code_figures, code_paper, code_tables
from reporting.cited import cite
from reporting.code_labels import code_arm_label, code_model_label, family_label, measure
from reporting.code_schema import Answer, CodeComparison, CodeTopic, Disagreement, Disagreements
from reporting.content import Answers, AnswerText, Block, Bullets, DifferingProblem, Paragraph, Section
from reporting.labels import count, listing
from reporting.schema import REFERENCE_ARM
from reporting.series import ReadRow

TOPICS = {
    CodeTopic.GATE: "Code: are the soft masks in use?",
    CodeTopic.PASS: "Code: problems solved",
    CodeTopic.CACHE: "Code: caches",
    CodeTopic.LIMITS: "Code: keep in mind",
}

CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
"""Control characters, which an undertrained model writes, to their pictures: browsers drop or refuse some of them."""

Rows = Sequence[ReadRow]


@dataclass(frozen=True)
class CodeStudy:
    """What the code study's part of the report is made from."""

    comparison: CodeComparison
    differing: Disagreements
    plots: Mapping[str, Rows]
    """`loss`, `validation` and `gate`, the rows of the comparison's CSV files."""


def code_summary(comparison: CodeComparison) -> str:
    """What ran, in a sentence."""
    families = listing([family_label(family) for family in comparison.families])
    arms = listing([code_arm_label(arm) for arm in comparison.arms])
    seeds = listing([str(seed) for seed in comparison.seeds])
    sets = {point.set: point.problems for point in comparison.points}
    problems = listing([f"{name} ({count(size)})" for name, size in sets.items()])
    plural = "" if len(comparison.seeds) == 1 else "s"
    return f" Code: {families}, finetuned as {arms} with seed{plural} {seeds}; problems of {problems}."


def code_bullets(comparison: CodeComparison) -> list[Bullets]:
    """The findings by topic."""
    groups = [
        Bullets(title, [(cite(f, "text"), cite(f, "evidence")) for f in comparison.findings if f.topic is topic])
        for topic, title in TOPICS.items()
    ]
    return [group for group in groups if group.items]


def code_sections(study: CodeStudy) -> list[Section]:
    """The sections, in the paper's order: equal steps, caches, answers, soft masks and cost."""
    comparison = study.comparison
    sections = [_steps(comparison)]
    if code_tables.has_caches(comparison):
        sections.append(_caches(comparison))
    if study.differing.counts:
        sections.append(_answers(study.differing))
    blocks: list[Block] = [code_figures.training(comparison, study.plots)]
    if any(model.gate is not None for model in comparison.models):
        blocks.insert(0, code_tables.gates(comparison))
    return [*sections, Section("code-training", "Code: finetuning and cost", [*blocks, code_tables.costs(comparison)])]


def _steps(comparison: CodeComparison) -> Section:
    matched = comparison.profile == code_paper.PROFILE
    lead = (
        "Each answer starts as masks and is finished in so many steps as a fraction of its length; at 1/1 a step sets "
        "one token. pass@1 is the share of problems whose one answer passes all tests, run in a sandbox and judged by "
        "EvalPlus's rules. "
    ) + (
        "Paper values are second-hand and stand below this run's as the same experiment."
        if matched
        else "This run's scale is not the paper's: its values are notes for orientation, not a comparison."
    )
    numbers = [table(comparison) for table in (code_tables.differences, code_tables.everything, code_tables.cells)]
    blocks: list[Block] = [Paragraph(lead), code_tables.at_equal_steps(comparison)]
    blocks.append(code_figures.by_steps(comparison, numbers))
    return Section("code", "Code", blocks if matched else [*blocks, code_tables.paper_notes(comparison)])


def _caches(comparison: CodeComparison) -> Section:
    text = (
        "Accuracy against what decoding costs, for every way of decoding: solid lines without a cache, dashed with the "
        "keys and values before a block kept (prefix), dotted with those on both sides kept (dual). A cached step is a "
        "forward pass like any other but computes fewer positions, which FLOPs show."
    )
    return Section(
        "code-caches",
        "Code: caches",
        [Paragraph(text), code_figures.by_cost(comparison), code_tables.caches(comparison)],
    )


def _answers(differing: Disagreements) -> Section:
    text = (
        f"Problems that a soft-masked arm solves and {code_arm_label(REFERENCE_ARM)} doesn't, or the other way, at the "
        "first seed and the cells without a cache: the first of each direction as they stand in the set, neither "
        "chosen nor repaired. An answer is the program that was extracted and run."
    )
    problems = [_problem(item) for item in differing.listed]
    blocks: list[Block] = [Paragraph(text), code_tables.disagreements(differing)]
    return Section("code-answers", "Code: answers that differ", [*blocks, *([Answers(problems)] if problems else [])])


def _problem(item: Disagreement) -> DifferingProblem:
    winner = item.arm if item.arm.passes else item.reference
    return DifferingProblem(
        title=f"{item.task_id} at {item.cell}: only {code_arm_label(winner.arm)} solves it",
        groups=(family_label(item.family), measure(item.set, item.part), item.cell, code_arm_label(item.arm.arm)),
        request=item.request,
        answers=[_answer(answer) for answer in (item.arm, item.reference)],
    )


def _answer(answer: Answer) -> AnswerText:
    note = f"{code_model_label(answer.arm, answer.seed)}: {answer.status}"
    if answer.cut:
        note += f"; {count(answer.cut)} characters are left out"
    return AnswerText(note, answer.text.translate(CONTROLS) or "(no program in the answer)", answer.passes)
