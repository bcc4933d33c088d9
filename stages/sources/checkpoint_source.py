"""Where a published checkpoint lies: a local path, or the hub at a pinned commit. Nothing is opened here."""

from collections.abc import Callable
from pathlib import Path

from softmask.errors import InputError
from stages.params.base import CheckpointParams
from stages.sources.fetched import fetched

WHERE = "params.yaml: base.checkpoint"
HUB_PATTERNS = ("config.json", "model.safetensors", "pytorch_model.bin")
"""What is fetched of a hub repository: its size and its weights, none of its code."""


def checkpoint_path(params: CheckpointParams) -> Path:
    """The checkpoint's file (lightning) or folder (hub), fetched if `path` is null.

    Raises:
        InputError: it isn't there, or can't be fetched.
    """
    if params.path is not None:
        return _local(params, Path(params.path).expanduser())
    repo, revision, filename = params.repo, params.revision, params.filename
    assert repo is not None and revision is not None, "the params model asks for them"
    from huggingface_hub import hf_hub_download, snapshot_download  # only this source needs it

    if params.layout == "hub":
        return _fetch(params, lambda: snapshot_download(repo, revision=revision, allow_patterns=list(HUB_PATTERNS)))
    assert filename is not None, "the params model asks for it"
    return _fetch(params, lambda: hf_hub_download(repo, filename, revision=revision))


def _local(params: CheckpointParams, path: Path) -> Path:
    folder = params.layout == "hub"
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        other = f", but a {'file' if folder else 'folder'} of that name" if path.exists() else ""
        raise InputError(
            f"{params.path!r}: no such {kind}{other}",
            where=f"{WHERE}.path",
            expected=f"the {kind} of a {params.layout} checkpoint",
            todo="Download it to there, or set path to null, and repo and revision",
        )
    return path


def _fetch(params: CheckpointParams, download: Callable[[], str]) -> Path:
    return fetched(
        download,
        name=f"{params.repo} at {params.revision}",
        where=f"{WHERE}.repo",
        todo="Check repo, revision and filename, and that the hub can be reached; or download it and set path",
    )
