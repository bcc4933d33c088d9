"""What dvc.yaml says, templates filled in by DVC's own resolver. dvc.lock isn't read here."""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.fs import GitFileSystem, LocalFileSystem
from dvc.parsing import DataResolver
from scmrepo.git.backend.pygit2 import Pygit2Object
from scmrepo.git.objects import GitTrie

from lineage.lockfile import Unreadable, address, resolve
from lineage.states import State
from lineage.yaml12 import Loader

MADE = ("outs", "metrics", "plots")
DEFAULT = "params.yaml"


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
    inputs: frozenset[str]
    """Paths from git's root, as those below."""
    outputs: frozenset[str]
    parameters: Mapping[str, frozenset[str]]
    """Parameter file -> dotted keys; none of a file that is read as a whole."""


@dataclass(frozen=True, slots=True)
class Declarations:
    """What the dvc.yaml files of a state say."""

    stages: dict[str, Declared]
    """By DVC's address."""
    unread: dict[str, str]
    """A dvc.yaml that can't be read, or whose variables can't -> why."""

    def knows(self, lock: str) -> bool:
        """Whether the dvc.yaml beside a dvc.lock could be read."""
        return pipeline_file(lock) not in self.unread

    def frozen(self) -> frozenset[str]:
        """The stages whose outputs are kept, whatever becomes of what they read."""
        return frozenset(name for name, stage in self.stages.items() if stage.frozen)


def declared_stages(state: State, word: bytes = b"") -> Declarations:
    """What the dvc.yaml files of a state say.

    Args:
        word: only those that have it, since templates take a while.
    """
    files = [path for path in state.dvc_files() if posixpath.basename(path) == "dvc.yaml"]
    files = [path for path in files if word in (state.read(path) or b"")]
    stages: dict[str, Declared] = {}
    unread: dict[str, str] = {}
    try:
        place = _place(state) if files else None
    except Unreadable as error:
        return Declarations(stages, dict.fromkeys(files, str(error)))
    for path in files:
        try:
            stages.update({stage.name: stage for stage in _file(state, place, path)})
        except Unreadable as error:
            unread[path] = str(error)
    return Declarations(stages, unread)


def frozen_stages(state: State) -> Declarations:
    """What the dvc.yaml files say that have frozen stages; most have none."""
    return declared_stages(state, b"frozen")


def pipeline_file(lock: str) -> str:
    """The dvc.yaml of a dvc.lock."""
    return posixpath.join(posixpath.dirname(lock), "dvc.yaml")


def declared_in(state: State, path: str) -> list[Declared]:
    """What one dvc.yaml of a state says.

    Raises:
        Unreadable: it, or a file of variables, can't be read; its text says why.
    """
    return _file(state, _place(state), path)


def _place(state: State) -> Any:
    """What DVC's resolver asks of a project: a file system and a configuration."""
    repository = state.repository
    try:
        if state.is_workspace or state.tree is None:
            return SimpleNamespace(fs=LocalFileSystem(), root=str(repository.root), config=repository.dvc.config)
        config = (repository.dvc_at(state.commit) if state.commit is not None else repository.dvc).config
        files = GitFileSystem(trie=GitTrie(Pygit2Object(state.tree), str(state.tree.id)))
        return SimpleNamespace(fs=files, root="/", config=config)
    except DvcException as error:  # a commit from before `dvc init`
        raise Unreadable(f"DVC can't open {state.name}: {error}") from None


def _file(state: State, place: Any, path: str) -> list[Declared]:
    own = posixpath.dirname(path)
    try:
        parsed = yaml.load(state.read(path) or b"", Loader=Loader) or {}
        resolver = DataResolver(place, place.fs.join(place.root, own) if own else place.root, parsed)
        stages, project = resolver.resolve()["stages"] or {}, state.repository.folder  # None where there are none
        return [_declared(name, stage, address(name, path, project), own) for name, stage in stages.items()]
    except (AttributeError, KeyError, TypeError) as error:
        raise Unreadable(f"it is not what DVC reads ({error})") from None
    except (DvcException, yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())) from None


def _declared(name: str, stage: Mapping[str, Any], full: str, own: str) -> Declared:
    command, folder = stage["cmd"], resolve(stage.get("wdir") or ".", own)
    made = (path for section in MADE for path in _paths(stage.get(section), folder))
    return Declared(
        name=full,
        stage=name,
        command=tuple(command) if isinstance(command, list) else (str(command),),
        folder=stage.get("wdir") or ".",
        frozen=bool(stage.get("frozen")),
        inputs=frozenset(_paths(stage.get("deps"), folder)),
        outputs=frozenset(made),
        parameters=_parameters(stage.get("params"), folder),
    )


def _paths(entries: Any, folder: str) -> Iterator[str]:
    """The paths of a list whose entries are paths, or path -> options."""
    for entry in entries or []:
        for path in [entry] if isinstance(entry, str) else entry:
            yield resolve(path, folder)


def _parameters(entries: Any, folder: str) -> dict[str, frozenset[str]]:
    """The keys of a list whose entries are keys of params.yaml, or file -> keys, or file -> nothing for all of it."""
    found: dict[str, set[str]] = {}
    for entry in entries or []:
        for file, keys in {DEFAULT: [entry]}.items() if isinstance(entry, str) else entry.items():
            found.setdefault(resolve(file, folder), set()).update(keys or [])
    return {file: frozenset(keys) for file, keys in found.items()}
