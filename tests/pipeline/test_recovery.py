"""Interrupted is not lost: stages that are killed, stopped, or run out of disk go on later to the same bytes.

Every test lets the real stage work in a copy of one finished run, and compares with what that run made.
"""

import json
import random
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from artifacts.files import read_json
from tests.pipeline.clones import ROOT, Clone, attempt

pytestmark = pytest.mark.slow

LONG = (
    "base.training.steps=120",
    "base.training.save_every=10",
    "arms.training.steps=40",
    "arms.training.save_every=5",
    "sampling.samples=48",
    "evaluation.draws=6",
    "evaluation.batch_size=8",
)
"""The smoke profile with enough work in each stage to be interrupted in the middle of it."""
CODE = "micro-sm-1"
LONG_CODE = (
    "code.settings.micro.base.training.steps=60",
    "code.finetuning.training.steps=40",
    "code.finetuning.training.save_every=3",
    "code.generation.batch_size=1",
    "code.scoring.batch_size=1",
)
"""The same for the code study."""
CODE_WORK = {
    "dream_base@micro": (4, 40, 4),
    f"finetune@{CODE}": (3, 30, 3),
    f"code_generate@{CODE}": (2, 16, 1),
    f"code_score@{CODE}": (2, 16, 1),
}
SM = "sm_iso_update-1"
WORK = {
    "base": (10, 100, 10),
    f"arm@{SM}": (5, 30, 5),
    f"generate@{SM}": (2, 22, 1),
    f"evaluate@{SM}": (6, 70, 1),
}
"""Stage -> first, last and stride of the progress (step of a checkpoint, number of units) at which it is killed."""
REWORDED = (ROOT / "runner/wording.py").read_text(encoding="utf-8").replace("Did you mean", "Perhaps you meant")
"""What runs a stage is no part of what its unfinished work is made from."""
RESUMED = re.compile(r"resuming from \S*checkpoint-(\d+)")


