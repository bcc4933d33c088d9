"""The base from a published checkpoint: where it is found or fetched, what becomes of it, and which params can't be."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.hashing import path_hash
from runner.section import read_yaml, validate
from runner.stage import Context
from runner.store import Checkpoints
from softmask.backbones.dit import Mdlm
from softmask.errors import InputError
from stages.base import Params, run
from stages.params.base import BaseParams, CheckpointParams
from stages.params.model import ModelParams
from stages.shared.mdlm_training import new_model
from stages.sources.checkpoint_source import checkpoint_path
from tests.softmask.published import hub_config, write_hub, write_lightning
from tests.tiny_judge import packed_letters

REVISION = "0123456789" * 4
NOWHERE = {"layout": "lightning", "path": None, "repo": None, "revision": None, "filename": None}
MODEL = {"hidden_size": 16, "n_blocks": 2, "n_heads": 2, "cond_dim": 8, "dropout": 0.1}


def checkpoint(**changes: Any) -> CheckpointParams:
    return validate(CheckpointParams, {**NOWHERE, **changes}, "params.yaml")


def base(**changes: Any) -> BaseParams:
    """The base section of params.yaml with changes; `checkpoint` is given as changes of its own."""
    section = read_yaml(Path("params.yaml"))["base"]
    section["checkpoint"] = {**NOWHERE, **changes.pop("checkpoint", {})}
    return validate(BaseParams, {**section, **changes}, "params.yaml")


def random_model(folder: Path, seed: int) -> Mdlm:
    """A model of the test's shape with random weights everywhere."""
    tokens = packed_letters(folder / "tokens", folder / "tokenizer", [30, 70])
    model = new_model(validate(ModelParams, MODEL, "params.yaml"), tokens, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def make(folder: Path, params: BaseParams, out: str = "base") -> Context[Params]:
    """Run the stage."""
    compute = {**read_yaml(Path("params.yaml"))["compute"], "threads": 1}
    raw = {
        "compute": compute,
        "model": MODEL,
        "diffusion": {"noise_eps": 1e-3, "sampling_eps": 1e-3},
        "base": params.model_dump(mode="json"),
    }
    names = {"model": "model", "history": "history.json", "costs": "costs.json", "manifest": "manifest.json"}
    context = Context(
        validate(Params, raw, "params.yaml"),
        {"tokens": folder / "tokens"},
        {name: folder / out / file for name, file in names.items()},
        {},
        Checkpoints(folder / "store", "key"),
    )
    run(context)
    return context


def same(model: Mdlm, folder: Path) -> bool:
    saved = Mdlm.from_pretrained(folder).state_dict()
    return all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_a_lightning_checkpoint_becomes_the_base_and_the_manifest_says_how(tmp_path: Path) -> None:
    raw, averaged = random_model(tmp_path, 1), random_model(tmp_path, 2)
    path = write_lightning(tmp_path / "mdlm.ckpt", raw, averaged)
    for weights, expected in (("raw", raw), ("ema", averaged)):
        params = base(source="checkpoint", weights=weights, checkpoint={"path": str(path)})
        context = make(tmp_path, params, weights)
        assert same(expected, context.outputs["model"])
        assert context.counts["imported"]["weights"] == weights
        assert len(context.counts["imported"]["keys"]) == len(raw.state_dict())
        assert json.loads(context.outputs["costs"].read_text())["updates"] == 0
    again = make(tmp_path, params, "again")
    assert path_hash(again.outputs["model"]) == path_hash(context.outputs["model"])
    assert again.counts == context.counts


def test_a_hub_folder_becomes_the_base(tmp_path: Path) -> None:
    model = random_model(tmp_path, 1)
    path = write_hub(tmp_path / "mdlm-owt", model)
    params = base(source="checkpoint", weights="ema", checkpoint={"layout": "hub", "path": str(path)})
    assert same(model, make(tmp_path, params).outputs["model"])


def test_a_checkpoint_of_another_size_leaves_no_base(tmp_path: Path) -> None:
    model = random_model(tmp_path, 1)
    path = write_hub(tmp_path / "mdlm-owt", model)
    (path / "config.json").write_text(json.dumps({**hub_config(model), "n_heads": 4}), encoding="utf-8")
    params = base(source="checkpoint", weights="ema", checkpoint={"layout": "hub", "path": str(path)})
    with pytest.raises(InputError, match="n_heads is 4, expected 2"):
        make(tmp_path, params)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        ("lightning", "none.ckpt", "no such file; expected the file of a lightning checkpoint"),
        ("lightning", "folder", "no such file, but a folder of that name"),
        ("hub", "none", "no such folder; expected the folder of a hub checkpoint"),
        ("hub", "file", "no such folder, but a file of that name"),
    ],
)
def test_a_path_that_is_not_there_is_named(layout: str, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        checkpoint_path(checkpoint(layout=layout, path=str(tmp_path / name)))
    assert "params.yaml: base.checkpoint.path" in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "a", "repo": "a/b", "revision": REVISION}, "path 'a' with repo 'a/b' is impossible"),
        ({"path": "a", "revision": REVISION}, "with repo null are impossible"),
        ({"path": "a", "filename": "mdlm.ckpt"}, "filename 'mdlm.ckpt' with repo null are impossible"),
        ({"repo": "a/b", "filename": "mdlm.ckpt"}, "repo 'a/b' with revision null is impossible"),
        ({"repo": "a/b", "filename": "mdlm.ckpt", "revision": "main"}, "revision: 'main' is wrong"),
        ({"repo": "a/b", "revision": REVISION}, "repo 'a/b' with filename null is impossible"),
        ({"layout": "hub", "repo": "a/b", "revision": REVISION, "filename": "x"}, "filename 'x' with layout 'hub'"),
        ({"layout": "orbax"}, "layout: 'orbax' is wrong"),
    ],
)
def test_impossible_checkpoint_params_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        checkpoint(**changes)
    assert message in str(caught.value)


