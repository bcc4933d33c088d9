"""A training that diverges ends with one line, keeps its last sound checkpoint, and runs with a lower learning rate."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump

from artifacts.files import write_json
from runner.stage import Stage
from softmask.errors import InputError
from stages import arm, base, dream_base, finetune, judge
from tests.softmask.tiny import tiny_mdlm
from tests.stages import test_dream_base, test_finetune_stage
from tests.tiny_judge import packed_letters

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ABSURD, SOUND = 1e30, 1e-3
DORA = 4e19
"""Absurd for an adapter: beyond it the norm that DoRA divides by overflows first, which silences the adapter."""
TRAINING = {"steps": 8, "batch_size": 4, "log_every": 3, "save_every": 1, "warmup_steps": 4}


def language(root: Path) -> None:
    """What the trainings of the language half read, at the smoke profile's parameters."""
    compose_and_dump(str(root / "params.yaml"), str(ROOT / "conf"), None, "config", "hydra_plugins", ["profile=smoke"])
    (root / "dvc.yaml").write_text("stages: {base: {deps: []}, arm: {deps: []}, judge: {deps: []}}", encoding="utf-8")
    write_json(root / "data/check/valid.json", {"params": "valid"})
    (root / "models/import").mkdir(parents=True)
    for split in ("train", "validation"):
        packed = packed_letters(root / "data/tokens" / split, root / "data/tokenizer/tokenizer", [40] * 8)
    tiny_mdlm(vocab_size=packed.vocab_size).save_pretrained(root / "models/mdlm/base/model")


def code(root: Path) -> None:
    """A tiny family of the code study."""
    test_finetune_stage.write(root)


def small_dream(root: Path) -> None:
    """A family whose base is trained."""
    test_dream_base.write_family(root)


def set_training(section: str, **values: Any) -> None:
    """Write a training's settings into params.yaml."""
    file = Path("params.yaml")
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = raw
    for key in section.split("."):
        found = found[key]
    found.update({key: value for key, value in {**TRAINING, **values}.items() if key in found})
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")


ARM = {"arm": "sm_iso_update", "seed": "1"}


@pytest.mark.parametrize(
    ("stage", "axes", "section", "rate", "write"),
    [
        (base.STAGE, {}, "base.training", ABSURD, language),
        (arm.STAGE, ARM, "arms.training", ABSURD, language),
        (arm.STAGE, {**ARM, "arm": "binary"}, "arms.training", ABSURD, language),
        (judge.STAGE, {}, "judge.train.training", ABSURD, language),
        (finetune.STAGE, {"family": "tiny", **ARM, "arm": "sm"}, "code.finetuning.training", DORA, code),
        (dream_base.STAGE, {"family": "tiny"}, "code.settings.tiny.base.training", ABSURD, small_dream),
    ],
    ids=["base", "sm", "binary", "judge", "finetune", "dream_base"],
)
def test_an_absurd_learning_rate_is_named_and_a_lower_one_runs(
    stage: Stage[Any],
    axes: Mapping[str, str],
    section: str,
    rate: float,
    write: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    set_training(section, learning_rate=rate)
    said = []
    for _ in range(2):
        with pytest.raises(InputError, match=r"diverged: .* at step \d, learning rate .*e\+\d\d\.") as error:
            stage.execute(axes)
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0]
    assert "The last good checkpoint is" in said[0]  # the warm-up's first step has no learning rate
    history = Path(stage.outputs["history"].format(**axes))
    assert not history.exists()
    set_training(section, learning_rate=SOUND)
    stage.execute(axes)
    assert history.exists()
