"""The rules of the house (ARCHITECTURE.md) that a machine can hold: borders, declarations, documentation, packaging."""

import ast
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reporting.params
import stages.params
from commands import graph
from runner.imported import PACKAGES
from runner.section import Section
from softmask.errors import InputError
from stages import check

ROOT = Path(__file__).parents[1]
SOURCES = [path for package in (*PACKAGES, "commands", "pipelines") for path in sorted((ROOT / package).rglob("*.py"))]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code(*names: str) -> set[str]:
    return {path for name in names for path in graph.closure(f"stages.{name}")}


# Borders


def test_imports_go_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == 0, capsys.readouterr().out


STARTING = {"stages/__init__.py": ["import gc", "import runner.imported", "gc.set_threshold(50000, 50, 1000)"]}
"""What has to be done before a stage imports anything."""


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=relative)
def test_a_package_init_holds_its_docstring_only(path: Path) -> None:
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    assert list(map(ast.unparse, rest)) == STARTING.get(relative(path), [])


def test_every_folder_of_code_is_a_package() -> None:
    assert {path.parent for path in SOURCES} == {path.parent for path in SOURCES if path.name == "__init__.py"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_opens_with_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "graph.py"], ids=relative)
def test_no_import_is_hidden_from_the_closure(path: Path) -> None:
    names = {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
    attributes = re.findall(r"importlib\.(import_module|util|machinery)", path.read_text(encoding="utf-8"))
    assert not names & {"import_module", "__import__", "run_module", "exec", "eval"} and not attributes


# The pipeline


def test_dvc_yaml_agrees_with_declarations_and_imports() -> None:
    assert graph.differences() == []


def test_rewriting_an_up_to_date_pipeline_changes_nothing(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "dvc.yaml", tmp_path))
    assert graph.write(file) is False
    assert file.read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_check_tracks_the_whole_of_params_and_everything_depends_on_it() -> None:
    check = PIPELINE["stages"]["check"]
    assert check["params"] == [{"params.yaml": None}]
    assert check["outs"] == ["data/check/valid.json", "data/check/manifest.json"]
    others = [entry for name, entry in PIPELINE["stages"].items() if name != "check"]
    assert all("data/check/valid.json" in entry["deps"] for entry in others)


def test_every_stage_says_what_it_is_for() -> None:
    assert [name for name, entry in PIPELINE["stages"].items() if not entry.get("desc")] == []


def test_touching_a_sampler_retrains_nothing() -> None:
    sampling = {path for path in code("generate") if path.startswith("softmask/decoding/")}
    assert sampling - {"softmask/decoding/__init__.py"}
    assert not sampling & code("judge", "base", "arm")


def test_touching_training_retrains_the_arms_and_nothing_above_the_models() -> None:
    training = {path for path in code("arm") if path.startswith("softmask/training/")}
    assert training - {"softmask/training/__init__.py"}
    assert not training & code("check", "corpus", "tokenizer", "tokens", "compare", "report")
    assert "softmask/training/soft_mask_objective.py" in code("arm") - code("base", "judge")


def test_every_template_belongs_to_a_stage_or_to_a_plot() -> None:
    modules = {entry["cmd"].split()[2].removeprefix("stages.") for entry in PIPELINE["stages"].values()}
    plots = {plot.get("template") for item in PIPELINE.get("plots", []) for plot in item.values()}
    assert {relative(path) for path in graph.data_files()} <= code(*modules) | plots


def test_the_closure_follows_lazy_imports_and_named_files_and_has_the_runner_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "house_a/__init__.py": '"""."""',
        "house_a/deep/__init__.py": '"""."""',
        "house_a/deep/used.py": "x = 1",
        "house_a/unused.py": "x = 1",
        "house_b/__init__.py": '"""."""',
        "house_b/stage.py": "def run():\n    from house_a.deep import used\n    return 'page.html', used\n",
        "house_b/templates/page.html": '{% include "part.css" %}',
        "house_b/templates/part.css": "",
        "house_b/templates/other.css": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(graph, "ROOT", tmp_path)
    monkeypatch.setattr(graph, "PACKAGES", ("house_a", "house_b"))
    graph._import_graph.cache_clear()
    try:
        left_out = {
            "house_a/unused.py",
            "house_b/templates/other.css",
            *(n for n in files if n.endswith("__init__.py")),
        }
        assert set(graph.closure("house_b.stage")) == set(files) - left_out | {"runner/version.yaml"}
        with pytest.raises(InputError, match=r"no module house_b\.nothing"):
            graph.closure("house_b.nothing")
    finally:
        graph._import_graph.cache_clear()