def test_a_checkpoint_base_needs_a_place_and_weights_that_are_there() -> None:
    assert base(source="train", weights="raw").checkpoint == checkpoint()
    with pytest.raises(InputError, match=r"checkpoint\.path null and checkpoint\.repo null"):
        base(source="checkpoint")
    with pytest.raises(InputError, match=r"weights 'raw' with checkpoint\.layout 'hub'"):
        base(source="checkpoint", weights="raw", checkpoint={"layout": "hub", "path": "mdlm-owt"})


def git_id(file: Path) -> str:
    """A file's id in git, by which the hub's client keeps it."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def hub_of(folder: Path, asked: list[str]) -> Iterator[str]:
    """A hub on this machine with one repository, model and dataset `a/b` at `REVISION`; its files are a folder's."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            if path == "/api/datasets/a/b/revision/main":
                return self.send(200, json.dumps({"id": "a/b", "sha": REVISION, "siblings": []}).encode(), "info", body)
            if path in (f"/api/{kind}/a/b/tree/{REVISION}" for kind in ("models", "datasets")):
                files = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": git_id(file)}
                    for file in sorted(folder.iterdir())
                ]
                return self.send(200, json.dumps(files).encode(), "tree", body)
            file = folder / path.rpartition("/")[2]
            if path.removeprefix("/datasets") == f"/a/b/resolve/{REVISION}/{file.name}" and file.is_file():
                return self.send(200, file.read_bytes(), git_id(file), body)
            return self.send(404, b"", "none", body)

        def send(self, status: int, content: bytes, etag: str, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", REVISION)
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FETCH = """
import json, sys
from stages.sources.checkpoint_source import checkpoint_path
from runner.stage import run_command
from stages.params.base import CheckpointParams
run_command(lambda: print(checkpoint_path(CheckpointParams.model_validate_json(sys.argv[1]))))
"""


def fetch(params: CheckpointParams, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Fetch in a process of its own: the client reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", FETCH, params.model_dump_json()],
        env={"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pinned_repository_is_fetched_without_its_code(tmp_path: Path) -> None:
    repository = write_hub(tmp_path / "repository", random_model(tmp_path, 1))
    for name in ("modeling_mdlm.py", "mdlm.ckpt"):
        (repository / name).write_text("x", encoding="utf-8")
    asked: list[str] = []
    with hub_of(repository, asked) as endpoint:
        hub = fetch(checkpoint(layout="hub", repo="a/b", revision=REVISION), endpoint, tmp_path / "home")
        lightning = checkpoint(repo="a/b", revision=REVISION, filename="mdlm.ckpt")
        file = fetch(lightning, endpoint, tmp_path / "home")
        missing = fetch(lightning.model_copy(update={"filename": "none.ckpt"}), endpoint, tmp_path / "home")
    folder = Path(hub.stdout.strip())
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "mdlm.ckpt"}
    assert (folder / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    assert Path(file.stdout.strip()).read_text(encoding="utf-8") == "x"
    assert not any("modeling_mdlm.py" in path for path in asked)
    assert missing.returncode == 75
    assert f"error: params.yaml: base.checkpoint.repo: a/b at {REVISION} can't be fetched: " in missing.stderr
