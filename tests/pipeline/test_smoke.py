"""`dvc repro` of the smoke profile in a fresh clone, for real: what it leaves, and what DVC can say about it."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from artifacts.hashing import file_md5, path_hash
from lineage.checks.case import Case
from lineage.checks.manifests import check_manifests
from lineage.graph import Graph
from lineage.repository import Repository
from lineage.states import open_state
from runner.imported import CODE
from tests.pipeline.clones import Clone, attempt, instance_of

pytestmark = pytest.mark.slow

MODELS = {"base", "binary-1", "sm_iso_update-1"}
STAGES = {
    "check",
    "corpus",
    "tokenizer",
    "tokens",
    "judge",
    "references",
    "base",
    "arm@binary-1",
    "arm@sm_iso_update-1",
    "generate_base",
    "generate@binary-1",
    "generate@sm_iso_update-1",
    "evaluate_base",
    "evaluate@binary-1",
    "evaluate@sm_iso_update-1",
    "compare",
    "micro",
    "arithmetic",
    "problems",
    "nearest",
    "instructions@micro",
    "chat_tokenizer@micro",
    "chat_tokens@micro",
    "dream_base@micro",
    "finetune@micro-binary-1",
    "finetune@micro-sm-1",
    "code_generate_base@micro",
    "code_generate@micro-binary-1",
    "code_generate@micro-sm-1",
    "code_score_nearest",
    "code_score_base@micro",
    "code_score@micro-binary-1",
    "code_score@micro-sm-1",
    "code_compare",
    "speed",
    "report",
}


def manifests(clone: Clone) -> Iterator[tuple[str, Any]]:
    """Each stage instance with what its manifest holds."""
    for stage in clone.stages():
        (path,) = [path for path in clone.outputs(stage) if path.endswith("manifest.json")]
        yield stage, json.loads((clone.root / path).read_text(encoding="utf-8"))


def made(clone: Clone) -> dict[str, str]:
    """Every output in dvc.lock with its hash."""
    return {out["path"]: out["md5"] for entry in clone.stages().values() for out in entry["outs"]}


def test_every_stage_ran_and_every_output_is_there_as_the_lock_says(smoke: Clone) -> None:
    assert set(smoke.stages()) == STAGES
    for path, md5 in made(smoke).items():
        assert path_hash(smoke.root / path)["md5"] == md5, path


def test_stages_say_their_own_words_only(smoke_run: tuple[Clone, str]) -> None:
    said = smoke_run[1]
    assert "tok/s" in said and not re.findall(r".*(?:Warning|Loading weights).*", said)


def test_a_run_changes_only_params_the_lock_and_the_metrics_in_git(smoke: Clone) -> None:
    lines = smoke.run("git", "status", "--porcelain", "--untracked-files=all").splitlines()
    assert {line[3:] for line in lines} <= {
        "params.yaml",
        "dvc.lock",
        "reports/metrics.json",
        "reports/code_metrics.json",
    }


def test_nothing_unfinished_is_left_in_the_checkpoint_store(smoke: Clone) -> None:
    assert smoke.unfinished() == []


def test_a_second_repro_runs_nothing(copy: Clone) -> None:
    lock = (copy.root / "dvc.lock").read_bytes()
    assert "Data and pipelines are up to date." in copy.run("dvc", "repro")
    assert (copy.root / "dvc.lock").read_bytes() == lock


def test_manifests_name_their_stage_and_cite_their_own_outputs_as_the_lock_does(smoke: Clone) -> None:
    outputs = made(smoke)
    for stage, manifest in manifests(smoke):
        assert manifest["stage"] == instance_of(stage)
        cited = {path: out["md5"] for path, out in manifest["outputs"].items()}
        expected = {path for path in smoke.outputs(stage) if not path.endswith("manifest.json")}
        assert cited == {path: outputs[path] for path in expected}


def test_every_manifest_and_the_lock_say_the_same(smoke: Clone) -> None:
    graph = Graph(open_state(Repository(smoke.root), None))
    case = Case(graph, tuple(graph.runs))
    assert [*check_manifests(case)] == []
    for run in case.runs:
        manifest = case.manifest(run)
        assert manifest is not None and manifest.params is not None
        assert manifest.params.keys() == {key for _, key, _ in run.settings()}, run.name


def test_manifests_cite_inputs_and_code_by_the_hashes_of_their_producers(smoke: Clone) -> None:
    outputs = made(smoke)
    for stage, manifest in manifests(smoke):
        deps = {dep["path"]: dep["md5"] for dep in smoke.stages()[stage]["deps"]}
        code = {path: md5 for path, md5 in deps.items() if path.startswith(CODE)}
        assert manifest["code"] == code, stage
        for path, read in manifest["inputs"].items():
            known = {hashes[path] for hashes in (outputs, deps) if path in hashes}
            if not known and any(path.startswith(f"{folder}/") for folder in outputs):
                known = {file_md5(smoke.root / path)}  # within a folder whose hash the lock has
            assert known == {read["md5"]}, f"{stage} reads {path}"


def test_the_comparison_and_the_report_read_exactly_the_models_that_params_name(smoke: Clone) -> None:
    read = {stage: list(manifest["inputs"]) for stage, manifest in manifests(smoke)}
    for stage, folders in {"compare": ("data/evaluation", "models/mdlm"), "report": ("data/samples",)}.items():
        for folder in folders:
            parts = [path.removeprefix(f"{folder}/").split("/")[0] for path in read[stage] if path.startswith(folder)]
            assert set(parts) <= MODELS and (folder == "data/samples" or set(parts) == MODELS), stage


def test_manifests_hold_no_time_and_no_absolute_path(smoke: Clone) -> None:
    for stage, manifest in manifests(smoke):
        text = json.dumps(manifest)
        assert str(smoke.root) not in text and not re.search(r"\d{4}-\d\d-\d\dT|\"seconds\"", text), stage


class Loads(HTMLParser):
    """Collects what a browser would fetch for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fetching = {"src", "srcset", "data", "poster"} | ({"href"} if tag in {"link", "image", "use"} else set())
        self.found += [f"{tag} {value}" for name, value in attrs if name in fetching and value]