def test_what_differs_from_a_declaration_is_named(tmp_path: Path) -> None:
    entry = PIPELINE["stages"]["tokens"]
    changed = {
        "cmd": entry["cmd"],
        "deps": [*entry["deps"][1:], "softmask/nowhere.py", "data/nowhere"],
        "params": ["corpus"],
        "outs": entry["outs"][1:],
    }
    file = tmp_path / "dvc.yaml"
    file.write_text(yaml.safe_dump({"stages": {"tokens": changed}}), encoding="utf-8")
    lines = graph.differences(file)
    where = f"{file}: stages.tokens"
    assert f"{where}.deps: lacks {entry['deps'][0]}" in lines
    assert f"{where}.deps: has softmask/nowhere.py, which the code does not" in lines
    assert f"{where}.deps: has data/nowhere, which the code does not" in lines
    assert f"{where}.params: lacks tokens" in lines and f"{where}.outs: lacks {entry['outs'][0]}" in lines


def test_axes_and_matrix_keys_must_agree() -> None:
    stage = SimpleNamespace(name="arm", axes=("arm", "seed"), inputs={}, outputs={}, params=None)
    entry = {"cmd": "python -m stages.arm --arm ${item.arm}", "matrix": {"arm": []}}
    lines = list(graph._compare_declaration("arm", "arm", entry, stage, {"arm": "${item.arm}"}))
    assert lines == ["arm.cmd: gives the axes ['arm']; arm declares ['arm', 'seed']"]


def test_rewriting_keeps_comments_and_order(tmp_path: Path) -> None:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    stale = text.replace("      - stages/corpus.py\n", "      - stages/gone.py\n")
    assert stale != text
    file = tmp_path / "dvc.yaml"
    file.write_text(stale, encoding="utf-8")
    assert graph.write(file) is True
    assert file.read_text(encoding="utf-8") == text


# Parameters and tests


def test_params_yaml_is_the_local_profile(tmp_path: Path) -> None:
    composed = tmp_path / "params.yaml"
    compose_and_dump(str(composed), str(ROOT / "conf"), None, "config", "hydra_plugins", ["profile=local"])
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == composed.read_text(encoding="utf-8")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "conf/profile").glob("*.yaml")))
def test_every_profile_is_valid(profile: str, tmp_path: Path) -> None:
    composed = tmp_path / "params.yaml"
    compose_and_dump(str(composed), str(ROOT / "conf"), None, "config", "hydra_plugins", [f"profile={profile}"])
    check.Params.read({}, composed)


def sections() -> list[type[Section]]:
    rooms = (stages.params, reporting.params)
    found = (info for room in rooms for info in pkgutil.walk_packages(room.__path__, f"{room.__name__}."))
    modules = [import_module(info.name) for info in found]
    classes = {cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)}
    return sorted((cls for cls in classes if issubclass(cls, Section) and cls is not Section), key=lambda c: c.__name__)


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_parameter_is_documented_and_has_no_default(section: type[Section]) -> None:
    """A field that is a section of its own is documented by that section."""
    assert section.__doc__
    plain = {name: field for name, field in section.model_fields.items() if field.annotation not in sections()}
    assert [name for name, field in plain.items() if not field.description] == []
    assert [name for name, field in section.model_fields.items() if not field.is_required()] == []


@pytest.mark.slow
def test_the_golden_tests_run_on_any_folder(tmp_path: Path) -> None:
    """A DIR after a space: pytest takes it for the place of the tests, and their own place for anybody's."""
    others = {path for path in (ROOT / "tests").iterdir() if path.name != "golden"} - {ROOT / "tests/conftest.py"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"--ignore={path}" for path in others)]
    golden = [*command, "--collect-only", "-m", "golden", "--golden-dir", tmp_path]
    listed = subprocess.run(golden, capture_output=True, text=True, check=False)
    assert "::test_the_folder_holds_reference_numbers\n" in listed.stdout, listed.stdout + listed.stderr


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


