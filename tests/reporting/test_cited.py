"""The report's every number says where it is from: a value in a file that the stage read, rounded."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lineage.citations import Citation, citations, is_exactly, writes
from lineage.contents import at, parsed
from reporting.cited import Cited, cite, joined
from reporting.labels import number, plus_minus, span
from reporting.schema import BASE, Comparison, Cost, Span
from tests.reporting.test_code_report import Finished, report

NOT_OF_A_FILE = {
    "Versions": {"what", "version"},
    "Input hashes": {"file", "MD5"},
    "Validation perplexity (the ELBO expression)": {"seeds"},
    "Cells: how answers were decoded": {"cell", "steps", "cache", "order", "problem sets"},
    "Table 3: pass@1 in per cent by number of steps": {"steps", "benchmark", "binary", "SM", "gain"},
}
"""Table -> columns whose numbers are no value of a result: settings, hashes, the paper's."""
NAMES = re.compile(r"[a-z_]+-\d+|(, )?seed \d+|\b1/\d\b|iso-\w+|\bmdlm\w*|\bmicro_\w+\+?|EvalPlus|Dream")
"""What has digits and is no number: seeds of models, cells, samplers, problem sets."""


class Cells(HTMLParser):
    """The cells of every table: caption, column, row's name, and the text that cites nothing."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str, str]] = []
        self._columns: list[str] = []
        self._row: list[str] = []
        self._inside: list[str] = []
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("thead", "tbody", "th", "td", "data", "figcaption"):
            self._inside.append(tag)
        if tag == "thead":
            self._columns = []
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            (self._columns if "thead" in self._inside else self._row).append("")
        if tag == "figcaption":
            self._caption = ""

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()
        if tag in ("td", "th") and "tbody" in self._inside:
            column = self._columns[len(self._row) - 1]
            self.found.append((self._caption, column, self._row[0], self._row[-1]))

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] == ["figcaption"]:
            self._caption += data
        elif self._inside[-1:] in (["th"], ["td"]):
            (self._columns if "thead" in self._inside else self._row)[-1] += data


@pytest.fixture(scope="module")
def finished(new_run: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Both halves, made once for all of these tests."""
    return report(new_run, tmp_path_factory.mktemp("finished"))


def values(root: Path) -> Callable[[str], Any]:
    """Looks a source up in the files of a run."""
    files: dict[str, Any] = {}

    def value(source: str) -> Any:
        path, _, key = source.partition(":")
        if path not in files:
            files[path] = parsed((root / path).read_bytes(), path)
        return at(files[path], key)

    return value


def test_every_number_in_a_table_cites_its_value(finished: Finished) -> None:
    cells = Cells(finished.html).found
    assert len(cells) > 1500
    uncited = [
        (caption, column, text)
        for caption, column, row, text in cells
        if column not in NOT_OF_A_FILE.get(caption, set())
        and row != "all of these"
        and not (row == "judging samples" and "cost" in caption)
        and not column.startswith(("note: paper's", "model, as in the paper"))
        and re.search(r"\d", NAMES.sub("", text))
    ]
    assert uncited == []


def test_every_citation_is_the_value_of_its_file(finished: Finished) -> None:
    value = values(finished.root)
    found = citations(finished.html.encode())
    assert len(found) > 1000
    assert [c for c in found if c.value is None or not is_exactly(c.value, value(c.source))] == []
    assert [c for c in found if not writes(c.text, value(c.source))] == []


def test_both_halves_their_plots_and_the_manifests_are_cited(finished: Finished) -> None:
    files = {citation.source.partition(":")[0] for citation in citations(finished.html.encode())}
    assert files >= {"reports/comparison.json", "reports/code_comparison.json", "reports/code_disagreements.json"}
    assert files >= {"reports/plots/loss.csv", "reports/plots/gate.csv", "models/judge/manifest.json"}
    assert files >= {"data/references/manifest.json", "data/samples/base/manifest.json"}


def test_a_finding_cites_its_sentence(finished: Finished) -> None:
    head = citations(finished.html.split("<nav")[0].encode())
    sources = {citation.source for citation in head}
    assert {"reports/comparison.json:findings.0.text", "reports/comparison.json:findings.0.evidence"} <= sources
    assert "reports/code_comparison.json:findings.0.text" in sources


def test_a_link_leads_to_the_trace_and_says_how_to_have_it_without_the_page(finished: Finished) -> None:
    links = re.findall(
        r'<a class="cited" href="([^"]*)" title="([^"]*)"><data value="[^"]*" data-source="([^"]*)"', finished.html
    )
    assert len(links) > 500
    for address, title, source in links:
        assert unquote(address) == f"lineage.html#{source}"
        assert title == f"python -m lineage trace {source}"


def test_an_interval_has_one_link_and_three_citations(finished: Finished) -> None:
    cell = re.search(
        r'<td class="number">(<a class="cited"[^>]*arm_rows\.0\.perplexity\.binary\.ppl.*?)</td>', finished.html
    )
    assert cell is not None and cell[1].count("<a ") == 1
    keys = [citation.source.rpartition(".")[2] for citation in citations(cell[1].encode())]
    assert keys == ["estimate", "low", "high"]


def test_records_know_where_they_were_read() -> None:
    read = Span(estimate=0.5, low=-0.25, high=1e-9).read_from("a.json:rows.2")
    assert citations_of(span(read, 2)) == [
        Citation("a.json:rows.2.estimate", "0.5", "0.50"),
        Citation("a.json:rows.2.low", "-0.25", f"{chr(0x2212)}0.25"),
        Citation("a.json:rows.2.high", "1e-09", "1.0e\N{MINUS SIGN}09"),
    ]
    whole = Cost(updates=3).read_from("costs.json:")
    assert citations_of(cite(whole, "updates")) == [Citation("costs.json:updates", "3", "3")]
    assert cite(whole, "tokens", number) == ""


def test_what_was_made_here_is_plain_text() -> None:
    made = Span(estimate=1.0, low=0.0, high=2.0)
    texts = [span(made), plus_minus(made, "estimate", "high"), joined("a", cite(made, "low", number), "b")]
    assert texts == ["1.00 (0.00 to 2.00)", "1.00 ± 2.00", "a0.00b"]
    assert [type(text) for text in texts] == [str, str, str]


def citations_of(text: str) -> list[Citation]:
    """The citations of a text, as the page would have them."""
    assert isinstance(text, Cited)
    return [Citation(part.source, part.value, part.text) for part in text.parts if part.source]


def test_a_comparison_tells_all_its_records(finished: Finished) -> None:
    comparison = Comparison.model_validate_json((finished.root / "reports/comparison.json").read_bytes())
    comparison.read_from("reports/comparison.json:")
    assert comparison.arm_rows[0].arm == BASE
    assert comparison.arm_rows[0].perplexity[comparison.arm_rows[0].own_path].ppl.place == (
        "reports/comparison.json:arm_rows.0.perplexity.binary.ppl"
    )
