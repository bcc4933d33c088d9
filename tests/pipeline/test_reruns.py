"""Changing one parameter, or one source file, re-runs exactly the stages that depend on it; a removed seed is gone.

Most tests ask DVC itself: which stages it calls changed, and which stages stand below them in its graph. `check`
is left out of the way down, because its output is a constant. The others run the pipeline and see what ran.
"""

import contextlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.pipeline.clones import ROOT, Clone, run
from tests.pipeline.test_smoke import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")]

SM = "sm_iso_update"
GENERATE_ARMS = {"generate@binary-1", "generate@sm_iso_update-1"}
EVALUATE_ARMS = {"evaluate@binary-1", "evaluate@sm_iso_update-1"}
GENERATE = {"generate_base", "generate@binary-1", "generate@sm_iso_update-1"}
EVALUATE = {"evaluate_base", "evaluate@binary-1", "evaluate@sm_iso_update-1"}
END = {"compare", "report"}
ARMS = {"arm@binary-1", "arm@sm_iso_update-1"}
BELOW_ARMS = GENERATE_ARMS | EVALUATE_ARMS | END
BELOW_BASE = ARMS | GENERATE | EVALUATE | END
BELOW_TOKENS = {"judge", "references", "base"} | BELOW_BASE
SM_ONLY = {"arm@sm_iso_update-1", "generate@sm_iso_update-1", "evaluate@sm_iso_update-1"} | END

CODE_ARMS = {"micro-binary-1", "micro-sm-1"}
FINETUNE = {f"finetune@{arm}" for arm in CODE_ARMS}
ANSWERS_OF_ARMS = {f"code_generate@{arm}" for arm in CODE_ARMS} | {f"code_score@{arm}" for arm in CODE_ARMS}
ANSWERS = {"code_generate_base@micro", "code_score_base@micro"} | ANSWERS_OF_ARMS
CODE_END = {"code_compare", "report"}
BELOW_FINETUNE = ANSWERS_OF_ARMS | CODE_END | {"speed"}
BELOW_DREAM = FINETUNE | ANSWERS | CODE_END | {"speed"}
SCORES = {"code_score_nearest", "code_score_base@micro"} | {f"code_score@{arm}" for arm in CODE_ARMS}
CHATS = {"instructions@micro", "chat_tokenizer@micro", "chat_tokens@micro", "dream_base@micro"} | BELOW_DREAM
PROBLEMS = {"problems", "nearest", "code_score_nearest", "speed"} | ANSWERS | CODE_END

EVERY = set(STAGES)
RUNNER = ("runner", "softmask/errors.py", "softmask/refused.py")
"""In no stage's dependencies; commands/graph.py names them, too."""

PARAMETERS: dict[str, set[str]] = {
    "corpus.duplicates.seed=2": {"corpus", "tokenizer", "tokens"} | BELOW_TOKENS,
    "tokenizer.train.min_count=21": {"tokenizer", "tokens"} | BELOW_TOKENS,
    "tokens.length=32": {"tokens"} | BELOW_TOKENS,
    "judge.train.seed=2": {"judge", "references"} | EVALUATE | END,
    "compute.threads=2": BELOW_TOKENS | {"dream_base@micro"} | BELOW_DREAM,
    "model.n_blocks=2": {"base"} | BELOW_BASE,
    "base.seed=2": {"base"} | BELOW_BASE,
    "diffusion.noise_eps=0.002": {"base"} | BELOW_BASE,
    "arms.training.steps=13": ARMS | BELOW_ARMS,
    "arms.settings.sm_iso_update.soft_mask.k=2": SM_ONLY,
    "arms.settings.sm_iso_flops.budget=half": set(),
    "sampling.seed=2": GENERATE | EVALUATE | END,
    "evaluation.references.seed=2": {"references"} | EVALUATE | END,
    "evaluation.mauve.seeds=[1,3]": {"references"} | EVALUATE | END,
    "evaluation.draws=3": EVALUATE | END,
    "compare.level=0.9": END,
    "profile=other": END | {"code_compare"},
    "seeds=[1,2]": {f"{stage}@{arm}-2" for stage in ("arm", "generate", "evaluate") for arm in ("binary", SM)} | END,
    "report.samples=2": {"report"},
    "code.micro.seed=5": {"micro"} | PROBLEMS | CHATS,
    "code.settings.micro.base.seed=2": {"dream_base@micro"} | BELOW_DREAM,
    "code.finetuning.adapter.rank=8": FINETUNE | BELOW_FINETUNE,
    "code.arms.settings.sm.soft_mask.k=2": {"finetune@micro-sm-1", "code_generate@micro-sm-1", "code_score@micro-sm-1"}
    | CODE_END
    | {"speed"},
    "code.arms.settings.sm_k3.soft_mask.k=2": set(),
    "code.generation.seed=2": ANSWERS | CODE_END | {"speed"},
    "code.scoring.extraction_lines=100": SCORES | CODE_END,
    "code.compare.level=0.9": CODE_END,
    "code.speed.repeats=2": {"speed"},
    "orchestration.default.memory=5": set(),
    "retrain.promotion.minimum_improvement=0.1": set(),
    "retrain.incoming.folder=elsewhere": set(),
}
"""One override -> the stages that depend on it, beside `check`, which reads every parameter."""