# Packaging


def test_the_citation_names_this_software_and_the_paper() -> None:
    """What CFF 1.2.0's schema requires, and what pyproject.toml says too."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} < set(citation)
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} < set(paper)
    assert all({"family-names", "given-names"} == set(author) for author in paper["authors"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {citation[name] == project[name] for name in ("version", "license")} == {True}


def test_the_licence_is_the_unmodified_text_of_the_named_one() -> None:
    """Many installed packages bring the same file, `datasets` among them."""
    theirs = distribution("datasets").read_text("licenses/LICENSE")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0" and project["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8") == theirs


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [line.partition("#")[0].strip() for line in lines]
    return dict(pin.split("==") for pin in pins if pin)


def test_locks_pin_public_versions_and_name_no_registry() -> None:
    for name in ("requirements.lock", "requirements-cuda.lock"):
        assert not re.search(r"://|--|@ |sha256|\+", (ROOT / name).read_text(encoding="utf-8"))
        assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in locked(name).values())


def test_the_cpu_lock_is_the_cuda_lock_without_cuda() -> None:
    cpu, cuda = locked("requirements.lock"), locked("requirements-cuda.lock")
    extra = set(cuda) - set(cpu)
    assert cpu.items() < cuda.items() and {"triton", "nvidia-cublas"} <= extra
    assert all(name.startswith(("cuda-", "nvidia-")) or name == "triton" for name in extra)
    assert "torchvision" not in cuda


def test_the_lock_satisfies_what_the_project_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"])
    pins = locked("requirements.lock")
    assert [str(item) for item in required if pins[canonicalize_name(item.name)] not in item.specifier] == []


def test_everything_that_dvc_makes_is_ignored_by_git_but_the_metrics() -> None:
    kept = [out for entry in PIPELINE["stages"].values() for out in entry.get("outs", []) if isinstance(out, str)]
    made = [re.sub(r"\$\{.*?\}", "x", out) for out in kept]
    git = shutil.which("git")
    assert git
    check = subprocess.run([git, "check-ignore", *made], capture_output=True, text=True, check=False)
    assert sorted(check.stdout.split()) == sorted(made)
    assert subprocess.run([git, "check-ignore", "-q", "reports/metrics.json"], check=False).returncode == 1


INSTALLED = (f"BIN={Path(sys.executable).parent}", f"STAMP={ROOT / 'Makefile'}")
"""What keeps make from making an environment."""


@pytest.fixture
def make() -> str:
    """The program's path."""
    found = shutil.which("make")
    assert found
    return found


def test_make_help_explains_every_target(make: str) -> None:
    text = subprocess.run([make, "--no-print-directory", "help"], capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony and {line.split()[1] for line in text.splitlines()} == set(phony[1].split())


@pytest.mark.parametrize("experiment", ["", "k"])
def test_make_params_composes_the_named_profile_and_experiment(make: str, experiment: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    command = [make, "-f", ROOT / "Makefile", "params", "PROFILE=smoke", f"EXPERIMENT={experiment}"]
    subprocess.run([*command, *INSTALLED], cwd=tmp_path, check=True)
    made = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert made["profile"] == "smoke"
    assert ("sm_k10" in made["arms"]["names"]) == bool(experiment)


@pytest.mark.slow
def test_make_test_golden_takes_any_folder(make: str, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    shutil.copy(ROOT / "tests/golden/soft_mask_topk_k1.safetensors", folder)
    run = subprocess.run([make, "test-golden", f"DIR={folder}", *INSTALLED], capture_output=True, text=True, check=True)
    assert "[soft_mask_topk_k1] PASSED" in run.stdout and "FAILED" not in run.stdout, run.stdout


def test_make_test_golden_names_a_folder_that_is_not_there(make: str) -> None:
    run = subprocess.run([make, "test-golden", "DIR=nowhere", *INSTALLED], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "error: there is no folder nowhere" in run.stderr, run.stderr
