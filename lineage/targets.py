"""What a person asks about: an artifact, a number in a file, a stage, or a hash."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from lineage.contents import Contents, at, read_value
from lineage.errors import AuditError, Missing, Unreadable
from lineage.graph import Graph
from lineage.model import File

HASH = re.compile(r"[0-9a-f]{6,64}(\.dir)?")


class Target(BaseModel):
    """What is asked about, found."""

    model_config = ConfigDict(frozen=True)
    asked: str
    path: str | None = None
    """The artifact; None where a stage was asked for."""
    key: str | None = None
    """Of a number: its dotted key."""
    value: Any = None
    """Of a number: itself."""
    hash: str | None = None
    runs: tuple[str, ...] = ()
    """Who made it; empty for a raw source."""


def find_target(asked: str, graph: Graph, contents: Contents) -> Target:
    """What a word means in a state: a path, `path:key`, a stage, or (part of) a hash.

    Raises:
        AuditError: there is nothing of that name, with what there is instead.
        Missing: it may be in what can't be read.
    """
    stage = asked.removeprefix("dvc.yaml:")
    runs = (stage,) if stage in graph.runs else tuple(name for name in graph.runs if name.split("@")[0] == stage)
    if runs:
        file = find_file(stage, graph, contents) if stage == asked else None
        makers = {run.name for run, _ in graph.producers(file[0].path)} if file is not None else set()
        if not makers <= {*runs}:
            what = f"{asked!r} names a stage, and what another stage makes"
            raise AuditError(what, graph.state.name, todo=f"Say ./{asked} for the file, dvc.yaml:{asked} for the stage")
        return Target(asked=asked, runs=runs)
    if (found := find_file(asked, graph, contents)) is not None:
        read, key = found
        made = tuple(dict.fromkeys(run.name for run, _ in graph.producers(read.path)))
        value = _number(read, key, contents, bool(made)) if key else None
        return Target(asked=asked, path=read.path, key=key or None, hash=read.hash, runs=made, value=value)
    if HASH.fullmatch(asked) and (named := _by_hash(asked, graph)) is not None:
        return named
    if graph.gaps:
        gap = graph.gaps[0]
        raise Missing(f"nothing that could be read is called {asked!r}; {gap.where}: {gap.what}", graph.state.name)
    raise AuditError(
        f"nothing here is called {asked!r}",
        where=graph.state.name,
        expected=f"an artifact, a number (PATH:KEY), a stage or a hash{_like(asked.partition(':')[0], graph)}",
        todo=f"Other commits: dvc-lineage find {asked}" if HASH.fullmatch(asked) else "",
    )


def find_file(asked: str, graph: Graph, contents: Contents) -> tuple[File, str] | None:
    """The recorded file or folder, and the key, of `PATH` or `PATH:KEY`; None where nothing of that name is recorded.

    A file in a folder that a run made has the hash that the folder's list gives it. Where that list isn't here, any
    name may be in it: then what looks like a number is taken for one.
    """
    doubtful: list[tuple[File, str]] = []
    for path, key in _readings(asked, graph):
        file = _recorded(path, graph)
        if file is not None and file.hash is None:
            if unlisted(path, graph, contents) is not None:
                doubtful.append((file, key))
                continue
            file = _inside(file, graph, contents)
        if file is not None:
            return file, key
    return next((found for found in doubtful if found[1]), doubtful[0] if doubtful else None)


def unlisted(path: str, graph: Graph, contents: Contents) -> File | None:
    """The folder that a run made, that a path lies in, and whose list isn't here, if there is one."""
    folders = [folder for _, folder in graph.producers(path) if folder.is_folder and path.startswith(folder.path + "/")]
    return next((folder for folder in folders[:1] if contents.listing(folder) is None), None)


def made_at(path: str, graph: Graph, contents: Contents) -> File | None:
    """What runs made at a path: an output, or a file of one that is a folder; None where none did."""
    if path in graph.made:
        return graph.made[path][1]
    return _inside(File(path), graph, contents) if graph.producers(path) else None


def _inside(file: File, graph: Graph, contents: Contents) -> File | None:
    """A file of a folder that a run made, by the folder's list; None where the list doesn't have it."""
    for _, folder in graph.producers(file.path):
        if folder.is_folder and file.path.startswith(folder.path + "/"):
            name, listing = file.path[len(folder.path) + 1 :], contents.listing(folder)
            return file if listing is None else _listed(file.path, name, folder.algorithm, listing)
    return file


def _listed(path: str, name: str, algorithm: str, listing: dict[str, str]) -> File | None:
    if name in listing:
        return File(path, listing[name], algorithm)
    return File(path) if any(inner.startswith(name + "/") for inner in listing) else None


def _readings(asked: str, graph: Graph) -> Iterator[tuple[str, str]]:
    return ((_path(path, graph), key) for path, key in readings(asked))


def readings(asked: str) -> Iterator[tuple[str, str]]:
    """Path and key, the longest path first: paths may hold colons."""
    for end in (len(asked), *(i for i in range(len(asked) - 1, 0, -1) if asked[i] == ":")):
        yield asked[:end].rstrip("/").removeprefix("./"), asked[end + 1 :]


def _by_hash(asked: str, graph: Graph) -> Target | None:
    """What was made with a hash, or else read."""
    runs = graph.runs.values()
    made = ((file, (run.name,)) for run in runs for file in run.outputs)
    read = ((file, ()) for run in runs for file in run.inputs)
    for file, names in (*made, *read):
        if file.hash is not None and file.hash.startswith(asked):
            return Target(asked=asked, path=file.path, hash=file.hash, runs=names)
    return None


def _path(path: str, graph: Graph) -> str:
    """A path from git's root; one from the DVC project's folder, where that is another, is found too.

    What runs made goes before what they read: who asks in the project's folder means its own `metrics.json`.
    """
    folder = graph.state.repository.folder
    inside = f"{folder}/{path}" if folder else path
    made = [place for place in (path, inside) if graph.producers(place)]
    return (made or [place for place in (path, inside) if _recorded(place, graph) is not None] or [path])[0]


def _recorded(path: str, graph: Graph) -> File | None:
    producers = graph.producers(path)
    exact = [file for _, file in producers if file.path == path]
    if exact:
        return exact[0]
    read = [file for run in graph.runs.values() for file in run.inputs if file.path == path]
    if read:
        return read[0]
    return File(path) if producers else None


def _number(file: File, key: str, contents: Contents, is_made: bool) -> Any:
    data = None if is_made and file.hash is None else contents.read(file)
    if data is None:
        what = f"the bytes that the record says ({file.hash}) are" if file.hash else "the list of its folder's files is"
        raise Missing(f"{what} not here, so that the number can't be read", file.path, todo="Fetch: dvc pull")
    try:
        value = read_value(data, file.path)
        return at(value, key)
    except Unreadable as error:
        raise Missing(str(error), where=file.path) from None
    except KeyError:
        some = ", ".join(sorted(_keys(value))[:12])
        raise AuditError(f"it has no {key!r}", where=file.path, expected=f"a key such as {some}") from None


def _keys(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict) or not value:
        return [prefix.rstrip(".")]
    return [key for k, inner in value.items() for key in _keys(inner, f"{prefix}{k}.")]


def _like(path: str, graph: Graph) -> str:
    names = [*graph.runs, *graph.made]
    close = difflib.get_close_matches(path, names, n=3, cutoff=0.5)
    return f", such as {', '.join(close)}" if close else ""
