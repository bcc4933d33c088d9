"""The report of a finished run: self-contained, escaped, the same in both formats, byte for byte the same again."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from artifacts.hashing import file_md5
from artifacts.manifest import Environment
from reporting.render import fence, prose
from reporting.trace import Trace, denoising
from softmask.errors import InputError

MakeRun = Callable[..., Any]
"""The fixture's factory: see conftest.py."""
REPOSITORY = Path(__file__).parents[2]


class Page(HTMLParser):
    """Tags, ids and text of a page; asserts that tags nest."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        """The text of every cell of a table."""
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.text.append(data)
        if {"th", "td"} & set(self.stack):
            self.cells[-1] += data


@dataclass(frozen=True)
class Finished:
    """The report of the fixture's run, for tests that only read it."""

    html: str
    markdown: str
    root: Path


@pytest.fixture(scope="module")
def finished(new_run: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Made once for all of these tests."""
    root = tmp_path_factory.mktemp("finished")
    with contextlib.chdir(root):
        html, markdown = report(new_run(root))
    return Finished(html, markdown, root)


def report(run: Any, **changes: Any) -> tuple[str, str]:
    """HTML and Markdown of a run."""
    run.compare()
    html, markdown = run.report(**changes)
    return html, markdown


def test_the_page_refers_to_nothing_outside_of_itself(finished: Finished) -> None:
    html = finished.html
    references = [value for _, name, value in Page(html).attributes if name in {"src", "href", "xlink:href", "data"}]
    assert references
    assert all(value.startswith(("#", "lineage.html#")) or value == "data:," for value in references)
    assert "http://" not in html
    assert "https://" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html


def versions(markdown: str) -> dict[str, str]:
    """The report's table of versions."""
    table = markdown.partition("**Versions**")[2].partition("**")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[4:] if line]
    return {name: version.replace("\\", "") for name, version in rows}


def test_the_environment_is_that_of_the_evaluations_with_its_lock_files(finished: Finished) -> None:
    here = Environment.here()
    locks = {name: file_md5(finished.root / name) for name in ("requirements.lock", "requirements-cuda.lock")}
    shown = {f"{name}, MD5": digest for name, digest in locks.items()}
    assert versions(finished.markdown) == {"python": here.python, **here.versions, **shown}
    assert set(locks.values()) <= set(Page(finished.html).cells)


def test_an_environment_without_lock_files_is_said_to_have_none(make_run: MakeRun) -> None:
    shown = versions(report(make_run(locks={}))[1])
    assert {name: value for name, value in shown.items() if "MD5" in name} == {"environment lock, MD5": "no lock file"}


def test_ids_are_unique_and_every_local_reference_has_its_target(finished: Finished) -> None:
    html = finished.html
    attributes = Page(html).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in attributes if name == "href" and value.startswith("#")}
    assert targets | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_pictures_are_sound_xml_in_the_colour_of_the_page(finished: Finished) -> None:
    html = finished.html
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == 10
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "currentColor" in picture
    assert "#010203" not in html


def test_generated_text_reaches_the_page_as_text_only(make_run: MakeRun) -> None:
    attack = "</script></pre><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\n"
    run = make_run(text=attack)
    for file in Path("data/samples").rglob("trace.json"):
        trace = json.loads(file.read_text())
        trace["steps"][-1]["tokens"][0] = attack
        file.write_text(json.dumps(trace))
    page = Page(report(run)[0])
    assert not [tag for tag, _, _ in page.attributes if tag == "img"]
    assert attack in "".join(page.text)
    scripts = [value for tag, name, value in page.attributes if tag == "script" and name == "type"]
    assert scripts == ["application/json"] * 3


