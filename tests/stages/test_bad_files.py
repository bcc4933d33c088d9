"""Wrong files and command lines: missing, torn and foreign inputs, the store, local.toml; each is one plain message.

Nothing is computed, and what earlier runs left is the same afterwards.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import yaml
from dvc.utils.hydra import compose_and_dump
from safetensors.torch import load_file, save_file

from artifacts.files import read_arrays, read_json, read_lines, read_tokenizer, write_json, write_lines
from runner.imported import PACKAGES
from runner.section import read_yaml
from runner.stage import MAY_PASS, MISTAKE
from softmask.backbones.dit import read
from softmask.errors import InputError
from softmask.tokens import PackedTokens, Vocabulary
from stages import arm, base, evaluate, generate, tokens
from stages.evaluate import SAMPLE_FIELDS
from stages.params.compute import ComputeParams
from stages.params.corpus import ShardsParams
from stages.params.model import ModelParams
from stages.shared.compute import set_up
from stages.shared.mdlm_training import new_model
from stages.sources.documents import Document, ShardWriter
from tests.softmask.published import traps, write_hub, write_lightning
from tests.softmask.tiny import tiny_mdlm
from tests.stages import tiny_stage
from tests.tiny_judge import character_tokenizer, packed_letters

ROOT = Path(__file__).parents[2]
REMAKE = "Make it again: dvc repro -f"
Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    """Keep the first half of a file, as a copy that broke off does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def latin(path: Path) -> None:
    path.write_bytes(b'{"a": "caf\xe9"}')


def edit(**changes: Any) -> Damage:
    """Other values in a JSON file."""

    def change(path: Path) -> None:
        write_json(path, {**read_json(path), **changes})

    return change


def bytes_of(folder: Path) -> dict[Path, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.read_bytes() for path in found if ".checkpoints" not in path.parts}


def complaint(
    stage: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any, code: int = MISTAKE
) -> str:
    """What a stage's command line prints when it ends with `code`; it must leave every file as it was."""
    monkeypatch.setattr(sys, "argv", [f"stages.{stage.name}", *arguments])
    before = bytes_of(Path())
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        stage.main()
    out, err = capsys.readouterr()
    assert exit_.value.code == code and not out and "Traceback" not in err
    assert bytes_of(Path()) == before
    return str(err).rpartition("it/s]\n")[2]  # a bar of transformers may come first


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke profile's params.yaml."""
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    compose_and_dump(str(file), str(ROOT / "conf"), None, "config", "hydra_plugins", ["profile=smoke"])
    return file


