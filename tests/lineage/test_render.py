"""A trace is shown whole and safely: as a tree, JSON, a flowchart and a page. The project was never run: text only."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lineage.cli import app
from lineage.commands.common import Exit
from lineage.commands.trace import write as write_page
from lineage.errors import AuditError
from lineage.hashing import bytes_hash
from lineage.model import Gap
from lineage.render.closure import union
from lineage.render.drawing import Drawing, Shape
from lineage.render.mermaid import mermaid
from lineage.render.page import page
from lineage.render.tree import tree
from lineage.repository import Repository
from lineage.trace import Trace, trace
from tests.lineage.projects import begin, commit, write

EVIL = "</script><img src=https://evil.example/x onerror=alert(1)>"
NUMBERS = '{"loss": {"all": 0.25}, "other": 1}'
PREPARED, MODEL, METRICS, RAW = "a" * 32, "b" * 32, bytes_hash(NUMBERS.encode()), "d" * 32


def entry(command: str, deps: dict[str, str], outs: dict[str, str], params: str = "") -> str:
    """A stage of a dvc.lock."""
    lines = [f"    cmd: {command}"]
    for kind, files in (("deps", deps), ("outs", outs)):
        lines.append(f"    {kind}:")
        lines += [f"    - {{path: {path}, hash: md5, md5: {md5}, size: 2048}}" for path, md5 in files.items()]
    return "\n".join([*lines, params]).rstrip() + "\n"


LOCK = (
    "schema: '2.0'\nstages:\n  prepare:\n"
    + entry("cp raw.csv prepared.csv", {"raw.csv": RAW, "code.py": bytes_hash(b"")}, {"prepared.csv": PREPARED})
    + "".join(
        f"  fit@{name}:\n"
        + entry(
            f"python code.py --seed {name}",
            {"prepared.csv": PREPARED, "code.py": bytes_hash(b"")},
            {f"models/{name}": MODEL},
            f"    params:\n      params.yaml:\n        fit: {{seed: 3, note: {json.dumps(EVIL)}}}\n",
        )
        for name in ("1", "2")
    )
    + "  score:\n"
    + entry("score", {"models/1": MODEL, "models/2": MODEL, "prepared.csv": PREPARED}, {"metrics.json": METRICS})
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("render")
    begin(root)
    write(root, {"dvc.lock": LOCK, "code.py": "", "metrics.json": NUMBERS})
    write(root, {"dvc.yaml": "stages: {}\n"})
    commit(root, "first \x1b[31m[red]")
    return root


@pytest.fixture(scope="module")
def traced(project: Path) -> Trace:
    return trace(Repository(project), "metrics.json:loss.all", "main")


def printed(found: Trace, full: bool = False) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(tree(found, full))
    return capture.get()


# The tree


def test_the_tree_goes_from_the_number_down_to_the_raw_source(traced: Trace) -> None:
    lines = printed(traced).splitlines()
    assert lines[0].startswith(f"metrics.json:loss.all = 0.25  {METRICS[:8]}  in main (")
    runs = [next(i for i, line in enumerate(lines) if f"─ {name}  " in line) for name in ("score", "fit@1", "prepare")]
    raw = next(i for i, line in enumerate(lines) if "reads raw.csv  dddddddd  2.0 kB" in line)
    assert runs == sorted(runs) and runs[-1] < raw
    assert "no run made it, git doesn't keep it" in lines[raw]
    indents = [line.index("─") for line in (lines[i] for i in runs)]
    assert indents == sorted(set(indents))


def test_a_shared_subtree_is_printed_once(traced: Trace) -> None:
    text = printed(traced)
    assert text.count("cp raw.csv prepared.csv") == 1
    assert text.count("prepare (above)") == 2


def test_parameters_and_code_are_counted_or_with_full_written_out(project: Path, traced: Trace) -> None:
    folded, full = printed(traced), printed(traced, full=True)
    blob = Repository(project).git.revparse_single("main:code.py").id
    assert "2 parameters" in folded and "1 code file" in folded and "fit.seed = 3" in folded
    assert EVIL not in folded and str(blob) not in folded
    assert f"params.yaml: fit.note = {json.dumps(EVIL)}" in full and f"code.py  {blob}" in full


def test_what_a_commit_says_can_not_steer_the_terminal(traced: Trace) -> None:
    text = printed(traced)
    assert "\x1b" not in text and r"first \u001b[31m[red]" in text


def test_a_raw_source_is_its_own_trace(project: Path) -> None:
    assert "no run made it: a raw source" in printed(trace(Repository(project), "raw.csv", "main"))


# The flowchart


def test_the_flowchart_has_all_runs_and_no_character_that_ends_a_label(traced: Trace) -> None:
    evil = traced.steps[-1].model_copy(update={"name": 'a"] --> b\n<b>`'})
    lines = mermaid([traced.model_copy(update={"steps": (*traced.steps[:-1], evil)})]).splitlines()
    assert lines[0] == "flowchart TD"
    boxes = [line for line in lines[1:] if ":::" in line]
    assert len(boxes) == 4 + 5
    assert all(re.fullmatch(r'    n\d+[\[(]+"[^"`\[\]{}|]*"[\])]+:::\w+', line) for line in boxes)
    assert all(re.fullmatch(r"    (n\d+ --> n\d+|classDef .*)", line) for line in lines[1:] if line not in boxes)
    assert any("loss.all = 0.25" in line and line.endswith(":::target") for line in boxes)


# The page


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._inside, []).append(data)


LOADING = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background", "ping", "xlink:href"}


def test_the_page_loads_nothing_from_outside(traced: Trace) -> None:
    elements = Elements(page([traced]))
    loaded = [v for _, attributes in elements.found for k, v in attributes.items() if k in LOADING]
    assert loaded and all(value is not None and value.startswith("#") for value in loaded)
    assert not {tag for tag, _ in elements.found} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "video",
        "audio",
    }
    assert not re.search(r"@import|url\(", "".join(elements.texts["style"]))
    assert "sourceMappingURL" not in "".join(elements.texts["script"])
    policy = next(a["content"] for tag, a in elements.found if tag == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_what_a_project_says_is_text_on_the_page(traced: Trace) -> None:
    text = page([traced])
    elements = Elements(text)
    assert EVIL not in text and EVIL.replace("<", "&lt;").replace(">", "&gt;") in text
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [k for _, attributes in elements.found for k in attributes if k.startswith("on")]


def test_the_data_is_json_that_no_name_can_end(traced: Trace) -> None:
    evil = traced.steps[-1].model_copy(update={"name": EVIL})
    steps = (*traced.steps[:-1], evil)
    target = traced.target.model_copy(update={"runs": (EVIL,)})
    elements = Elements(page([traced.model_copy(update={"steps": steps, "target": target})]))
    data = json.loads(elements.texts["script"][0])
    assert EVIL in [node["name"] for node in data["nodes"]]
    assert [tag for tag, _ in elements.found].count("script") == 2


def test_runs_files_and_numbers_have_anchors_without_a_script(traced: Trace) -> None:
    elements = Elements(page([traced]))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert {"prepare", "fit@1", "score", "prepared.csv", "raw.csv", "metrics.json:loss.all"} <= set(ids)
    assert [tag for tag, _ in elements.found].count("details") == sum(
        line.count("</details>") for line in page([traced]).splitlines()
    )


def test_a_page_of_several_targets_has_the_union_of_their_closures(project: Path, traced: Trace) -> None:
    other = trace(Repository(project), "metrics.json:other", "main")
    small = trace(Repository(project), "models/1", "main")
    closure = union([small, other, traced])
    assert list(closure.steps) == ["prepare", "fit@1", "fit@2", "score"]
    elements = Elements(page([small, other, traced]))
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    assert {"metrics.json:loss.all", "metrics.json:other"} <= ids
    with pytest.raises(ValueError, match="one revision"):
        page([traced, trace(Repository(project), "models/1")])
    with pytest.raises(ValueError, match="one or more"):
        page([])


def test_gaps_are_on_the_page_and_end_the_tree(traced: Trace) -> None:
    partial = traced.model_copy(update={"gaps": (Gap(where="sub/dvc.lock", what="not YAML"),)})
    assert "partial answer" in page([partial]).lower() and "not YAML" in page([partial])
    assert "partial answer" not in page([traced]).lower()
    assert [line.strip(" └─") for line in printed(partial).splitlines()[-2:]] == [
        "partial answer",
        "sub/dvc.lock: not YAML",
    ]


def test_arrows_join_a_run_to_the_part_of_an_output_that_it_reads(traced: Trace) -> None:
    inner = traced.steps[-1].inputs[0]
    part = inner.model_copy(update={"file": type(inner.file)("models/1/weights.bin")})
    reader = traced.steps[-1].model_copy(update={"inputs": (part,)})
    drawing = Drawing(union([traced.model_copy(update={"steps": (*traced.steps[:-1], reader)})]))
    assert (drawing.files["models/1", MODEL].id, drawing.runs["score"].id) in drawing.arrows
    assert "models/1/weights.bin" not in drawing.files
    assert [node.name for node in drawing.nodes if node.shape is Shape.SOURCE] == ["raw.csv"]


# The command


def test_the_command_prints_json_and_writes_a_page(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: Trace
) -> None:
    monkeypatch.chdir(project)
    runner, target = CliRunner(), ["trace", "metrics.json:loss.all", "--rev", "main"]
    answer = runner.invoke(app, [*target, "--json"])
    assert answer.exit_code == 0 and json.loads(answer.stdout) == json.loads(traced.model_dump_json())
    file = tmp_path / "page.html"
    file.write_text("before")
    assert runner.invoke(app, [*target, "--html", str(file)]).exit_code == 0
    assert file.read_text() == page([traced]) and [*tmp_path.iterdir()] == [file]
    piped = runner.invoke(app, [*target, "--full"]).stdout.splitlines()
    assert any(line.endswith(f"params.yaml: fit.note = {json.dumps(EVIL)}") for line in piped)
    with pytest.raises(AuditError, match="exclude each other"):
        runner.invoke(app, [*target, "--json", "--mermaid"], catch_exceptions=False)


def test_a_partial_trace_has_its_exit_code(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path)
    write(
        tmp_path, {"dvc.lock": LOCK, "dvc.yaml": "stages: {}\n", "bad/dvc.lock": "<<<<<<< HEAD\n", "bad/dvc.yaml": ""}
    )
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["trace", "metrics.json"]).exit_code == Exit.PARTIAL


def test_a_page_that_can_not_be_written_is_a_plain_message(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"nowhere/page\.html: it can't be written"):
        write_page(tmp_path / "nowhere" / "page.html", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(AuditError, match="it can't be written"):
        write_page(tmp_path / "folder", "")
    assert [*tmp_path.iterdir()] == [tmp_path / "folder"]
