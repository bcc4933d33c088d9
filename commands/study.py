"""Put kept records of a study on one page: `python -m commands.study reports/study`.

The folder holds what `python -m lineage keep` wrote: the continuation's record, that of `scratch/` and one a folder in
`experiments/`. The page and two pictures are drawn from their comparisons; nothing is computed here.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from artifacts.files import write_text
from lineage.records import files_of, is_record
from reporting import code_figures, code_tables, figures, tables
from reporting.code_schema import CodeComparison
from reporting.code_sections import code_bullets
from reporting.content import Block, Figure, Figures, Paragraph, Report, Section
from reporting.plots import standalone
from reporting.readings import Reader
from reporting.render import render_markdown
from reporting.schema import Comparison
from reporting.sections import findings, summary
from runner.stage import run_command
from softmask.errors import InputError

COMPARISON, CODE_COMPARISON = Path("reports/comparison.json"), Path("reports/code_comparison.json")
REPORT, NO_LOCK = Path("reports/report.md"), "| environment lock, MD5 | no lock file |"
EXPERIMENTS = Path("conf/experiments")
SHOWN_SAMPLER = "mdlm"
"""Of the picture of generation: the paper's standard sampler."""
SHOWN_SET = "micro_iid"


def page(folder: Path) -> Report:
    """The page's content.

    Raises:
        InputError: a comparison is missing or torn.
    """
    reader = Reader()
    files = files_of(folder)
    continuation = reader.cited(files / COMPARISON, Comparison)
    scratch = reader.cited(files_of(folder / "scratch") / COMPARISON, Comparison)
    code = reader.cited(files / CODE_COMPARISON, CodeComparison)
    regimes = (("Continued from a trained base", continuation), ("Trained from scratch", scratch))
    groups = [
        *(replace(group, title=f"{title}: {group.title}") for title, c in regimes for group in findings(c)),
        *code_bullets(code),
    ]
    sections = [Section("", title, language(comparison)) for title, comparison in regimes]
    sections.append(Section("", "Code", [code_tables.at_equal_steps(code), code_tables.gates(code)]))
    sections += [experiment(reader, record) for record in records(folder / "experiments")]
    sections += corrections(reader, folder)
    return Report("The study", f"{summary(continuation)} {summary(scratch)}", groups, sections)


def corrections(reader: Reader, folder: Path) -> Iterator[Section]:
    """What is wrong in kept reports, which stay as they are, and what is so by their comparisons.

    Raises:
        InputError: a comparison is missing or torn.
    """
    reports = [report for record in records(folder) if (report := files_of(record) / REPORT).is_file()]
    wrong = [report for report in reports if NO_LOCK in report.read_text(encoding="utf-8")]
    comparisons = [reader.cited(report.with_name(COMPARISON.name), Comparison) for report in wrong]
    locks = {pair for comparison in comparisons for made in comparison.environments for pair in made.locks.items()}
    if locks:
        said = ", ".join(f"{file} {digest}" for file, digest in sorted(locks))
        line = f"What the reports of {len(wrong)} records say, that there was no environment lock, is wrong: {said}."
        yield Section("", "Correction", [Paragraph(line)])


def language(comparison: Comparison) -> list[Block]:
    """The tables of one language study."""
    drawn = (tables.perplexity, tables.differences, tables.curve, tables.pairs, tables.gates)
    return [table(comparison) for table in drawn]


def records(folder: Path) -> list[Path]:
    """The folders of records in a folder and below."""
    return sorted({place.parent for place in folder.rglob("record.*") if is_record(place.parent)})


def experiment(reader: Reader, record: Path) -> Section:
    """The tables of what an experiment varies: arms of the code study, or of the language study with its samplers.

    Raises:
        InputError: its comparison, or its file in conf/experiments, is missing.
    """
    folder, name = files_of(record), record.name
    file = EXPERIMENTS / f"{name}.yaml"
    if not file.is_file():
        raise InputError("there is no such experiment", where=str(file), todo=f"Remove {record}, or run from the root")
    if name.startswith("code_"):
        code = reader.cited(folder / CODE_COMPARISON, CodeComparison)
        return Section("", name, [Paragraph(about(file)), code_tables.at_equal_steps(code)])
    comparison = reader.cited(folder / COMPARISON, Comparison)
    lead = f"{about(file)} Profile {comparison.profile}, seeds {', '.join(map(str, comparison.seeds))}."
    return Section("", name, [Paragraph(lead), *language(comparison)])


def about(file: Path) -> str:
    """What an experiment's file says of itself: its first comment after `@package`."""
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    said = [line for line in lines if line.startswith("#")]
    return " ".join(line.removeprefix("#").strip() for line in said)


def pictures(folder: Path) -> dict[str, Figure]:
    """File name -> picture: generation of the continuation, and pass@1, against real forward passes."""
    reader, files = Reader(), files_of(folder)
    comparison = reader.cited(files / COMPARISON, Comparison)
    code = reader.cited(files / CODE_COMPARISON, CodeComparison)
    plain = comparison.model_copy(update={"curves": [c for c in comparison.curves if c.sampler == SHOWN_SAMPLER]})
    return {
        "generation.svg": figures.generation(plain).figures[0],
        "pass.svg": _of_set(code_figures.by_steps(code, []), SHOWN_SET),
    }


def _of_set(drawn: Figures, name: str) -> Figure:
    return next(figure for figure in drawn.figures if name in figure.title)


def main(folder: Annotated[Path, typer.Argument(help="With a record, scratch/ and experiments/.")]) -> None:
    """Write FOLDER/README.md, generation.svg and pass.svg."""
    drawn = pictures(folder)
    title, lead, rest = render_markdown(page(folder)).split("\n\n", 2)
    shown = "\n\n".join(f"![{figure.title}]({name})" for name, figure in drawn.items())
    write_text(folder / "README.md", "\n\n".join((title, lead, shown, rest)))
    for name, figure in drawn.items():
        write_text(folder / name, standalone(figure.svg))


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