def test_the_trace_in_the_page_is_the_trace_of_the_run(make_run: MakeRun) -> None:
    html, _ = report(make_run(), trace_steps=5)
    data = re.findall(r'<script type="application/json" class="trace">(.*?)</script>', html, flags=re.DOTALL)
    traces = [json.loads(text) for text in data]
    assert [trace["label"] for trace in traces] == ["base", "binary, seed 1", "SM iso-update, seed 1"]
    original = json.loads(Path("data/samples/sm_iso_update-1/trace.json").read_text())
    shown = traces[-1]
    assert [step["step"] for step in shown["steps"]] == [1, 4, 7, 9, 12]
    tokens = [None] * shown["length"]
    for step in shown["steps"]:
        for position, token in step["set"]:
            tokens[position] = token
        source = original["steps"][step["step"] - 1]
        assert tokens == source["tokens"]
        assert [row[0] for row in step["fed"]] == [row["position"] for row in source["feedback"]]
    assert shown["steps"][0]["fed"][0][2][0] == [original["steps"][0]["feedback"][0]["guesses"][0][0], 0.7]


def test_a_token_that_a_sampler_masks_again_is_masked_in_the_view() -> None:
    steps = [
        {"t": 0.9, "tokens": ["a", None], "unmasked": [0], "feedback": []},
        {"t": 0.5, "tokens": [None, "b"], "unmasked": [1], "feedback": []},
    ]
    trace = Trace.model_validate({"model": "m", "sampler": "remdm-cap", "nfe": 2, "length": 2, "steps": steps})
    view = denoising(trace, "m", steps=10, guesses=3, snapshots=2)
    assert [step["set"] for step in view.data["steps"]] == [[[0, "a"]], [[0, None], [1, "b"]]]
    assert [snapshot.text for snapshot in view.snapshots] == ["a░", "░b"]


def test_both_formats_have_the_same_content(finished: Finished) -> None:
    html, markdown = finished.html, finished.markdown
    text = " ".join("".join(Page(html).text).split())
    plain = " ".join(re.sub(r"\\([\\`*_<>|\[\]])", r"\1", markdown).split())
    comparison = json.loads((finished.root / "reports/comparison.json").read_text())
    for finding in comparison["findings"]:
        assert finding["text"] in text
        assert finding["text"] in plain
    for sentence in re.findall(r"<figcaption>([^<]+)</figcaption>\s*<div class=\"scroll\"", html):
        assert sentence.replace("&#39;", "'") in plain
    cells = Page(html).cells
    assert len(cells) > 500
    assert [cell for cell in cells if cell not in plain] == []


def test_the_same_run_gives_the_same_bytes_and_no_date(make_run: MakeRun, finished: Finished) -> None:
    assert report(make_run()) == (finished.html, finished.markdown)
    assert not re.search(r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9]\b", finished.html)
    assert str(finished.root) not in finished.html


def test_every_file_that_was_read_is_cited_by_its_hash(finished: Finished) -> None:
    for file in (
        "data/evaluation/sm_iso_update-2/nll.safetensors",
        "data/samples/base/trace.json",
        "reports/comparison.json",
    ):
        assert f"| {prose(file)} | {file_md5(finished.root / file)} |" in finished.markdown


def test_three_samples_of_each_arm_stand_side_by_side(make_run: MakeRun) -> None:
    html, markdown = report(make_run(text="def f(x):\n\n\n\n    return x\n"))
    columns = re.findall(r"# (base|binary-1|sm_iso_update-1) 16 ([0-9])", markdown)
    assert columns == [(model, str(i)) for model in ("base", "binary-1", "sm_iso_update-1") for i in range(3)]
    assert "def f(x):\n\n\n\n    return x\n" in markdown
    assert html.count('<figure class="sample"><pre tabindex="0" aria-label="Sample') == 9


def test_a_long_sample_is_cut_and_said_to_be(make_run: MakeRun) -> None:
    _, markdown = report(make_run(text="x" * 900), sample_characters=100)
    assert "first 100 of 912 characters" in markdown
    assert "x" * 101 not in markdown


def test_at_another_scale_the_papers_values_are_notes(finished: Finished) -> None:
    markdown = finished.markdown
    assert "its numbers are not comparable with the paper's" in " ".join(markdown.split())
    assert "| MDLM, 1M steps (start) |" in markdown
    assert "note: paper's, as reported second-hand" in markdown
    assert "| paper, as reported second-hand" not in markdown


