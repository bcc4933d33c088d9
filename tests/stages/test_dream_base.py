"""The dream_base stage: a published folder taken as it is, checked and linked; or a small model made from scratch."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from artifacts.hashing import path_hash
from runner.section import validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.backbones.chat_tokenizer import load_chat_tokenizer
from softmask.backbones.dream import DreamModel
from softmask.backbones.dream_adapter import load_adapter
from softmask.backbones.dream_checkpoint import load_dream
from softmask.errors import InputError
from softmask.training.chat_tokens import ChatTokens, ChatVocabulary
from stages.dream_base import PATTERNS, STAGE, Params, import_base, new_dream
from stages.params.code.base import DreamBaseParams, DreamShapeParams
from stages.params.compute import ComputeParams
from tests.softmask.tiny_chat import FIRST_ADDED, IDS, added_token, write_published_tokenizer
from tests.softmask.tiny_dream import tiny_dream, write_published
from tests.stages.test_base_checkpoint import hub_of
from tests.stages.test_chat_tokenizer_stage import PUBLISHED, fetch
from tests.stages.test_finetune_stage import COMPUTE, TRAINING

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "n_layers": 2,
    "n_heads": 4,
    "n_key_value_heads": 2,
    "max_length": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_embeddings": False,
}
BASE_TRAINING = {**TRAINING, "muon_learning_rate": 0.002}


def params(**changes: Any) -> DreamBaseParams:
    values = {
        "source": "path",
        "published": PUBLISHED,
        "seed": 1,
        "model": SHAPE,
        "training": BASE_TRAINING,
    }
    return validate(DreamBaseParams, {**values, **changes}, "params.yaml")


def compute() -> ComputeParams:
    return validate(ComputeParams, COMPUTE, "params.yaml")


def random_model(**changes: Any) -> DreamModel:
    """A model for the miniature tokenizer, with a few rows that no id uses, as the published one has."""
    ids = {"mask_token_id": IDS["<|mask|>"], "pad_token_id": IDS["<|endoftext|>"]}
    return tiny_dream(**{"vocab_size": FIRST_ADDED + len(IDS) + 5, **ids, **changes})


def make(folder: Path, source: Path, out: str = "base", **tokenizer: Any) -> Context[Params]:
    """Run the import; `tokenizer` as in `write_published_tokenizer`."""
    names = {name: name for name in ("model", "adapter")} | {
        name: f"{name}.json" for name in ("history", "costs", "manifest")
    }
    context = Context(
        Params(compute=compute(), base=params(published={**PUBLISHED, "path": str(source)})),
        {"tokenizer": write_published_tokenizer(folder / "tokenizer", **tokenizer)},
        {name: folder / out / file for name, file in names.items()},
        {"family": "tiny"},
        Checkpoints(folder / "store", "key"),
    )
    import_base(context)
    return context


def same(model: DreamModel, folder: Path) -> bool:
    loaded = load_dream(folder).state_dict()
    return all(torch.equal(tensor.bfloat16(), loaded[name]) for name, tensor in model.state_dict().items())


def test_a_published_folder_becomes_the_base_without_a_copy_and_without_its_code(tmp_path: Path) -> None:
    model = random_model()
    source = write_published(tmp_path / "import", model)
    context = make(tmp_path, source)
    made = context.outputs["model"]
    assert same(model, made)
    assert {path.name for path in made.iterdir()} == {
        *("config.json", "model.safetensors.index.json"),
        *(f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)),
    }
    assert all(path.samefile(source / path.name) for path in made.glob("*.safetensors"))
    config = json.loads((made / "config.json").read_text())
    assert "auto_map" not in config and config["dtype"] == "bfloat16"
    assert context.counts["imported"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    again = make(tmp_path, source, "again")
    assert path_hash(again.outputs["model"]) == path_hash(made) and again.counts == context.counts


def test_links_of_the_hubs_cache_become_files(tmp_path: Path) -> None:
    model = random_model()
    blobs, snapshot = write_published(tmp_path / "blobs", model), tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    made = make(tmp_path, snapshot).outputs["model"]
    assert same(model, made) and not any(path.is_symlink() for path in made.iterdir())


def test_where_no_link_can_be_made_the_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError("Invalid cross-device link")

    model = random_model()
    source = write_published(tmp_path / "import", model)
    monkeypatch.setattr(os, "link", no_link)
    made = make(tmp_path, source).outputs["model"]
    assert same(model, made) and not any(path.samefile(source / path.name) for path in made.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": 3}, r"config\.json: mask_token_id: 3 with a tokenizer whose id is \d+"),
        ({"pad_token_id": 4}, r"config\.json: pad_token_id: 4 with a tokenizer whose id is \d+"),
        ({"vocab_size": FIRST_ADDED + 3}, "mask_token_id: .* is not what"),
    ],
)
def test_a_model_of_another_tokenizer_leaves_no_base(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, write_published(tmp_path / "import", random_model(**changes)))
    assert not (tmp_path / "base").exists()


def test_a_model_with_too_few_rows_for_its_tokenizer_leaves_no_base(tmp_path: Path) -> None:
    size = FIRST_ADDED + len(IDS)
    added = {str(number): added_token(token) for token, number in {**IDS, "<|late|>": size}.items()}
    source = write_published(tmp_path / "import", random_model(vocab_size=size))
    with pytest.raises(InputError, match=f"vocab_size: {size} with a tokenizer of {size + 1} ids"):
        make(tmp_path, source, added_tokens_decoder=added)
    assert not (tmp_path / "base").exists()


def test_values_that_are_not_finite_leave_no_base(tmp_path: Path) -> None:
    model = random_model()
    with torch.no_grad():
        model.lm_head.weight[5, 5] = float("nan")
    with pytest.raises(InputError, match=r"lm_head\.weight holds values that are not finite"):
        make(tmp_path, write_published(tmp_path / "import", model))
    assert not (tmp_path / "base").exists()


def test_a_repository_gives_its_shape_and_weights_and_none_of_its_code(tmp_path: Path) -> None:
    repository = write_published(tmp_path / "repository", random_model())
    (repository / "vocab.json").write_text("{}")
    asked: list[str] = []
    with hub_of(repository, asked) as endpoint:
        done = fetch(endpoint, tmp_path / "home", PATTERNS)
    folder = Path(done.stdout.strip())
    assert same(random_model(), folder)
    assert not any(name.endswith((".py", "vocab.json")) for name in asked)


def test_a_new_model_has_the_tokenizers_vocabulary_and_follows_its_seed(tmp_path: Path) -> None:
    tokenizer = load_chat_tokenizer(write_published_tokenizer(tmp_path))
    shape = validate(DreamShapeParams, SHAPE, "params.yaml")
    first, again, other = (new_dream(shape, tokenizer, seed) for seed in (1, 1, 2))
    assert first.config.vocab_size == tokenizer.size and first.config.mask_token_id == tokenizer.mask_token_id
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["lm_head.weight"], states[2]["lm_head.weight"])


def write_family(root: Path) -> None:
    """A family whose base is trained: tokenizer, chats that count upwards, params."""
    tokenizer = load_chat_tokenizer(write_published_tokenizer(root / "models/dream/tiny/tokenizer"))
    vocabulary = ChatVocabulary(
        vocab_size=tokenizer.size,
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        end_token_ids=tokenizer.end_token_ids,
    )
    for split, count in (("train", 40), ("validation", 8)):
        folder = root / f"data/code/tokens/tiny/{split}"
        folder.mkdir(parents=True)
        starts = np.random.default_rng(0).integers(0, 8, count).tolist()
        chats = [([*range(start, start + 12), tokenizer.pad_token_id], 4) for start in starts]
        ChatTokens.write(folder, chats, vocabulary)
    for path, text in (("data/check/valid.json", "{}"), ("models/import/README.md", "")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {dream_base: {deps: []}}\n", encoding="utf-8")
    base = {
        "source": "train",
        "published": PUBLISHED,
        "seed": 1,
        "model": SHAPE,
        "training": BASE_TRAINING,
    }
    raw = {"compute": COMPUTE, "code": {"settings": {"tiny": {"base": base}}}}
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")


def test_a_base_is_trained_on_its_chats_and_is_a_plain_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_family(tmp_path)
    monkeypatch.chdir(tmp_path)
    made = Path("models/dream/tiny/base")
    STAGE.execute({"family": "tiny"})
    weights = (made / "model/model.safetensors").read_bytes()
    model = load_dream(made / "model")
    assert load_adapter(model, made / "adapter") is None
    history = json.loads((made / "history.json").read_text(encoding="utf-8"))
    losses = {record["step"]: record["eval_loss"] for record in history if "eval_loss" in record}
    assert sorted(losses) == [0, 4, 8, 12] and losses[12] < 0.9 * losses[0]
    costs = json.loads((made / "costs.json").read_text(encoding="utf-8"))
    assert costs["updates"] == 12 and costs["forwards"] == costs["backwards"] == 24
    STAGE.execute({"family": "tiny"})
    assert (made / "model/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 18}, "hidden_size 18 can't be split into 4 heads of even width"),
        ({"n_key_value_heads": 3}, "n_key_value_heads 3 with n_heads 4 is impossible"),
        ({"n_layers": 0}, "n_layers: 0 is wrong; expected at least 1"),
        ({"dropout": 0.1}, "dropout: unknown key"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(DreamShapeParams, {**SHAPE, **changes}, "params.yaml")
    assert message in str(caught.value)


def test_a_published_base_needs_a_place() -> None:
    assert params(source="train").published.path is None
    for source in ("path", "hub"):
        with pytest.raises(InputError, match=f"source '{source}' with published"):
            params(source=source)
