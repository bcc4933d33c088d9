"""A model card says what the record holds and nothing else, in the hub's format."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from lineage.card import card, code
from lineage.cli import app
from lineage.hashing import bytes_hash
from lineage.repository import Repository
from lineage.results import measured, numbers_in
from lineage.text import printable
from lineage.trace import trace
from tests.lineage.model_projects import FOLDER, HUB
from tests.lineage.projects import begin, commit, copied, write
from tests.pipeline.clones import run

MARKDOWN = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def text(plain: Path) -> str:
    """The card of the plain project's model."""
    return card(Repository(plain), "model", "HEAD").text


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a card, as rows of cells of plain text, as Markdown reads them."""
    found: list[list[list[str]]] = []
    tokens = MARKDOWN.parse(ModelCard(text).text)
    for token, following in pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append("".join(child.content for child in following.children or []))
    return found


def test_the_hubs_library_reads_the_metadata(text: str) -> None:
    data: Any = ModelCard(text).data
    assert data.datasets == ["org/words"]
    assert data.base_model == ["org/tiny-model"]
    results = {each.metric_name: each.metric_value for each in data.eval_results}
    assert results == {"metrics.json:loss.mean": 1.25, "metrics.json:rows": 10}
    assert data.model_name == "model"
    assert str(ModelCard(text)) == text


def test_the_card_says_what_the_record_does(text: str, plain: Path) -> None:
    head = run(["git", "rev-parse", "HEAD"], plain).strip()
    what, runs, data, pins, parameters, seeds, locks, results = tables(text)
    assert ["commit", head] in what and ["made by", "train"] in what
    assert [row[0] for row in runs[1:]] == ["raw.dvc", "prepare", "train"]
    assert runs[2][1] == "cp raw/numbers.txt rows.txt"
    assert ["words", trace(Repository(plain), "model").steps[-1].inputs[2].file.hash, "git"] in data
    assert ["org/words", HUB, "yes", "params.yaml: data.hub", "train"] in pins
    assert ["train", "params.yaml: big", "12345678901234567890"] in parameters
    assert seeds[1:] == [["train", "seed = 3"]]
    assert [row[0] for row in locks[1:]] == ["requirements.lock"]
    assert ["metrics.json:rows", "10", "score"] in results
    for command in re.findall(r"^dvc-lineage (.+)$", text, re.MULTILINE):
        assert head in command


def test_its_commands_work(text: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain)
    commands = re.findall(r"^dvc-lineage (.+)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["trace", "verify", "rederive", "check"]
    for command in commands[:2]:
        assert CliRunner().invoke(app, command.split()).exit_code == 0, command


def test_what_is_unknown_is_said_or_left_out(without_commits: Path, plain: Path) -> None:
    text = card(Repository(without_commits), "copy").text
    assert text.startswith("---\nmodel_name: copy\n---\n")
    assert ["recorded in git", "in no commit"] in tables(text)[0]
    assert ["in.txt", bytes_hash(b"1\r\n2\r\n"), "unpinned"] in tables(text)[3]
    assert "The runs do not say what they were made with." in text
    assert "No run made it." in card(Repository(plain), "score.py").text


def test_nasty_names_stay_text(nasty: Path) -> None:
    text = card(Repository(nasty), FOLDER).text
    what, *_ = found = tables(text)
    assert ["target", FOLDER] in what
    (value,) = [row[2] for table in found for row in table if row[:2] == ["train", "sätze.yaml: rate"]]
    assert json.loads(value) == "<script>alert(1)</script> | pipe ` tick"
    assert not [t for t in MARKDOWN.parse(ModelCard(text).text) if t.type.startswith("html")]
    data: Any = ModelCard(text).data
    assert data.model_name == FOLDER
    assert ["my metrics.json:a | b`", "1", "score"] in [row for table in found for row in table]


@given(st.text().filter(lambda text: text.replace("\0", "").split()))
def test_any_text_stays_itself_in_a_cell(anything: str) -> None:
    visible = printable(" ".join(anything.replace("\0", "").split()))
    cells = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {code(visible)} | x |\n")
    inline = [token for token in cells if token.type == "inline"]
    assert len(inline) == 4
    shown = "".join(child.content for child in inline[2].children or [] if child.type != "html_inline")
    assert shown == visible


def test_the_same_record_gives_the_same_card(plain: Path, text: str, tmp_path: Path) -> None:
    assert card(Repository(copied(plain, tmp_path)), "model", "HEAD").text == text


def test_the_command_writes_the_card(plain: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain)
    file = tmp_path / "README.md"
    assert CliRunner().invoke(app, ["card", "model", "--rev", "HEAD", "--output", str(file)]).exit_code == 0
    assert file.read_text() == text


def test_numbers_are_finite_and_no_truth_values() -> None:
    value: dict[str, Any] = {"a": {"b": 1, "c": True, "d": float("nan")}, "e": "1", "f": None, "g": 0.5}
    assert [*numbers_in(value)] == [("a.b", 1), ("g", 0.5)]


def test_points_of_a_curve_are_no_results() -> None:
    assert [*numbers_in({"roc": [{"fpr": 0.1, "tpr": 0.5}], "auc": 0.9, "series": [1, 2]})] == [("auc", 0.9)]


INSTANCES = {
    "base": ([], ["base.bin"]),
    "train@a": (["base.bin"], ["a.bin"]),
    "train@b": (["base.bin"], ["b.bin"]),
    "score_base": (["base.bin"], ["base.metrics.json"]),
    "generate@a": (["a.bin"], ["a.txt"]),
    "score@a": (["a.txt"], ["a.metrics.json"]),
    "score@b": (["b.bin"], ["b.metrics.json"]),
    "look": (["a.bin"], ["look.metrics.json"]),
    "compare": (["a.metrics.json", "b.metrics.json"], ["all.metrics.json"]),
}
"""Run -> what it reads and makes: two instances of a model, and what is measured on each, on their base, and on all."""


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory, private_folders: None) -> Repository:
    """A project with the record of INSTANCES."""
    root = tmp_path_factory.mktemp("instances")
    content = json.dumps({"n": 1})

    def entries(names: list[str]) -> list[dict[str, str]]:
        return [{"path": name, "hash": "md5", "md5": bytes_hash(content.encode())} for name in names]

    stages = {n: {"cmd": n, "deps": entries(r), "outs": entries(m)} for n, (r, m) in INSTANCES.items()}
    files = {name: content for _, made in INSTANCES.values() for name in made}
    write(root, {**files, "dvc.lock": json.dumps({"schema": "2.0", "stages": stages})})
    begin(root)
    commit(root, "first")
    return Repository(root)


@pytest.mark.parametrize(
    ("target", "own", "compared"),
    [
        ("a.bin", ["a.metrics.json", "look.metrics.json"], ["all.metrics.json"]),
        ("b.bin", ["b.metrics.json"], ["all.metrics.json"]),
        ("a.metrics.json", ["a.metrics.json"], ["all.metrics.json"]),
        (
            "base.bin",
            ["base.metrics.json"],
            ["a.metrics.json", "all.metrics.json", "b.metrics.json", "look.metrics.json"],
        ),
    ],
)
def test_numbers_of_other_models_are_not_the_targets(
    target: str, own: list[str], compared: list[str], instances: Repository
) -> None:
    found = measured(instances, trace(instances, target, "HEAD"))
    assert [each.path for each in found if each.own] == own
    assert [each.path for each in found if not each.own] == compared
    assert all(bool(each.numbers) is each.own for each in found)


def test_a_metrics_file_that_is_not_as_recorded_gives_no_numbers(plain: Path, tmp_path: Path) -> None:
    root = copied(plain, tmp_path)
    (root / "metrics.json").write_text('{"rows": 11}')
    repository = Repository(root)
    (found,) = measured(repository, trace(repository, "model"))
    assert ("rows", 10) in found.numbers  # the recorded ones, which DVC's run cache has
    shutil.rmtree(root / ".dvc" / "cache" / "files" / "md5" / str(found.hash)[:2])
    (found,) = measured(repository, trace(repository, "model"))
    assert (found.readable, found.numbers) == (False, ())
    assert "Not here, or not as recorded: `metrics.json`." in card(repository, "model").text
