"""What dvc.yaml says, templates filled in by DVC's own resolver. dvc.lock isn't read here."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc.parsing import DataResolver

from lineage.lockfile import Unreadable, address
from lineage.states import State
from lineage.yaml12 import Loader


@dataclass(frozen=True, slots=True)
class Declared:
    """A stage of a dvc.yaml."""

    name: str
    """DVC's address, such as `arm@sm-1` or `sub/dvc.yaml:train`."""
    stage: str
    """What its dvc.lock calls it, such as `arm@sm-1` or `train`."""
    command: tuple[str, ...]
    folder: str
    """Its working folder as written, relative to the dvc.yaml's."""
    frozen: bool


def declared_stages(state: State) -> dict[str, Declared]:
    """DVC's address -> what the dvc.yaml files of a state say.

    Raises:
        Unreadable: a dvc.yaml, or a file of variables, can't be read; its text says which.
    """
    files = [path for path in state.dvc_files() if posixpath.basename(path) == "dvc.yaml"]
    place = _place(state) if files else None
    return {stage.name: stage for path in files for stage in _file(state, place, path)}


def frozen_stages(state: State) -> frozenset[str]:
    """DVC's addresses of the stages whose outputs are kept, whatever becomes of what they read.

    Raises:
        Unreadable: as `declared_stages`.
    """
    files = (state.read(path) or b"" for path in state.dvc_files() if posixpath.basename(path) == "dvc.yaml")
    if not any(b"frozen" in data for data in files):  # most projects have none, and templates take a while
        return frozenset()
    return frozenset(name for name, stage in declared_stages(state).items() if stage.frozen)


def declared_in(state: State, path: str) -> list[Declared]:
    """What one dvc.yaml of a state says.

    Raises:
        Unreadable: it, or a file of variables, can't be read.
    """
    return _file(state, _place(state), path)


def _place(state: State) -> Any:
    """What DVC's resolver asks of a project: a file system and a configuration."""
    repository = state.repository
    try:
        if state.is_workspace or state.commit is None:
            return SimpleNamespace(fs=LocalFileSystem(), root=str(repository.root), config=repository.dvc.config)
        repo = repository.dvc_at(state.commit)
        return SimpleNamespace(fs=repo.fs, root="/", config=repo.config)
    except DvcException as error:  # a commit from before `dvc init`
        raise Unreadable(f"DVC can't open {state.name}: {error}") from None


def _file(state: State, place: Any, path: str) -> list[Declared]:
    own = posixpath.dirname(path)
    try:
        parsed = yaml.load(state.read(path) or b"", Loader=Loader) or {}
        resolver = DataResolver(place, place.fs.join(place.root, own) if own else place.root, parsed)
        stages = resolver.resolve()["stages"]
    except (DvcException, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise Unreadable(f"{path}: {' '.join(str(error).split())}") from None
    project = state.repository.folder
    return [_declared(name, stage, address(name, path, project)) for name, stage in stages.items()]


def _declared(name: str, stage: Mapping[str, Any], full: str) -> Declared:
    command = stage["cmd"]
    return Declared(
        name=full,
        stage=name,
        command=tuple(command) if isinstance(command, list) else (str(command),),
        folder=stage.get("wdir") or ".",
        frozen=bool(stage.get("frozen")),
    )
