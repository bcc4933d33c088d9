"""The named experiments under conf/experiments: every one is a valid study at every size, and runs at smoke size.

What the experiments change is run stage by stage in one process, on a copy of the finished smoke run; one of them goes
through `dvc exp run` as a user starts it.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump

from runner.section import read_yaml, validate
from stages.params.root import RootParams
from tests.pipeline.clones import ROOT, Clone, attempt

CONF = ROOT / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiments").glob("*.yaml"))
PROFILES = sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))
EXECUTE = """
import json, shutil, sys
from importlib import import_module
from pathlib import Path
for file, instances in json.load(open(sys.argv[1])).items():
    shutil.copy(file, "params.yaml")
    for name, axes in instances:
        import_module(f"stages.{name}").STAGE.execute(axes)
    for made in ("report.md", "comparison.json"):
        shutil.copy(Path("reports") / made, Path(file).with_name(made))
"""
"""Runs the stage instances of every experiment one after the other, with one import, and keeps what is checked."""
Instance = tuple[str, dict[str, str]]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_experiment_is_valid_at_every_size_and_changes_something(profile: str, tmp_path: Path) -> None:
    plain = compose(tmp_path / "params.yaml", profile)
    seen = [plain] if profile == "local" else []  # the study's own arms have one of them
    for name in EXPERIMENTS:
        params = compose(tmp_path / "params.yaml", profile, f"experiments={name}")
        assert params not in seen, name
        seen.append(params)


def compose(file: Path, profile: str, *overrides: str) -> RootParams:
    compose_and_dump(str(file), str(CONF), None, "config", "hydra_plugins", [f"profile={profile}", *overrides])
    return validate(RootParams, read_yaml(file), str(file))


@pytest.mark.slow
def test_every_experiment_runs_at_smoke_size(copy: Clone, tmp_path: Path) -> None:
    before, work = read_params(copy.root / "params.yaml"), {}
    for name in EXPERIMENTS:
        file = tmp_path / name / "params.yaml"
        file.parent.mkdir()
        compose(file, "smoke", f"experiments={name}")
        work[str(file)] = changed(before, read_params(file))
    todo = tmp_path / "work.json"
    todo.write_text(json.dumps(work), encoding="utf-8")
    copy.run(sys.executable, "-c", EXECUTE, str(todo))
    for name in EXPERIMENTS:
        assert_reported(tmp_path / name)


def assert_reported(folder: Path) -> None:
    """The report has every arm and every way of decoding that the experiment names."""
    params = read_params(folder / "params.yaml")
    report = (folder / "report.md").read_text(encoding="utf-8").replace("\\", "")
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in comparison["arm_rows"]] == ["base", *params["arms"]["names"]]
    cell = params["sampling"]["cells"][params["sampling"]["trace"]["cell"]]["sampler"]
    decoded = {curve["sampler"] for curve in comparison["curves"] if curve["arm"] == "sm_iso_update"}
    assert {f"{cell} {variant['name']}" for variant in params["sampling"]["variants"]} <= decoded
    for arm in {*params["arms"]["names"], *params["code"]["arms"]["names"]} - KNOWN:
        assert arm in report


KNOWN = {"binary", "sm", "sm_iso_update", "sm_iso_compute", "sm_k3"}
"""Arms that the report has names of its own for."""


def read_params(file: Path) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return params


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[Instance]:
    """The stage instances that an experiment adds or changes, in the pipeline's order; seeds are one."""
    seed, code_seed = str(after["seeds"][0]), str(after["code"]["seeds"][0])
    arms = [arm for arm in after["arms"]["names"] if arm not in before["arms"]["names"]]
    found: list[Instance] = [("arm", {"arm": arm, "seed": seed}) for arm in arms]
    models = [f"{arm}-{seed}" for arm in arms]
    if before["sampling"] != after["sampling"]:
        models = ["base", *(f"{arm}-{seed}" for arm in after["arms"]["names"])]
    found += [(stage, {"model": model}) for model in models for stage in ("generate", "evaluate")]
    for arm in after["code"]["arms"]["names"]:
        if arm not in before["code"]["arms"]["names"]:
            found.append(("finetune", {"family": "micro", "arm": arm, "seed": code_seed}))
            answered = {"family": "micro", "model": f"{arm}-{code_seed}"}
            found += [("code_generate", answered), ("code_score", answered)]
    return [("check", {}), *found, ("compare", {}), ("code_compare", {}), ("report", {})]


@pytest.mark.slow
def test_one_command_composes_an_experiment_runs_what_it_changes_and_records_it(copy: Clone) -> None:
    copy.run("git", "add", "--all")
    copy.run("git", "commit", "--quiet", "--message=finished")
    overrides = ("--set-param", "profile=smoke", "--set-param", "experiments=omega_schedules")
    said = copy.run("dvc", "exp", "run", "--name", "schedules", *overrides)
    ran = set(re.findall(r"^Running stage '(.+)':$", said, re.MULTILINE))
    sampled = {"generate_base", "generate@binary-1", "generate@sm_iso_update-1"}  # only SM's samples become others
    assert ran == {"check", *sampled, "evaluate@sm_iso_update-1", "compare", "report"}
    workspace, commit = json.loads(copy.run("dvc", "exp", "show", "--json"))
    (experiment,) = [revision for item in commit["experiments"] for revision in item["revs"]]
    assert experiment["name"] == "schedules"
    for state, variants in ((workspace, 2), (experiment, 2), (commit, 0)):
        assert len(state["data"]["params"]["params.yaml"]["data"]["sampling"]["variants"]) == variants
        generation = state["data"]["metrics"]["reports/metrics.json"]["data"]["generation"]
        assert set(generation) == {"base", "binary", "sm_iso_update", "real text"}
        assert sum("omega" in sampler for sampler in generation["sm_iso_update"]) == variants


@pytest.mark.slow
def test_the_page_of_a_study_has_its_findings_its_pictures_and_its_experiments(smoke: Clone, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for part in ("", "scratch", "experiments/k", "experiments/code_k"):
        (folder / part / "reports").mkdir(parents=True)
        (folder / part / "record.json").write_text("{}", encoding="utf-8")
        for name in ("comparison.json", "code_comparison.json"):
            shutil.copy(smoke.root / "reports" / name, folder / part / "reports")
        shutil.copy(smoke.root / "reports/report.md", folder / part / "reports")
    smoke.run(sys.executable, "-m", "commands.study", str(folder))
    page = (folder / "README.md").read_text(encoding="utf-8")
    comparison = json.loads((smoke.root / "reports/comparison.json").read_text(encoding="utf-8"))
    assert "Correction" not in page
    assert "Trained from scratch: Perplexity" in page and "Fig. 5b" in page and "Table 10" in page
    assert all(finding["text"].split(":")[0] in page.replace("\\", "") for finding in comparison["findings"])
    for name in ("generation.svg", "pass.svg"):
        assert ElementTree.parse(folder / name).getroot().tag.endswith("svg") and f"]({name})" in page
    (folder / "experiments/k").rename(folder / "experiments/nobody")
    refused = attempt([sys.executable, "-m", "commands.study", str(folder)], smoke.root)
    assert refused.returncode == 2 and "conf/experiments/nobody.yaml: there is no such experiment" in refused.stderr
