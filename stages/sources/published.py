"""Finds what is published: a folder on this machine, or files of a hub repository at a pinned commit. Opens nothing."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softmask.errors import InputError
from stages.params.code.published import PublishedParams, Source
from stages.sources.fetched import fetched


def published_folder(params: PublishedParams, source: Source, patterns: Sequence[str], where: str) -> Path:
    """The folder, fetched if it is the hub's.

    Args:
        source: `path` or `hub`.
        patterns: names of the files that are fetched; code is never among them.
        where: the section of params.yaml, for errors.

    Raises:
        InputError: it isn't there, or can't be fetched.
    """
    if source is Source.PATH:
        assert params.path is not None, "the params model asks for it"
        return _local(params.path, f"{where}.published.path")
    assert params.repo is not None and params.revision is not None, "the params model asks for them"
    from huggingface_hub import snapshot_download  # only this source needs it

    return fetched(
        partial(snapshot_download, params.repo, revision=params.revision, allow_patterns=list(patterns)),
        name=f"{params.repo} at {params.revision}",
        where=f"{where}.published.repo",
        todo="Check repo and revision, and that the hub can be reached; or download it, and set path and source",
    )


def _local(text: str, where: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        other = ", but a file of that name" if path.exists() else ""
        raise InputError(
            f"{text!r}: no such folder{other}",
            where=where,
            expected="a folder in the layout of the hub",
            todo="Download it to there, or set source to hub, and repo and revision",
        )
    return path
