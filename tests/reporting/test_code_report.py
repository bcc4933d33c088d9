"""The code study in the report: its tables in the paper's order, its answers as text only, both formats alike."""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reporting.code_labels import points
from softmask.errors import InputError
from tests.reporting.code_run import CodeRun, cell
from tests.reporting.test_report import Page

PAPER_SETS = {"humaneval": 30, "humaneval_plus": 30, "mbpp_full": 40, "mbpp_plus": 35}


@dataclass(frozen=True)
class Finished:
    """A report with a code study, for tests that only read it."""

    html: str
    markdown: str
    root: Path


def report(new_run: Callable[[Path], Any], root: Path, profile: str = "local", **changes: Any) -> Finished:
    """The report of a run with a code study."""
    with contextlib.chdir(root):
        run = new_run(root)
        run.profile = profile
        run.compare()
        CodeRun(root, profile=profile, **changes).write().compare()
        html, markdown = run.report()
        return Finished(html, markdown, root)


@pytest.fixture(scope="module")
def finished(new_run: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Made once for all of these tests."""
    return report(new_run, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def paper(new_run: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """With the paper's profile, families and problem sets."""
    cells = [cell("1/4"), cell("1/2"), cell("1/1")]
    families = ("dream", "dream_coder")
    root = tmp_path_factory.mktemp("paper")
    return report(new_run, root, "paper", families=families, sets=PAPER_SETS, cells=cells, nearest=False)


def table(markdown: str, caption: str) -> list[list[str]]:
    """The rows of a table, its heading first."""
    text = markdown.split(f"**{caption}**")[1].lstrip().split("\n\n")[0]
    rows = [[part.strip() for part in line.strip("|").split(" | ")] for line in text.splitlines()]
    return [rows[0], *rows[2:]]


def section(page: str, title: str) -> str:
    """A section of the Markdown."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_study_has_its_sections_and_findings(finished: Finished) -> None:
    titles = re.findall(r'<li><a href="#(code[a-z-]*)">([^<]*)</a>', finished.html)
    assert titles == [
        ("code", "Code"),
        ("code-caches", "Code: caches"),
        ("code-answers", "Code: answers that differ"),
        ("code-training", "Code: finetuning and cost"),
    ]
    head = finished.html.split("<nav")[0]
    assert "Dream, micro_iid+: SM solves more problems than binary at 1/4, 1/2 and 1/1." in head
    assert "Code: Dream, finetuned as binary and SM with seeds 1 and 2; problems of micro_iid (60)" in head


def test_the_page_stays_sound(finished: Finished) -> None:
    attributes = Page(finished.html).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in attributes if name == "href" and value.startswith("#")}
    assert targets | set(re.findall(r"url\(#([^)]+)\)", finished.html)) <= set(ids)
    for picture in re.findall(r"<svg.*?</svg>", finished.html, flags=re.DOTALL):
        ElementTree.fromstring(picture)


def test_rows_go_by_family_then_steps_then_model(finished: Finished) -> None:
    heading, *rows = table(finished.markdown, "pass@1 at equal steps")
    assert heading == ["family", "steps", "model", r"micro\_iid+", r"micro\_new+", "arithmetic"]
    assert [tuple(row[:3]) for row in rows] == [
        ("Dream", "none", "nearest training example"),
        *(
            ("Dream", steps, model)
            for steps in ("1/4", "1/2", "1/1")
            for model in ("base", "binary", "SM", "SM against binary")
        ),
    ]
    assert rows[3][3] == "47.5 ± 3.5"
    assert re.fullmatch(r"\+17\.5 \(\+[0-9.]+ to \+[0-9.]+\)\\\*", rows[4][3])


def test_the_papers_values_stand_under_ours_and_unknown_ones_are_blank(paper: Finished) -> None:
    heading, *rows = table(paper.markdown, "pass@1 at equal steps")
    assert heading[3:] == ["HumanEval", "HumanEval+", "MBPP", "MBPP+"]
    values = {tuple(row[:3]): row[3:] for row in rows}
    assert values["Dream", "1/4", "paper: SM"] == ["25.6", "", "32.8", "36.7"]
    assert values["Dream", "1/2", "paper: SM against binary"] == ["", "", "", "+15.1"]
    assert values["Dream-Coder", "1/1", "paper: binary"] == ["75.7", "", "", ""]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert "Table 3" not in section(paper.markdown, "Code")
    assert "mbpp\\_evalplus\\_base" in {row[1] for row in table(paper.markdown, "Every cell")}


def test_at_another_scale_the_papers_values_are_notes(finished: Finished) -> None:
    assert "paper: SM" not in finished.markdown
    heading, *rows = table(finished.markdown, "Table 3: pass@1 in per cent by number of steps")
    assert heading == ["family", "steps", "benchmark", "binary", "SM", "gain"]
    assert ["Dream", "1/1", "HumanEval+", "53.0", "50.0", "\N{MINUS SIGN}3.0"] in rows
    assert "as reported second-hand" in section(finished.markdown, "Code")


def test_a_cache_is_shown_with_what_it_costs_and_saves(finished: Finished) -> None:
    _, *rows = table(finished.markdown, "What a cache costs and saves")
    row = next(row for row in rows if row[1:4] == [r"micro\_iid+", "SM", "1/2 dual"])
    assert row[4:6] == ["1/2", "lower"]
    assert row[-3:] == ["100%", "33%", "33%"]
    pictures = re.findall(r"<figcaption>(Dream, [^<]*: (?:forwards|FLOPs))</figcaption>", finished.html)
    assert pictures == ["Dream, micro_iid+: forwards", "Dream, micro_iid+: FLOPs"]


def test_costs_add_up(finished: Finished) -> None:
    _, *rows = table(finished.markdown, "What the code study cost")
    total = rows.pop()
    assert sum(int(row[4].replace(",", "")) for row in rows) == int(total[4].replace(",", ""))
    # training (1 + 2) x 50 + 2 x 90; answers: (60 + 40 + 30) problems x 56 steps, and 60 x 16 with a cache, by 5 models
    assert total[4] == f"{330 + 5 * (130 * 56 + 60 * 16):,}"


def test_answers_and_requests_reach_the_page_as_text_only(new_run: Callable[[Path], Any], tmp_path: Path) -> None:
    attack = "\0</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>&lt;````\n"
    made = report(new_run, tmp_path, text=attack, request="Write <b>task</b>", sets={"micro_iid": 20})
    page = Page(made.html)
    assert not [tag for tag, _, _ in page.attributes if tag in ("img", "b")]
    attack = attack.replace("\0", "\u2400")
    assert attack in "".join(page.text)
    assert "Write <b>task</b> " in "".join(page.text)
    assert f"`````text\n{attack}def f" in made.markdown
    assert r"Write \<b\>task\</b\> " in made.markdown


def test_each_listed_problem_has_both_answers_and_its_filter(finished: Finished) -> None:
    listed = json.loads((finished.root / "reports/code_disagreements.json").read_text())["listed"]
    assert finished.html.count('<details class="problem"') == len(listed) > 0
    first = finished.html.split('<details class="problem"')[1].split("</details>")[0]
    assert "SM, seed 1: pass" in first and "binary, seed 1: fail" in first
    assert first.count("<pre") == 2
    assert 'data-group="Dream, micro_iid+, 1/4, SM"' in first
    assert "<option>Dream, micro_iid+, 1/4, SM</option>" in finished.html


def test_both_formats_have_the_same_tables(finished: Finished) -> None:
    cells = Page(finished.html).cells
    plain = " ".join(re.sub(r"\\([\\`*_<>|\[\]])", r"\1", finished.markdown).split())
    assert [part for part in cells if part not in plain] == []


def test_the_same_study_gives_the_same_bytes(
    new_run: Callable[[Path], Any], tmp_path: Path, finished: Finished
) -> None:
    again = report(new_run, tmp_path)
    assert (again.html, again.markdown) == (finished.html, finished.markdown)
    assert str(finished.root) not in finished.html


def test_few_problems_make_a_report_too(new_run: Callable[[Path], Any], tmp_path: Path) -> None:
    made = report(new_run, tmp_path, sets={"micro_iid": 8, "arithmetic": 1}, seeds=(1,))
    assert "Sets of few problems: micro_iid (8) and arithmetic (1)" in made.html
    assert "47.5 ±" not in made.markdown


def test_a_study_without_soft_masks_or_differences_makes_a_report_too(
    new_run: Callable[[Path], Any], tmp_path: Path
) -> None:
    made = report(new_run, tmp_path, arms=("binary",), cells=[cell("1/1")])
    assert 'id="code-answers"' not in made.html and 'id="code-caches"' not in made.html
    assert "Soft masks of the code study" not in made.markdown


def test_a_run_without_code_models_has_no_code_section(new_run: Callable[[Path], Any], tmp_path: Path) -> None:
    made = report(new_run, tmp_path, families=())
    assert 'id="code"' not in made.html


def test_every_file_that_was_read_is_cited(finished: Finished) -> None:
    for file in ("data/code/scores/dream/sm-2/verdicts.jsonl", "reports/code_comparison.json"):
        assert file.replace("_", r"\_") in section(finished.markdown, "What it was made from")


def test_a_torn_comparison_is_named(new_run: Callable[[Path], Any], tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        run = new_run(tmp_path)
        run.compare()
        CodeRun(tmp_path).write().compare()
        file = Path("reports/code_comparison.json")
        file.write_text(file.read_text().replace('"pass1"', '"passed"'))
        with pytest.raises(InputError, match=r"code_comparison\.json: points\.0\.pass1: Field required"):
            run.report()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-4.4e-18, "+0.0"), (-0.0, "+0.0"), (-0.0133, "\N{MINUS SIGN}1.3"), (1 / 3, "+33.3")],
)
def test_points_are_rounded_and_a_rounding_error_is_no_difference(value: float, shown: str) -> None:
    assert points(value) == shown