def test_in_the_papers_profile_its_values_stand_beside_ours_and_unknown_ones_are_blank(make_run: MakeRun) -> None:
    run = make_run(profile="paper", arms=("binary", "sm_iso_update", "sm_iso_compute"))
    _, markdown = report(run)
    assert re.search(r"\| \+ 100k steps SM \(two passes\) \| 5\.\d+ \(.*?\) \| 21\.63 \|", markdown)
    assert re.search(r"\| SM iso-compute \(two passes\) \| 5\.\d+ \(.*?\) \|  \|", markdown)
    assert re.search(
        r"\| standard \| SM iso-update \| 32 \| empty: [^|]+ \| [0-9.]+ ± [0-9.]+ \| 0\.509 \|  \|", markdown
    )
    assert "Paper values are second-hand and stand beside this run's" in markdown


def test_a_continuation_has_no_numbers_in_the_table_of_training_from_scratch(finished: Finished) -> None:
    markdown = finished.markdown
    table = markdown.split("**Table 1: ")[1].split("**Table 2")[0]
    assert "| sampler | model, as in the paper | note: paper's, as reported second-hand |" in table
    assert "This run's setting is 'continuation', so it has no numbers for this table." in table


def test_tables_follow_the_papers_order(finished: Finished) -> None:
    markdown = finished.markdown
    places = [markdown.index(title) for title in ("**Table 1:", "**Table 2:", "**Table 4 and", "**Tables 5 and 7:")]
    assert places == sorted(places)


def test_a_closed_gate_is_said_on_the_first_screen(make_run: MakeRun) -> None:
    html, _ = report(make_run(lam_mean=0.003))
    head = html.split("<nav")[0]
    assert "gate of SM iso-update is closed in seed 1 and seed 2" in head
    assert "none is made" in head


def test_costs_add_up(make_run: MakeRun) -> None:
    _, markdown = report(make_run(arms=("binary",), seeds=(1,)))
    # judge 300, references 192, training 2 x 400, sampling 2 x 700, perplexity 2 x 4000, judging 2 x 192
    assert "| all of these |  | 1,100 | 11,076 |" in markdown


def test_a_run_without_soft_masks_has_no_section_about_them(make_run: MakeRun) -> None:
    html, markdown = report(make_run(arms=("binary",)))
    assert "## Soft masks" not in markdown
    assert 'id="gate"' not in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfe": 17}, "has no samples of sampler mdlm at NFE 17; expected report.sampler and report.nfe"),
        ({"sampler": "remdm-cap"}, "has no samples of sampler remdm-cap"),
    ],
)
def test_samples_that_were_not_generated_are_an_error(make_run: MakeRun, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=r"data/samples/base/samples\.jsonl") as caught:
        report(make_run(), **changes)
    assert message in str(caught.value)


def test_a_torn_line_of_samples_is_named(make_run: MakeRun) -> None:
    run = make_run()
    file = Path("data/samples/binary-1/samples.jsonl")
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match=r"binary-1/samples\.jsonl, line 12"):
        report(run)


def test_a_misshapen_trace_is_named(make_run: MakeRun) -> None:
    run = make_run()
    file = Path("data/samples/base/trace.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "length": 3}))
    with pytest.raises(InputError, match=r"base/trace\.json: steps are missing or misshapen; expected 3 tokens a step"):
        report(run)


def test_a_comparison_of_other_models_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    run.compare()
    run.seeds = (1,)
    with pytest.raises(InputError, match="was made from arms"):
        run.report()


def test_markdown_shows_marks_and_fences_as_they_are() -> None:
    assert prose("a_b | <b>\n*c* `d`") == r"a\_b \| \<b\> \*c\* \`d\`"
    assert fence("x\n````\ny").splitlines()[0] == "`````text"


def test_neither_stage_loads_a_model_library() -> None:
    code = (
        "import sys, stages.compare, stages.report; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