def test_the_report_is_there_in_both_formats_and_fetches_nothing(smoke: Clone) -> None:
    html = (smoke.root / "reports/report.html").read_text(encoding="utf-8")
    markdown = (smoke.root / "reports/report.md").read_text(encoding="utf-8")
    for name in ("requirements.lock", "requirements-cuda.lock"):
        assert f"| {name}, MD5 | {file_md5(smoke.root / name)} |" in markdown
    loads = Loads()
    loads.feed(html)
    assert [item for item in loads.found if not re.match(r"\w+ (data:|#)", item)] == []
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))|\bfetch\(|XMLHttpRequest|import\(", html)
    assert not re.search(r"!\[[^]]*\]\((?!data:|#)", markdown)
    for text in (html, markdown):
        assert "Profile smoke" in text and "SM iso-update" in text


def test_dvc_shows_the_metrics_of_every_model(smoke: Clone) -> None:
    files = json.loads(smoke.run("dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(files["reports/code_metrics.json"]["data"]["code"]["micro"]) >= {"base", "binary", "sm"}
    shown = files["reports/metrics.json"]["data"]
    assert shown == json.loads((smoke.root / "reports/metrics.json").read_text(encoding="utf-8"))
    assert set(shown["lm"]) == {"base", "binary", "sm_iso_update"}
    assert set(shown["generation"]) == {"base", "binary", "sm_iso_update", "real text"}
    assert set(shown["gate"]) == {"sm_iso_update-1"}


def test_dvc_shows_every_plot_with_its_points(smoke: Clone) -> None:
    shown = json.loads(smoke.run("dvc", "plots", "show", "--json"))
    assert shown.get("errors", []) == []
    points = {name: plot[0]["content"]["data"]["values"] for name, plot in shown["data"].items()}
    assert {"Training loss", "Judge loss", "omega_s", "Mean lambda", "Generative perplexity"} <= set(points)
    assert all(points.values())
    assert {point["model"] for point in points["Training loss"]} == MODELS
    assert {point["model"] for point in points["omega_s"]} == {"sm_iso_update-1"}


@pytest.mark.parametrize("wrong", ["arms.training.steps=0", "sampling.nucleus_p=1.5"])
def test_wrong_params_stop_the_run_before_anything_is_computed(copy: Clone, wrong: str) -> None:
    before = copy.run("git", "hash-object", "dvc.lock")
    copy.compose(wrong)
    done = attempt(["dvc", "repro"], copy.root)
    assert done.returncode != 0 and re.findall(r"^Running stage '(.+)':$", done.stdout, re.MULTILINE) == ["check"]
    assert wrong.partition("=")[0] in done.stderr
    assert copy.run("git", "hash-object", "dvc.lock") == before
    assert attempt(["python", "-m", "stages.check"], copy.root).returncode == 2
