"""`verify` holds a page's citations against the files that they name; `cited` traces them. Any DVC project may cite."""

import json
import shutil
import time
from html import escape
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lineage.citations import Citation, citations, is_exactly, writes
from lineage.cited import cited
from lineage.cli import app
from lineage.errors import AuditError
from lineage.hashing import file_hash
from lineage.model import Fault
from lineage.repository import Repository
from lineage.trace import trace
from lineage.verify import verify
from tests.lineage.projects import begin, commit, copied, write
from tests.pipeline.clones import Clone, run

METRICS = {
    "loss": {"mean": 2.34567, "low": -0.0123, "high": 1.2e-7},
    "rate": 0.475,
    "runs": [{"count": 12345}, {"count": 7}],
    "verdict": "lower in every seed",
    "flops": 1234567890123456789,
}
GOOD = {
    "loss": ("metrics.json:loss.mean", "2.34567", "2.35"),
    "interval": ("metrics.json:loss.low", "-0.0123", "\N{MINUS SIGN}0.012"),
    "tiny": ("metrics.json:loss.high", "1.2e-07", "1.2e-7"),
    "percent": ("metrics.json:rate", "0.475", "47.5 %"),
    "in a column of per cent": ("metrics.json:rate", "0.475", "47.5"),
    "grouped": ("metrics.json:runs.0.count", "12345", "12,345"),
    "words": ("metrics.json:verdict", "lower in every seed", "lower in every seed"),
    "large": ("metrics.json:flops", "1.2345678901234568e+18", "1.235e18"),
    "table": ("tables/curve.csv:1.loss", "0.5", "0.50"),
    "setting": ("params.yaml:seed", "3", "3"),
}
STAGES = """
stages:
  score:
    cmd: cp raw.json metrics.json
    deps: [raw.json]
    metrics: [metrics.json: {cache: false}]
  tables:
    cmd: mkdir tables && cp raw.csv tables/curve.csv
    deps: [raw.csv]
    outs: [tables]
  report:
    cmd: cp page.html report.html && mkdir pages && cp page.html pages/copy.html
    deps: [metrics.json, tables, page.html]
    outs: [report.html, pages]
"""


def cell(source: str, value: str, text: str) -> str:
    """A cell that cites."""
    return (
        f'<td><a href="#x"><data value="{escape(value)}" data-source="{escape(source)}">{escape(text)}</data></a></td>'
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Path:
    """A project whose page cites a metric that git keeps, a table in a cached folder, and a parameter."""
    root = tmp_path_factory.mktemp("reports") / "project"
    page = "<p>Not closed <table><tr>" + "\n".join(cell(*each) for each in GOOD.values()) + "</table><data>1</data>"
    write(
        root,
        {
            "dvc.yaml": STAGES,
            "raw.json": json.dumps(METRICS),
            "raw.csv": "step,loss\n0,1.5\n1,0.5\n",
            "page.html": page,
            "params.yaml": "seed: 3\n",
        },
    )
    begin(root)
    run(["dvc", "repro", "--quiet"], root)
    commit(root, "first")
    return root


def wrong(root: Path, revision: str | None = None) -> list[tuple[str, str]]:
    """Path and sentence of what is wrong with reports."""
    findings = verify(Repository(root), revision).findings
    return [(finding.path, finding.what) for finding in findings if finding.fault is Fault.REPORT]


def edited(project: Path, folder: Path, before: str, after: str) -> Path:
    """A copy whose report was edited."""
    root = copied(project, folder)
    page = root / "report.html"
    text = page.read_text()
    assert text.count(before) == 1
    page.unlink()
    page.write_text(text.replace(before, after))
    return root


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_a_report_that_says_what_its_sources_say_holds(project: Path, revision: str | None) -> None:
    verification = verify(Repository(project), revision)
    assert verification.findings == ()


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (">2.35<", ">2.25<", 'it shows "2.25", metrics.json:loss.mean is 2.34567'),
        ('"2.34567"', '"2.24567"', 'it was made from "2.24567", metrics.json:loss.mean is 2.34567'),
        (">\N{MINUS SIGN}0.012<", ">0.012<", 'it shows "0.012", metrics.json:loss.low is -0.0123'),
        (">47.5 %<", ">57.5 %<", 'it shows "57.5 %", metrics.json:rate is 0.475'),
        (">1.2e-7<", ">1.2e-6<", 'it shows "1.2e-6", metrics.json:loss.high is 1.2e-07'),
        (">12,345<", ">12,346<", 'it shows "12,346", metrics.json:runs.0.count is 12345'),
        (">lower in every seed<", ">lower<", 'it shows "lower", metrics.json:verdict is "lower in every seed"'),
        (">0.50<", ">0.05<", 'it shows "0.05", tables/curve.csv:1.loss is "0.5"'),
        (">3<", ">4<", 'it shows "4", params.yaml:seed is 3'),
        ("runs.0.count", "runs.5.count", "it cites metrics.json:runs.5.count, and there is no such key"),
        ("tables/curve.csv", "tables/other.csv", "it cites tables/other.csv:1.loss, and there is no such file"),
        ("params.yaml", "nowhere.yaml", "it cites nowhere.yaml:seed, and there is no such file"),
    ],
)
def test_an_edited_number_is_named_with_both_numbers(
    project: Path, tmp_path: Path, before: str, after: str, what: str
) -> None:
    assert wrong(edited(project, tmp_path, before, after)) == [("report.html", what)]