FILES: dict[str, set[str]] = {
    "stages/sources/package.py": {"corpus", "tokenizer", "tokens"} | BELOW_TOKENS,
    "data/texts/mine.txt": {"corpus", "tokenizer", "tokens"} | BELOW_TOKENS,
    "data/snapshots/new.txt": {"corpus", "tokenizer", "tokens"} | BELOW_TOKENS,
    "softmask/backbones/causal_lm.py": {"judge", "references"} | EVALUATE | END,
    "softmask/backbones/checkpoint.py": {"base"} | BELOW_BASE,
    "models/import/mdlm.ckpt": {"base"}
    | BELOW_BASE
    | {"chat_tokenizer@micro", "chat_tokens@micro", "dream_base@micro"}
    | BELOW_DREAM,
    "softmask/training/trainer.py": {"base"} | BELOW_BASE,
    "softmask/training/soft_mask_objective.py": ARMS | BELOW_ARMS,
    "softmask/decoding/transitions.py": {"check"} | GENERATE | EVALUATE | END,
    "softmask/evaluation/mauve_score.py": {"references"} | EVALUATE | END,
    "softmask/evaluation/perplexity.py": EVALUATE | END,
    "softmask/evaluation/intervals.py": END | {"code_compare"},
    "softmask/training/answers.py": {"dream_base@micro"} | BELOW_DREAM,
    "softmask/decoding/dream_decoder.py": ANSWERS | CODE_END | {"speed"},
    "scoring/code_scoring.py": {"problems"} | PROBLEMS,
    "data/chats/mine.jsonl": CHATS,
    "reporting/params/compare.py": {"check"} | END,
    "reporting/params/report.py": {"check", "report"},
    "reporting/templates/report.css": {"report", "speed"},
    "artifacts/manifest.py": EVERY,
    "runner/version.yaml": EVERY,
    **{file: set() for file in ("runner/stage.py", "runner/store.py", "runner/wording.py", "softmask/errors.py")},
    "softmask/training/__init__.py": set(),
    "commands/graph.py": set(),
    "requirements.lock": set(),
    "README.md": set(),
    "conf/profile/smoke.yaml": set(),
    "tests/test_house.py": set(),
}
"""One file with a line more -> the stages that depend on it."""


def would_run(clone: Clone) -> set[str]:
    """What DVC calls changed, and everything below it in DVC's graph."""
    with contextlib.chdir(clone.root), Repo() as repo, repo.lock:  # DVC names stages relative to where it is
        changed = {stage.addressing for stage in repo.index.stages if stage.status()}
        edges = [(upper.addressing, stage.addressing) for stage, upper in repo.index.graph.edges]
    found: set[str] = set()
    more = changed
    while more:
        found |= more
        more = {stage for upper, stage in edges if upper in more and upper != "check"} - found
    return found