@pytest.fixture
def project(tmp_path: Path, smoke: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with params, small tokens, a random base model, and samples of an earlier run."""
    for name in (*PACKAGES, "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(smoke.read_bytes())
    write_json(Path("data/check/valid.json"), {"params": "valid"})
    for split in ("train", "validation"):
        packed = packed_letters(Path("data/tokens") / split, Path("data/tokenizer/tokenizer"), [40] * 4)
        with ShardWriter(
            Path("data/corpus") / split, ShardsParams(row_group_characters=100, shard_characters=1000)
        ) as writer:
            writer.write(Document("one", "abc " * 100))
    tiny_mdlm(vocab_size=packed.vocab_size).save_pretrained("models/mdlm/base/model")
    write_lines(Path("data/samples/base/samples.jsonl"), [{"text": "of an earlier run"}])
    return tmp_path


# Missing inputs


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("check", "data/check/valid.json"),
        ("train", "data/corpus/train"),
        ("validation", "data/corpus/validation"),
        ("tokenizer", "data/tokenizer/tokenizer"),
    ],
)
def test_a_missing_input_is_named(
    name: str, path: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tokens.STAGE.inputs[name] == path
    (project / path).rename(project / "elsewhere")
    assert complaint(tokens.STAGE, [], monkeypatch, capsys) == (
        f"error: {path}: the input is missing. Make it first: dvc repro\n"
    )


@pytest.mark.parametrize("with_params", [False, True])
def test_the_real_command_in_an_empty_folder_ends_with_2(tmp_path: Path, smoke: Path, with_params: bool) -> None:
    for name in PACKAGES:
        (tmp_path / name).symlink_to(ROOT / name)
    if with_params:
        (tmp_path / "params.yaml").write_bytes(smoke.read_bytes())
    before = set(tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-m", "stages.tokens"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        "error: data/check/valid.json: the input is missing. Make it first: dvc repro\n"
        if with_params
        else "error: params.yaml: the file is missing. Run from the repository's root\n"
    )
    assert set(tmp_path.iterdir()) == before


# Torn and foreign inputs, through the stages' command lines


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("data/tokenizer/tokenizer/vocabulary.json", cut, "not valid JSON"),
        ("data/tokenizer/tokenizer/vocabulary.json", edit(mask_token_id=0), "mask_token_id is 0; expected the last id"),
        ("data/tokenizer/tokenizer/tokenizer.json", cut, "not a tokenizer"),
        ("data/tokenizer/tokenizer/tokenizer.json", remove, "the file is missing"),
    ],
)
def test_a_torn_tokenizer_stops_packing(
    file: str,
    damage: Damage,
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(project / file)
    assert complaint(tokens.STAGE, [], monkeypatch, capsys).startswith(f"error: {file}: {message}")


@pytest.mark.parametrize(
    ("file", "damage", "where", "message"),
    [
        ("model.safetensors", cut, "model.safetensors", rf"damaged \(.*\)\. {REMAKE}"),
        ("model.safetensors", empty, "model.safetensors", rf"damaged \(.*\)\. {REMAKE}"),
        ("model.safetensors", remove, "model.safetensors", "the file is missing"),
        ("config.json", cut, "", "the model can't be loaded: .*config.json"),
        ("config.json", remove, "config.json", "the file is missing"),
        ("config.json", edit(model_type="gpt2"), "config.json", "model_type is 'gpt2'; expected config.json and model"),
        (
            "config.json",
            edit(hidden_size=32),
            "",
            "26 weights are missing, too many, or misshapen: backbone.blocks.0.adaLN",
        ),
        ("config.json", edit(n_blocks=3), "", "10 weights are missing, too many, or misshapen: backbone.blocks.2"),
        ("config.json", edit(n_blocks=1), "", "10 weights are missing, too many, or misshapen: backbone.blocks.1"),
        ("config.json", edit(n_heads="two"), "", "the model can't be loaded: "),
    ],
)
def test_a_torn_or_foreign_model_is_named_before_anything_is_generated(
    file: str,
    damage: Damage,
    where: str,
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Path("models/mdlm/base/model")
    damage(model / file)
    err = complaint(generate.STAGE, ["--model", "base"], monkeypatch, capsys)
    assert err.startswith(f"error: {model / where}: ") and re.search(message, err), err


@pytest.mark.parametrize("name", ["mdlm.ckpt", "hub/pytorch_model.bin", "hub/model.safetensors"])
@pytest.mark.parametrize("harmful", [True, False])
def test_a_harmful_or_torn_checkpoint_makes_no_base(
    name: str, harmful: bool, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, layout = project / "models/import" / name, "hub" if name.startswith("hub") else "lightning"
    params = read_yaml(Path("params.yaml"))
    source = file.parent if layout == "hub" else file
    params["base"] |= {"source": "checkpoint", "weights": "ema"}
    params["base"]["checkpoint"] |= {"layout": layout, "path": str(source)}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    model = new_model(ModelParams(**params["model"]), PackedTokens.open(Path("data/tokens/train")), seed=1)
    file.parent.mkdir(parents=True)
    if layout == "hub":
        write_hub(source, model, name=file.name)
    else:
        write_lightning(file, model, model)
    if harmful:
        torch.save(traps(project / "executed")["posix.system"], file)
    else:
        cut(file)
    err = complaint(base.STAGE, [], monkeypatch, capsys)
    torn = "not safetensors" if file.suffix == ".safetensors" else "it can't be read as data"
    refused = "it refers to posix.system, which is not data"
    assert err.startswith(f"error: {file}: {refused if harmful and file.suffix != '.safetensors' else torn}"), err


def test_weights_that_are_no_tensors_of_the_model_are_named(project: Path) -> None:
    file = Path("models/mdlm/base/model/model.safetensors")
    weights = load_file(file)
    weights["bogus"] = torch.zeros(2)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, too many, or misshapen: bogus"):
        read(file.parent)


def test_an_arm_refuses_a_torn_base(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(Path("models/mdlm/base/model/model.safetensors"))
    err = complaint(arm.STAGE, ["--arm", "binary", "--seed", "1"], monkeypatch, capsys)
    assert err.startswith("error: models/mdlm/base/model/model.safetensors: damaged (")


def test_a_model_of_another_vocabulary_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary = Vocabulary.read(Path("data/tokenizer/tokenizer"))
    tiny_mdlm(vocab_size=vocabulary.size + 5).save_pretrained("models/mdlm/base/model")
    message = (
        f"its vocabulary has {vocabulary.size} ids, the model's {vocabulary.size + 5}; expected what the model was"
    )
    err = complaint(arm.STAGE, ["--arm", "binary", "--seed", "1"], monkeypatch, capsys)
    assert err.startswith(f"error: data/tokens/train: {message}")
    err = complaint(generate.STAGE, ["--model", "base"], monkeypatch, capsys)
    assert err.startswith(f"error: data/tokenizer/tokenizer: {message}")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("tokens.bin", cut, r"tokens\.bin: the file has \d+ bytes; expected \d+ bytes"),
        ("document_starts.bin", remove, r"document_starts\.bin: the file is missing"),
        ("meta.json", cut, r"meta\.json: not valid JSON"),
        ("meta.json", latin, r"meta\.json: not valid JSON"),
        ("meta.json", edit(rows="many"), r"meta\.json: counts or dtype make no sense"),
        ("meta.json", edit(bogus=1), r"meta\.json: not the meta\.json of packed tokens"),
    ],
)
def test_torn_tokens_stop_an_arm(
    file: str,
    damage: Damage,
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(Path("data/tokens/train") / file)
    with pytest.raises(InputError, match=message):
        PackedTokens.open(Path("data/tokens/train"))
    err = complaint(arm.STAGE, ["--arm", "binary", "--seed", "1"], monkeypatch, capsys)
    assert err.startswith("error: data/tokens/train/")


def test_a_model_larger_than_memory_is_refused_before_it_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    values["model"] |= {"hidden_size": 65536, "n_blocks": 1}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    Path("models/import").mkdir(parents=True)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**34))
    err = complaint(base.STAGE, [], monkeypatch, capsys)
    message = r"a model of 5\d{10} parameters takes 9\d\d GiB; expected one for this machine's 16 GiB of memory\n"
    assert re.fullmatch(rf"error: params\.yaml: model: {message}", err), err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_stops_the_stage_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    values["compute"]["device"] = "cuda"
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    message = "params.yaml: compute.device: device 'cuda' was asked for and no CUDA device is there"
    err = complaint(generate.STAGE, ["--model", "base"], monkeypatch, capsys)
    assert err.startswith(f"error: {message}. Use a profile with device: cpu")
    with pytest.raises(InputError, match=message):
        set_up(ComputeParams(**values["compute"]))


# The readers


def sample(**changes: Any) -> dict[str, Any]:
    return {"sampler": "mdlm", "nfe": 8, "text": "abc", "ids": [1, 2], "real_nfe": 7, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"samples\.jsonl: the file is missing"),
        (b'{"sampler": "mdlm", "nf', r"samples\.jsonl, line 3: not valid JSON"),
        (b"caf\xe9\n", r"samples\.jsonl, line 3: not valid JSON"),
        (b"[1]\n", r"samples\.jsonl, line 3: no field 'sampler', .*; expected an object with sampler, nfe, text"),
        (b'{"sampler": "mdlm", "nfe": 8, "text": "a", "ids": []}\n', r"line 3: no field 'real_nfe'"),
        (b"\n", r"samples\.jsonl, line 3: not valid JSON"),
    ],
)
def test_torn_samples_are_named_by_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "samples.jsonl"
    if content is not None:
        write_lines(file, [sample(), sample(nfe=16)])
        assert [row["nfe"] for row in read_lines(file, SAMPLE_FIELDS)] == [8, 16]
        file.write_bytes(file.read_bytes() + content)
    with pytest.raises(InputError, match=message):
        read_lines(file, SAMPLE_FIELDS)


@pytest.mark.parametrize(("damage", "message"), [(cut, "damaged"), (empty, "damaged"), (remove, "the file is missing")])
def test_torn_arrays_are_named(tmp_path: Path, damage: Damage, message: str) -> None:
    file = tmp_path / "features.safetensors"
    save_file({"features": torch.zeros(4, 3)}, file)
    assert read_arrays(file, ["features"])["features"].shape == (4, 3)
    with pytest.raises(InputError, match=r"features\.safetensors: no array 'bogus'"):
        read_arrays(file, ["bogus"])
    damage(file)
    with pytest.raises(InputError, match=rf"features\.safetensors: {message}"):
        read_arrays(file, ["features"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "not a tokenizer"), (latin, "not a tokenizer"), (edit(model=None), "not a tokenizer"), (remove, "missing")],
)
def test_a_torn_tokenizer_is_named(tmp_path: Path, damage: Damage, message: str) -> None:
    character_tokenizer(tmp_path)
    assert read_tokenizer(tmp_path).get_vocab_size() > 3
    damage(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=rf"tokenizer\.json: .*{message}"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not valid JSON"), (b'{"a": 1', "not valid JSON"), (b'{"a": "\xe9"}', "not valid JSON"), (None, "missing")],
)
def test_torn_json_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "costs.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"costs\.json: .*{message}"):
        read_json(tmp_path / "costs.json")


# Command lines


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        (arm.STAGE, [], "the following arguments are required: --arm, --seed"),
        (arm.STAGE, ["--arm", "binary"], "the following arguments are required: --seed"),
        (arm.STAGE, ["--arm", "binary", "--seed"], "argument --seed: expected one argument"),
        (arm.STAGE, ["--arm", "binary", "--seed", "1", "--fast"], "unrecognized arguments: --fast"),
        (generate.STAGE, ["base"], "the following arguments are required: --model"),
        (tokens.STAGE, ["train"], "unrecognized arguments: train"),
        (
            arm.STAGE,
            ["--arm", "binari", "--seed", "1"],
            "error: params.yaml: arms.settings.binari: missing; expected it",
        ),
        (arm.STAGE, ["--arm", "binary", "--seed", "one"], "error: --seed: 'one' is no seed; expected a whole number"),
        (arm.STAGE, ["--arm", "binary", "--seed", "-1"], "error: --seed: '-1' is no seed; expected a whole number"),
        (generate.STAGE, ["--model", "binary-9"], "error: models/mdlm/binary-9/model: the input is missing"),
        (evaluate.STAGE, ["--model", "../base"], "error: models/mdlm/../base/model: the input is missing"),
    ],
)
def test_a_wrong_command_line_is_told(
    stage: Any,
    arguments: list[str],
    message: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in complaint(stage, arguments, monkeypatch, capsys)


# The store and local.toml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"local\.toml: can't be read .*checkpoints"),
        (b"[checkpoints\npath = 1", r"local\.toml: can't be read"),
        (b"[checkpoints]\nfolder = 'x'\n", r"local\.toml: can't be read|checkpoints\.folder is .x.; expected .*path"),
        (b"checkpoints = 'x'\n", r"local\.toml: can't be read"),
        (b"[checkpoints]\npath = 3\n", r"local\.toml: checkpoints\.path is 3; expected .*a folder"),
        (b"[checkpoints]\npath = '\xe9'\n", r"local\.toml: can't be read"),
        (
            b"[checkpoints]\npath = 'text/a.txt/store'\n",
            r"text/a\.txt/store/.*Not a directory",
        ),
    ],
)
def test_a_wrong_local_toml_stops_the_stage_before_it_works(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_stage.make(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "local.toml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        tiny_stage.stage(folder).execute({})
    assert not tiny_stage.log(folder) and not (folder / "out").exists()


def test_a_stage_that_another_process_runs_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_stage.make(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "hold").touch()
    other = tiny_stage.start(folder)
    while tiny_stage.log(folder) != "01":
        assert other.poll() is None, other.communicate()[1]
    err = complaint(tiny_stage.stage(folder), [], monkeypatch, capsys, MAY_PASS)
    assert err.startswith("error: tiny is running in another process (it holds .checkpoints/tiny-")
    assert err.endswith("Wait for it, or stop it; then run again\n")
    (folder / "hold").unlink()
    assert other.wait(timeout=20) == 0 and tiny_stage.log(folder) == "012"
    assert json.loads((folder / "out" / "values.json").read_text(encoding="utf-8")) == [10, 11, 12]