@pytest.fixture(scope="module")
def long_run(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh clone in which `dvc repro` has run undisturbed. To be read, not changed."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("long") / "clone", *LONG)
    clone.repro("compare")
    return clone


@pytest.fixture(scope="module")
def long_code(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The same for one arm of the code study."""
    clone = Clone.of(origin, tmp_path_factory.mktemp("code") / "clone", *LONG_CODE)
    clone.repro(f"code_score@{CODE}")
    return clone


@pytest.fixture
def disturbed(long_run: Clone, tmp_path: Path) -> Clone:
    """A copy of the undisturbed run, free to be changed."""
    return long_run.copy(tmp_path / "disturbed")


def kill_points(stage: str, count: int) -> list[tuple[int, float]]:
    """Seeded points of progress, rising, each with the seconds after which the blow falls."""
    first, last, stride = {**WORK, **CODE_WORK}[stage]
    chance = random.Random(stage)
    return [(point, chance.uniform(0, 0.05)) for point in sorted(chance.sample(range(first, last, stride), count))]


def kill(clone: Clone, stage: str, command: list[str], point: int, delay: float) -> None:
    """Start a command and kill its whole process group with SIGKILL, once a stage has come to a point."""
    running = clone.start(*command)
    code = running.signal_when(lambda: clone.progress(stage) >= point, delay, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert clone.survivors() == []
    assert clone.progress(stage) >= point
    cut_logs(clone)


def cut_logs(clone: Clone) -> None:
    """Leave DVCLive's files as a kill in the middle of its writing does."""
    for path in (path for path in (clone.root / "reports/live").rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[:-1] if path.suffix == ".tsv" else b"")


def logged(clone: Clone, stage: str) -> str:
    """The losses in DVCLive's log of a training, each with the number of its record."""
    return (clone.root / f"reports/live/{stage.rpartition('@')[2]}/plots/metrics/loss.tsv").read_text(encoding="utf-8")


def assert_same(clone: Clone, long_run: Clone, stage: str) -> None:
    """The stage's declared outputs are those of the undisturbed run, and its checkpoints are gone."""
    assert clone.content(stage) == long_run.content(stage)
    assert clone.unfinished() == []


@pytest.mark.parametrize("stage", WORK)
def test_a_stage_killed_at_random_points_ends_with_the_same_bytes(
    disturbed: Clone, long_run: Clone, stage: str
) -> None:
    disturbed.remove(stage)
    command = disturbed.command(stage)
    manifest = next(disturbed.root / path for path in disturbed.outputs(stage) if path.endswith("manifest.json"))
    for number, (point, delay) in enumerate(kill_points(stage, 3)):
        kill(disturbed, stage, command, point, delay)
        assert not manifest.exists()
        (disturbed.root / "runner/wording.py").write_text(REWORDED + f'"""Reworded {number} times."""\n')
    done = attempt(command, disturbed.root)
    assert done.returncode == 0, done.stderr
    assert_same(disturbed, long_run, stage)
    if not stage.startswith(("generate", "evaluate")):
        assert RESUMED.search(done.stderr)
        assert logged(disturbed, stage) == logged(long_run, stage)


@pytest.mark.parametrize("stage", CODE_WORK)
def test_a_code_stage_killed_at_random_points_ends_with_the_same_bytes(
    long_code: Clone, tmp_path: Path, stage: str
) -> None:
    clone = long_code.copy(tmp_path / "disturbed")
    clone.remove(stage)
    command = clone.command(stage)
    for point, delay in kill_points(stage, 2):
        kill(clone, stage, command, point, delay)
    done = attempt(command, clone.root)
    assert done.returncode == 0, done.stderr
    assert_same(clone, long_code, stage)
    if stage.startswith(("dream_base", "finetune")):
        assert RESUMED.search(done.stderr)


def test_dvc_repro_killed_again_and_again_ends_with_the_lock_of_an_undisturbed_run(
    origin: Path, long_run: Clone, tmp_path: Path
) -> None:
    clone = Clone.of(origin, tmp_path / "killed", *LONG)
    for stage in WORK:
        ((point, delay),) = kill_points(stage, 1)
        kill(clone, stage, ["dvc", "repro", "compare"], point, delay)
    clone.repro("compare")
    assert clone.stages() == long_run.stages()  # DVC writes them in the order of completion
    assert clone.unfinished() == []


def test_a_kill_while_dvc_writes_its_lock_is_named_and_mended_by_one_command(disturbed: Clone, long_run: Clone) -> None:
    lock = disturbed.root / "dvc.lock"
    whole = lock.read_bytes()
    command = (
        "dvc",
        "repro",
        "--single-item",
        "--force",
        "check",
    )  # its entry stands first, and all of it is rewritten
    running = disturbed.start(*command)
    running.signal_when(lambda: lock.stat().st_size < len(whole), 0.005, signal.SIGKILL)
    assert len(torn := lock.read_bytes()) < len(whole) and whole.startswith(torn[:-1])
    riddle = attempt(["dvc", "repro"], disturbed.root)
    assert riddle.returncode != 0 and "runner.lock" not in riddle.stderr
    told = attempt([sys.executable, "-m", "stages.check"], disturbed.root)
    assert told.returncode == 2 and "python -m runner.lock" in told.stderr and "Traceback" not in told.stderr
    assert "dvc.lock is whole again" in disturbed.run(sys.executable, "-m", "runner.lock")
    assert lock.read_bytes() == whole
    assert disturbed.repro("compare") == set() and disturbed.stages() == long_run.stages()


@pytest.mark.parametrize("stage", ["base", f"generate@{SM}"])
def test_ctrl_c_ends_dvc_repro_within_seconds_and_the_next_one_goes_on(
    disturbed: Clone, long_run: Clone, stage: str
) -> None:
    command = ("dvc", "repro", "--single-item", "--force", stage)  # DVC has the outputs in its cache: it must work
    running = disturbed.start(*command)
    first, *_ = WORK[stage]
    running.signal_when(lambda: disturbed.progress(stage) >= first, 0, signal.SIGINT, limit=20)
    assert disturbed.progress(stage) >= first and disturbed.survivors() == []
    assert "run again to go on" in running.said()
    disturbed.run(*command)
    assert_same(disturbed, long_run, stage)


def test_a_torn_checkpoint_is_named_and_the_one_before_it_is_resumed_from(disturbed: Clone, long_run: Clone) -> None:
    disturbed.remove("base")
    command = disturbed.command("base")
    kill(disturbed, "base", command, 40, 0)
    newest = disturbed.progress("base")
    torn = disturbed.store("base") / "training" / f"checkpoint-{newest}"
    weights = max((file for file in torn.iterdir()), key=lambda file: file.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-100])
    done = attempt(command, disturbed.root)
    assert done.returncode == 0, done.stderr
    assert f"{torn.relative_to(disturbed.root)} is torn: {weights.name}" in done.stderr
    resumed = RESUMED.search(done.stderr)
    assert resumed and int(resumed[1]) == newest - 10
    assert_same(disturbed, long_run, "base")


def test_a_torn_unit_of_work_is_computed_again(disturbed: Clone, long_run: Clone) -> None:
    stage = f"generate@{SM}"
    disturbed.remove(stage)
    command = disturbed.command(stage)
    kill(disturbed, stage, command, 5, 0)
    unit = min((disturbed.store(stage) / "units").glob("*.json"))
    unit.write_bytes(unit.read_bytes()[:20])
    disturbed.run(*command)
    assert_same(disturbed, long_run, stage)


FULL_DISK = """
set -eu
mount -t tmpfs -o size={size} tmpfs {store}
set +e
{command} 2> {log}
code=$?
set -e
cp -r {store} {kept}
echo "$code" > {kept}/exit_code
mount -o remount,size=64m {store}
{command}
"""


def test_a_full_disk_is_a_clear_error_that_leaves_the_last_checkpoint_good(
    disturbed: Clone, long_run: Clone, tmp_path: Path
) -> None:
    probe = attempt(["unshare", "-Urm", "true"], tmp_path)
    assert probe.returncode == 0, (
        f"this test mounts a small file system in a user namespace, and `unshare -Urm` does not work: {probe.stderr}"
    )
    store, kept, log = tmp_path / "store", tmp_path / "kept", tmp_path / "log"
    store.mkdir()
    (disturbed.root / "local.toml").write_text(f'[checkpoints]\npath = "{store}"\n', encoding="utf-8")
    disturbed.remove("base")
    command = " ".join(disturbed.command("base"))
    # a checkpoint holds the weights, their average and two moments of each: two of them fit, a third does not
    size = 11 * (long_run.root / "models/mdlm/base/model/model.safetensors").stat().st_size
    script = FULL_DISK.format(size=size, store=store, command=command, log=log, kept=kept)
    done = attempt(["unshare", "-Urm", "bash", "-c", script], disturbed.root)
    assert done.returncode == 0, done.stderr
    said = log.read_text(encoding="utf-8")
    assert (kept / "exit_code").read_text(encoding="utf-8").strip() == "75", said
    named = re.search(r"the disk is full.*The last good checkpoint is \S*/(checkpoint-\d+)", said)
    assert named and "Traceback" not in said, said
    resumed = RESUMED.search(done.stderr)
    assert resumed and f"checkpoint-{resumed[1]}" == named[1]  # it was sound
    assert disturbed.content("base") == long_run.content("base")


def test_threads_come_from_params_whatever_the_environment_says(disturbed: Clone, long_run: Clone) -> None:
    stages = ("base", f"arm@{SM}", f"generate@{SM}", f"evaluate@{SM}")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for stage in stages:
        disturbed.remove(stage)
        disturbed.run(*disturbed.command(stage), **dict.fromkeys(names, "2"))
        assert_same(disturbed, long_run, stage)


SETTINGS = "arms.settings.sm_iso_update.soft_mask"
TWO_FACES = (
    "model.dropout=0.0",
    "arms.training.steps=40",
    "arms.training.log_every=10",
    f"{SETTINGS}.p_sm=0.5",
    f"{SETTINGS}.omega_s=0.9",
    f"{SETTINGS}.omega_a=1.0",
    f"{SETTINGS}.omega_b=-3.0",
)
"""No dropout, whose noise is each process's own; a coin that shows both faces, and a gate so open that they differ.

Checkpoints come every 4 steps, logs every 10: what is logged over a resume is made on both sides of it.
"""


@pytest.fixture(scope="module")
def without_dropout(smoke: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A smoke run with a base and arms that have no dropout, trained in one process."""
    clone = smoke.copy(tmp_path_factory.mktemp("processes") / "one")
    clone.compose(*TWO_FACES)
    for stage in ("base", f"arm@{SM}"):
        clone.remove(stage)
        clone.run(*clone.command(stage))
    return clone


def history(clone: Clone) -> list[dict[str, float]]:
    """The soft-masked arm's history."""
    records: list[dict[str, float]] = json.loads(
        (clone.root / f"models/mdlm/{SM}/history.json").read_text(encoding="utf-8")
    )
    return records


def test_two_processes_train_as_one_does_and_go_on_when_interrupted(without_dropout: Clone, tmp_path: Path) -> None:
    stage = f"arm@{SM}"
    command = without_dropout.command(stage)
    two = without_dropout.copy(tmp_path / "two")
    two.compose(*TWO_FACES, "compute.processes=2")
    two.remove(stage)
    two.run(*command)
    one_by_one = zip(history(two), history(without_dropout), strict=True)
    for ours, theirs in one_by_one:
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    counted = [
        json.loads((clone.root / f"models/mdlm/{SM}/costs.json").read_text()) for clone in (two, without_dropout)
    ]
    assert counted[0] == counted[1]
    undisturbed = two.content(stage)

    two.remove(stage)
    kill(two, stage, command, 12, 0)
    running = two.start(*command)
    running.signal_when(lambda: two.progress(stage) >= 24, 0, signal.SIGINT)
    assert two.survivors() == [] and RESUMED.search(running.said()), running.said()
    assert "run again to go on" in running.said()
    done = attempt(command, two.root)
    assert done.returncode == 0 and RESUMED.search(done.stderr), done.stderr
    assert two.content(stage) == undisturbed
    assert two.unfinished() == []


def test_every_process_makes_the_passes_that_the_coin_asks_for(without_dropout: Clone, tmp_path: Path) -> None:
    """Two processes and one: each micro-batch takes the same number of forward passes on all of them."""
    passes = []
    for processes in (1, 2):
        clone = without_dropout.copy(tmp_path / str(processes))
        clone.compose(*TWO_FACES, f"compute.processes={processes}")
        shutil.copy(Path(__file__).with_name("counted_arm.py"), clone.root)
        clone.run(sys.executable, "-m", "counted_arm", "--arm", "sm_iso_update", "--seed", "1")
        passes += [read_json(clone.root / f"forwards-{rank}.json") for rank in range(processes)]
        costs = read_json(clone.root / f"models/mdlm/{SM}/costs.json")
        assert (len(passes[-1]), sum(passes[-1])) == (costs["backwards"], costs["forwards"])
    assert passes[0] == passes[1] == passes[2] and set(passes[0]) == {1, 2}


def test_a_micro_batch_whose_coin_differs_would_show_in_the_history(without_dropout: Clone, tmp_path: Path) -> None:
    other = without_dropout.copy(tmp_path / "other")
    other.compose(*TWO_FACES, f"{SETTINGS}.p_sm=0.6")  # a few coins fall on the other side
    stage = f"arm@{SM}"
    other.remove(stage)
    other.run(*other.command(stage))
    losses = [[record["loss"] for record in history(clone) if "loss" in record] for clone in (other, without_dropout)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