@pytest.fixture(scope="module")
def changeable(smoke: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy in which each test undoes its change."""
    return smoke.copy(tmp_path_factory.mktemp("reruns") / "copy")


def test_without_a_change_nothing_would_run(changeable: Clone) -> None:
    assert would_run(changeable) == set()


@pytest.mark.parametrize("override", PARAMETERS)
def test_one_parameter_reaches_exactly_the_stages_that_depend_on_it(changeable: Clone, override: str) -> None:
    params = changeable.root / "params.yaml"
    before = params.read_text(encoding="utf-8")
    if override == "profile=other":  # the name alone: to Hydra it would be another file in conf/
        params.write_text(before.replace("profile: smoke", "profile: other"), encoding="utf-8")
    else:
        changeable.compose(override)
    found = would_run(changeable)
    params.write_text(before, encoding="utf-8")
    assert found == {"check"} | PARAMETERS[override]


@pytest.mark.parametrize("file", FILES)
def test_one_file_reaches_exactly_the_stages_that_depend_on_it(changeable: Clone, file: str) -> None:
    path = changeable.root / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes((before or b"") + b"\n")
    found = would_run(changeable)
    if before is None:
        path.unlink()
    else:
        path.write_bytes(before)
    assert found == FILES[file]


def test_the_runner_changed_no_byte_since_its_version_was_raised(smoke: Clone, origin: Path, tmp_path: Path) -> None:
    raised = run(["git", "log", "-1", "--format=%H", "--", "runner/version.yaml"], ROOT).strip() or "HEAD"
    if subprocess.run(["git", "diff", "--quiet", raised, "--", *RUNNER], cwd=ROOT, check=False).returncode == 0:
        pytest.skip("the runner is still the one of the commit that raised its version")
    older = Clone.of(origin, tmp_path / "older")
    shutil.rmtree(older.root / "runner")
    files = subprocess.run(["git", "archive", raised, *RUNNER], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(older.root, filter="data")
    older.repro()
    for stage in EVERY - {"speed", "report"}:  # times, and what shows them
        theirs, ours = (made(clone, stage) for clone in (older, smoke))
        assert theirs == ours, stage


def made(clone: Clone, stage: str) -> dict[str, str]:
    """A stage's outputs but its manifest, by path."""
    outs = clone.stages()[stage]["outs"]
    return {out["path"]: out["md5"] for out in outs if not out["path"].endswith("manifest.json")}


def test_check_leaves_a_constant_whatever_the_params_are(copy: Clone) -> None:
    before = (copy.root / "data/check/valid.json").read_bytes()
    copy.compose("sampling.seed=2", "seeds=[3,4]", "report.samples=1")
    copy.remove("check")
    copy.run("python", "-m", "stages.check")
    assert (copy.root / "data/check/valid.json").read_bytes() == before


def test_a_changed_setting_of_one_arm_runs_that_arm_and_what_is_below_it(copy: Clone) -> None:
    copy.compose("arms.settings.sm_iso_update.soft_mask.k=2")
    assert copy.repro() == {"check"} | SM_ONLY


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        # the models come out as they were, so nothing is sampled again; `compare` sees other manifests beside them
        ("softmask/training/soft_mask_objective.py", ARMS | {"compare"}),
        # the samples come out as they were, so nothing is evaluated again; `report` sees other manifests beside them.
        # `check` computes with the transitions, and its output is a constant
        ("softmask/decoding/transitions.py", {"check"} | GENERATE | {"report"}),
    ],
)
def test_a_comment_in_the_code_runs_its_stages_and_stops_where_their_results_are_the_same(
    copy: Clone, file: str, expected: set[str]
) -> None:
    path = copy.root / file
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert copy.repro() == expected


def test_a_new_seed_runs_its_own_stages_and_a_removed_seed_leaves_no_trace(smoke: Clone, copy: Clone) -> None:
    copy.compose("seeds=[1,2]")
    assert copy.repro() == {"check"} | PARAMETERS["seeds=[1,2]"]
    assert "seed 2" in (copy.root / "reports/report.md").read_text(encoding="utf-8")
    copy.compose()
    assert copy.repro() - {"check"} == END
    assert (copy.root / "models/mdlm/binary-2").is_dir()  # still there, and not read
    for stage in END:
        assert copy.content(stage) == smoke.content(stage)
