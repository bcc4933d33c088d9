"""What dvc.yaml says, templates filled in by DVC's own resolver. dvc.lock isn't read here."""

import io
import json
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from dvc.exceptions import DvcException
from dvc.parsing import DataResolver, ForeachDefinition, MatrixDefinition

from lineage.contents import read_value
from lineage.errors import Unreadable
from lineage.lockfile import address, resolve
from lineage.states import State
from lineage.yaml12 import load

MADE = ("outs", "metrics", "plots")
DEFAULT = "params.yaml"
MOST = 20_000
"""Stages of a dvc.yaml."""
SLOWEST = 10**7
"""Templates times characters of a text: DVC looks for the end of each in all of it."""
WIDEST = 1 << 20
"""Characters of a file of variables."""
LONGEST = 1 << 27
"""Characters that the templates of a dvc.yaml may come to."""


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
    metrics: frozenset[str]
    """Those of the outputs that it says are metrics."""
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
    config = posixpath.join(state.repository.folder, ".dvc/config")
    known = _known.setdefault((state.repository.folder, path), [])
    for read, found in known:
        if all(state.identity(file) == content for file, content in read.items()):
            return found
    place = _place(state)
    found = _file(state, place, path)
    known.insert(0, ({file: state.identity(file) for file in (path, config, *place.fs.seen)}, found))
    return found


_known: dict[tuple[str, str], list[tuple[dict[str, str | None], list[Declared]]]] = {}
"""The project's folder and a dvc.yaml -> (what was read, by git's ids, and what it says): revisions share most."""


class _Files:
    """What DVC's resolver asks of a file system, answered from a state's own files. Paths are from git's root."""

    join, normpath = staticmethod(posixpath.join), staticmethod(posixpath.normpath)

    def __init__(self, state: State) -> None:
        self._state = state
        self.seen: set[str] = set()
        """What was asked for, whether or not it is there."""

    def exists(self, path: str) -> bool:
        """Whether the state has a file.

        Raises:
            Unreadable: it lies outside the repository.
        """
        if self._state.leads_out(path):
            raise Unreadable(f"{path} lies outside the repository, where nothing is read")
        self.seen.add(path)
        return self._state.read(path) is not None

    def isdir(self, path: str) -> bool:
        """No folder exists, by `exists`."""
        return False

    def suffix(self, path: str) -> str:
        """A name's ending."""
        return posixpath.splitext(path)[1]

    def open(self, path: str, encoding: str) -> io.StringIO:
        """A file's text, if its values are no larger than people write them: the resolver copies what it is given.

        Raises:
            Unreadable: they are.
        """
        data = self._state.read(path) or b""
        if len(json.dumps(read_value(data, path), default=str)) > WIDEST:
            raise Unreadable(f"{path} holds more than {WIDEST} characters, aliases written out")
        return io.StringIO(data.decode(encoding))


def _place(state: State) -> Any:
    """What DVC's resolver asks of a project: files and a configuration."""
    repository = state.repository
    try:
        at_commit = not state.is_workspace and state.commit is not None
        config = (repository.dvc_at(state.commit) if at_commit and state.commit else repository.dvc).config
    except DvcException as error:  # a commit from before `dvc init`
        raise Unreadable(f"DVC can't open {state.name}: {error}") from None
    return SimpleNamespace(fs=_Files(state), config=config)


def _file(state: State, place: Any, path: str) -> list[Declared]:
    own = posixpath.dirname(path)
    try:
        parsed = load(state.read(path) or b"") or {}
        if any(text.count("${") * len(text) > SLOWEST for text in _texts(parsed)):
            raise Unreadable("a text in it has so many templates that reading them would take minutes")
        resolver = DataResolver(place, own, parsed)
        if (count := sum(map(_count, resolver.definitions.values()))) > MOST:
            raise Unreadable(f"it declares {count} stages, more than {MOST}")
        project = state.repository.folder
        return [
            _declared(name, stage, address(name, path, project), own) for name, stage in _resolved(resolver, parsed)
        ]
    except Exception as error:  # the resolver's assertions and ends of recursion, too: the file may hold anything
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from None


def _resolved(resolver: DataResolver, parsed: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(Name, stage) with its templates filled in.

    Raises:
        Unreadable: they fill more memory than any project needs.
    """
    variables = len(json.dumps(resolver.context, default=str))
    for name in resolver.definitions:
        written = json.dumps(parsed["stages"][name], default=str)
        own = len(written) + WIDEST * ('"vars"' in written)
        if written.count("${") * (variables + own) > LONGEST:
            raise Unreadable(f"the templates of {name} may come to more than {LONGEST} characters")
    made = 0
    for key in resolver.get_keys():
        for name, stage in resolver.resolve_one(key).items():
            made += sum(map(len, _texts(stage)))
            if made > LONGEST:
                raise Unreadable(f"its templates come to more than {LONGEST} characters")
            yield name, stage


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, dict | list):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _count(definition: Any) -> int:
    """How many stages an entry stands for; a matrix of a few lists may mean more than there are atoms."""
    if isinstance(definition, MatrixDefinition):
        return math.prod(map(len, definition.resolved_iterable.values()))
    return len(definition.resolved_iterable) if isinstance(definition, ForeachDefinition) else 1


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
        metrics=frozenset(_paths(stage.get("metrics"), folder)),
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