def test_a_stale_report_differs_wherever_the_metric_does(project: Path, tmp_path: Path) -> None:
    root = copied(project, tmp_path)
    write(root, {"metrics.json": json.dumps({**METRICS, "rate": 0.5})})
    said = 'it was made from "0.475", metrics.json:rate is 0.5'
    assert sorted(wrong(root)) == 2 * [("pages/copy.html", said)] + 2 * [("report.html", said)]
    assert wrong(root, "HEAD") == []


def test_a_page_that_is_all_wrong_is_told_in_few_words(project: Path, tmp_path: Path) -> None:
    root = edited(project, tmp_path, "<table>", "<table>" + cell("metrics.json:rate", "1", "1") * 50)
    found = wrong(root)
    assert len(found) == 21
    assert found[-1] == ("report.html", "30 more of its citations don't hold")


def test_what_is_cited_and_not_here_is_not_wrong(project: Path, tmp_path: Path) -> None:
    root = copied(project, tmp_path)
    (root / "metrics.json").unlink()
    shutil.rmtree(root / ".dvc/cache")
    findings = verify(Repository(root)).findings
    assert [f.what for f in findings if f.path == "report.html"] == [
        "metrics.json, which it cites, is not here or can't be read"
    ]
    assert wrong(root) == []


def test_pages_without_citations_say_nothing(broad: Path) -> None:
    assert wrong(broad) == []
    assert citations(b"<p>1 <data value='2'>two</data> <span data-source='a:b'>3</span></p>") == []


def test_a_page_is_read_as_it_is() -> None:
    page = b"""<data data-source="a.json:k" value="1&lt;2">1 &lt;
      <b>2</b></data><script>"<data data-source='x'>1</data>"</script><!-- <data data-source="y">1</data> -->
      <data data-source="b.json:x.0">5 <data data-source="inner" value="6">6</data></data></data>
      <data data-source="open.json:x" value="1">1"""
    found = [Citation("a.json:k", "1<2", "1 < 2"), Citation("b.json:x.0", None, "5 6")]
    assert citations(page) == [*found, Citation("open.json:x", "1", "1")]
    cell = b'<DATA DATA-SOURCE="a.json:k" data-source=other VALUE="1">2</DATA>'
    for before in (
        b"",
        b"<!-- a --!>",
        b'<a title="<!--">',
        b"<script>'<!--'</script>",
        b"<a b='>' c=\">\" d=e>",
        b"<![CDATA[",
    ):
        assert citations(before + (b">" if before.endswith(b"[") else b"") + cell) == [Citation("a.json:k", "1", "2")]
    for before in (b"<!--", b"<title>", b"<a title='", b"<script>"):
        assert citations(before + cell) == []


