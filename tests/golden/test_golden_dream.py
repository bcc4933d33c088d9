"""Parity of the Dream model with reference logits, with and without padding; files as in test_golden.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from softmask.backbones.dream import DreamConfig, DreamModel, position_ids_of
from tests.golden.test_golden import Golden, assert_log_probs, read

pytestmark = pytest.mark.golden


def files_of(folder: Path) -> list[Path]:
    """Files that hold a Dream model and its logits."""
    found = []
    for path in sorted(folder.glob("dream*.safetensors")):
        with safe_open(path, "pt") as file:
            if {"logits", "padded_logits"} <= set(file.keys()):
                found.append(path)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dream_file" in metafunc.fixturenames:
        folder = metafunc.config.invocation_params.dir / metafunc.config.getoption("--golden-dir")
        paths = files_of(folder)
        metafunc.parametrize("dream_file", paths, ids=[path.stem for path in paths])


def dream_of(golden: Golden) -> DreamModel:
    """The model with the file's weights; every one of them is taken."""
    model = DreamModel(DreamConfig(**golden.settings["config"]))
    prefix = "state."
    state = {name.removeprefix(prefix): tensor for name, tensor in golden.tensors.items() if name.startswith(prefix)}
    model.load_state_dict(state)
    model.train(False)
    return model


def test_the_projects_own_folder_has_a_dream(golden_dir: Path) -> None:
    assert golden_dir != Path(__file__).parent or files_of(golden_dir), json.dumps(str(golden_dir))


def test_dream_logits(dream_file: Path) -> None:
    golden = read(dream_file)
    with torch.no_grad():
        assert_log_probs(dream_of(golden)(golden["input_ids"]).logits, golden["logits"])


def test_dream_logits_of_left_padded_rows(dream_file: Path) -> None:
    golden = read(dream_file)
    visible = golden["padding_mask"].bool()
    positions = position_ids_of(visible)
    assert torch.equal(positions, golden["padded_position_ids"])
    with torch.no_grad():
        logits = dream_of(golden)(golden["padded_input_ids"], visible, positions).logits
    assert_log_probs(logits[visible], golden["padded_logits"][visible])