@pytest.mark.parametrize(
    "piece", ["<!--", "<![CDATA[", "</a ", "<a ", "<", "<a b='", "<data", "</", "<data data-source=a>"]
)
def test_a_page_that_opens_and_never_closes_is_read_at_once(piece: str) -> None:
    before = time.process_time()
    citations(f"<data data-source='a:b'>1</data>{piece * 100_000}".encode())
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("0.12", 0.125),
            ("0.13", 0.125),
            ("-1", -1.4),
            ("1,000.0", 999.96),
            ("+3.0", 2.96),
            ("1.0e\N{MINUS SIGN}05", 1e-5),
        ),
        *(("12.3%", 0.1234), ("12.3 %", 0.1234), ("12.3", 0.1234), ("0", 0.4), ("true", True), ("null", None)),
        *((".5", 0.5), ("nan", float("nan")), ("1.5", "1.5"), ("1.50", "1.5"), ("several words", "several\n words")),
    ],
)
def test_rounded_values_are_accepted(text: str, value: object) -> None:
    assert writes(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0.12", 0.1251), ("1", -1), ("1.0e-04", 1e-5), ("12.3%", 12.3), ("12.3%", 0.12351), ("1", 0.4)),
        *(("", 0), ("1 2", 12), ("1", True), ("0", None), ("1", {"a": 1}), ("1", [1]), ("words", "other words")),
        *(("\u0661", 1), ("1e99999", 1.0), ("inf", 1e308), ("0.", "x")),
    ],
)
def test_other_texts_are_not(text: str, value: object) -> None:
    assert not writes(text, value)


@pytest.mark.parametrize(
    ("said", "value", "holds"),
    [
        *(("0.1", 0.1, True), ("0.10", 0.1, True), ("5.0", 5, True), ("0.1", 0.10000001, False), ("x", "x", True)),
        *(
            ("true", True, True),
            ("1", True, False),
            ("NaN", float("nan"), True),
            ("", 0, False),
            ("[" * 9999, 1, False),
        ),
        *(("1234567890123456788", 1234567890123456789, False), ("1.2345678901234568e18", 1234567890123456789, True)),
    ],
)
def test_exact_values_are_the_same_number(said: str, value: object, holds: bool) -> None:
    assert is_exactly(said, value) is holds


@pytest.mark.parametrize("revision", [None, "HEAD"])
def test_a_number_of_a_table_in_a_folder_can_be_asked_about(project: Path, revision: str | None) -> None:
    found = trace(Repository(project), "tables/curve.csv:0.loss", revision)
    assert (found.target.path, found.target.key, found.target.value) == ("tables/curve.csv", "0.loss", "1.5")
    assert found.target.hash == file_hash(project / "tables/curve.csv")


def test_every_citation_has_its_trace(project: Path) -> None:
    traces = cited(Repository(project), "report.html")
    found = {trace.target.asked: trace.target.value for trace in traces}
    sources = {source for source, _, _ in GOOD.values()}
    assert found.keys() == {"report.html"} | sources - {"params.yaml:seed"}
    assert found["tables/curve.csv:1.loss"] == "0.5"
    assert {step.name for trace in traces for step in trace.steps} == {"score", "tables", "report"}
    assert [gap.what for trace in traces for gap in trace.gaps] == [
        "it cites params.yaml:seed, of which there is no trace"
    ]


def test_the_page_of_traces_has_every_number_and_is_the_only_file_written(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    before = {path for path in project.rglob("*") if ".dvc/tmp" not in path.as_posix()}
    page = tmp_path / "lineage.html"
    result = CliRunner().invoke(app, ["cited", "report.html", "--html", str(page), "--rev", "HEAD"])
    assert result.exit_code == 3  # a parameter has no trace
    assert 'id="metrics.json:runs.0.count"' in page.read_text()
    assert 'id="tables/curve.csv:1.loss"' in page.read_text()
    assert {path for path in project.rglob("*") if ".dvc/tmp" not in path.as_posix()} == before


@pytest.mark.parametrize(
    ("report", "message"),
    [("none.html", "the report is not here"), ("metrics.json", "it cites nothing")],
)
def test_a_page_that_cannot_be_traced_is_a_mistake(project: Path, report: str, message: str) -> None:
    with pytest.raises(AuditError, match=message):
        cited(Repository(project), report)


@pytest.mark.slow
def test_the_report_of_a_real_run_holds_and_all_of_it_has_a_trace(smoke: Clone) -> None:
    sources = {citation.source for citation in citations((smoke.root / "reports/report.html").read_bytes())}
    assert len(sources) > 500
    assert wrong(smoke.root) == []
    traces = cited(Repository(smoke.root), "reports/report.html")
    assert {trace.target.asked for trace in traces} == sources | {"reports/report.html"}
    assert [gap for trace in traces for gap in trace.gaps] == []
