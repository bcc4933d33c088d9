"""dvc.lock and `.dvc` files, parsed. Knows no graph and no git.

dvc.lock is read stage by stage: revisions share most stages, and each text is parsed once.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lineage.cache import at_once, remembered
from lineage.errors import Unreadable
from lineage.model import File, Kind, Run
from lineage.yaml12 import load

STAGE = re.compile(rb" +(?=[^\s#])")
CONFLICTS = (b"<<<<<<< ", b">>>>>>> ")
HEADS = (b"schema: '2.0'", b'schema: "2.0"')
FILES = re.compile(
    rb"^    (deps|outs):\n"
    rb"((?:    - path: [A-Za-z_][\w./@+=-]*\n(?:      (?:hash|md5|size|nfiles): [0-9a-z.]{1,64}\n)+)+)(?=    [a-z]|\Z)",
    re.MULTILINE,
)
"""A list of files as DVC nearly always writes it."""
ENTRY = re.compile(rb"    - path: ((?:.|\n(?!    -))+?)(?=\n    -|\n\Z)")
NOT_A_NUMBER = re.compile(r"[a-df]")
WORDS = ("true", "false", "null")
COUNTS = ("size", "nfiles")
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
HASHES = ("md5", "etag", "checksum", "sha256")


def lock_stages(data: bytes) -> dict[str, Any]:
    """Stage name -> its entry in a dvc.lock.

    Raises:
        Unreadable: conflict markers, no YAML, no lock of schema 1 or 2, or a stage that is there twice.
    """
    if has_conflicts(data):
        raise Unreadable("it has conflict markers of a merge")
    texts = stage_texts(data)
    if texts is None:
        return _whole_lock(data)
    stages: dict[str, Any] = {}
    with at_once():
        for name, entry in (item for text in texts.values() for item in _parsed_stage(text).items()):
            if name in stages:
                raise Unreadable(f"stage {name!r} is there twice, which DVC refuses")
            stages[name] = entry
    return stages


def _parsed_stage(text: bytes) -> Any:
    if text not in _known:
        _known[text] = remembered("stage", hashlib.sha256(text).hexdigest(), lambda: _read_stage(text))
    return _known[text]


def _read_stage(text: bytes) -> dict[str, Any]:
    """A stage's entry. Its lists of files are nearly all of it, and mostly plain enough to need no YAML parser."""
    lists: dict[str, Any] = {}
    mark = hashlib.sha256(text).hexdigest()  # which the text itself can't hold

    def take(match: re.Match[bytes]) -> bytes:
        files = [_plain_file(entry.decode()) for entry in ENTRY.findall(match[2])]
        if None in files:
            return match[0]
        lists[match[1].decode()] = files
        return b"    %b: %b\n" % (match[1], mark.encode())

    stages = _checked_stages(load(FILES.sub(take, text)))
    for entry in stages.values():
        if any(entry.get(name) != mark for name in lists):  # what looks like a list is text, or a parameter
            return _checked_stages(load(text))
        entry.update(lists)
    return stages


def _plain_file(entry: str) -> dict[str, Any] | None:
    """An entry of `deps` or `outs`; None where YAML may take one of its words for something else than text."""
    path, *lines = entry.split("\n      ")
    found: dict[str, Any] = {"path": path}
    for key, value in (line.split(": ") for line in lines):
        found[key] = int(value) if key in COUNTS and value.isdecimal() else value
        if (key in COUNTS) is not value.isdecimal() or (key == "md5" and not NOT_A_NUMBER.search(value)):
            return None
    return None if path.lower() in WORDS else found


_known: dict[bytes, Any] = {}
"""A stage's text, or of another layout what it says -> its entry: the same is one run."""


def has_conflicts(data: bytes) -> bool:
    """Whether a merge has left its markers."""
    return any(data.startswith(mark) or b"\n" + mark in data for mark in CONFLICTS)


def stage_texts(data: bytes) -> dict[str, bytes] | None:
    """Stage name -> its text in a dvc.lock that is laid out as DVC writes it, without anchors; None in any other.

    The same text is the same record, whatever stands before and after it. Stages may be indented as a formatter likes.
    """
    head, found, body = data.partition(b"\nstages:\n")
    if not found or head.strip() not in HEADS or b"\ndatasets:" in body or b" &id" in body:
        return None
    if (first := STAGE.match(body)) is None:
        return None
    starts = [match.start() for match in re.finditer(rb"^%b(?=[^\s#])" % first[0], body, re.MULTILINE)]
    pieces = [body[start:end] for start, end in zip(starts, [*starts[1:], len(body)], strict=True)]
    texts = {piece.partition(b":\n")[0].strip().strip(b"'\"").decode(errors="replace"): piece for piece in pieces}
    return texts if len(texts) == len(pieces) else None


def _whole_lock(data: bytes) -> dict[str, Any]:
    parsed = load(data)
    if isinstance(parsed, dict) and str(parsed.get("schema")) == "2.0":
        stages = _checked_stages(parsed.get("stages") or {})
    elif isinstance(parsed, dict) and all(isinstance(entry, dict) and "cmd" in entry for entry in parsed.values()):
        stages = _checked_stages(parsed)  # as DVC 1 wrote them
    else:
        raise Unreadable("it is no dvc.lock of schema 1 or 2.0")
    return {name: _known.setdefault(repr((name, entry)).encode(), entry) for name, entry in stages.items()}


def _checked_stages(stages: Any) -> dict[str, Any]:
    if not isinstance(stages, dict):
        raise Unreadable("its stages are no mapping")
    for name, entry in stages.items():
        if not isinstance(name, str) or not isinstance(entry, dict) or "cmd" not in entry:
            raise Unreadable(f"stage {name!r} has no command, or a number for its name")
    return stages


def address(name: str, file: str, project: str = "") -> str:
    """What DVC calls a stage, from the project's folder.

    Args:
        file: the path of its dvc.yaml or dvc.lock.
        project: the project's folder.
    """
    own = posixpath.dirname(_inside(file, project))
    return f"{own}/dvc.yaml:{name}" if own else name


def _inside(path: str, project: str) -> str:
    return path.removeprefix(f"{project}/") if project else path


def lock_run(name: str, entry: Mapping[str, Any], lock: str, folder: str, project: str = "") -> Run:
    """A stage's entry in a dvc.lock as a run.

    Args:
        lock: the path of the dvc.lock.
        folder: the stage's working folder, to which the paths in the lock are relative.
        project: the DVC project's folder.

    Raises:
        Unreadable: an entry is not what DVC writes.
    """
    command = entry["cmd"]
    try:
        return Run(
            name=address(name, lock, project),
            file=lock,
            kind=Kind.STAGE,
            folder=folder,
            command=tuple(map(str, command)) if isinstance(command, list) else (str(command),),
            inputs=tuple(_files(entry.get("deps"), folder)),
            parameters=_parameters(entry.get("params"), folder),
            outputs=tuple(_files(entry.get("outs"), folder)),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise Unreadable(f"stage {name!r} is not as DVC writes it ({error})") from None


def data_run(data: bytes, path: str, project: str = "") -> Run:
    """A `.dvc` file as a run: what `dvc add` or an import recorded.

    Args:
        project: the DVC project's folder.

    Raises:
        Unreadable: it isn't one.
    """
    if has_conflicts(data):
        raise Unreadable("it has conflict markers of a merge")
    parsed = load(data)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("outs"), list):
        raise Unreadable("it is no .dvc file: it has no outs")
    try:
        folder = resolve(parsed.get("wdir") or ".", posixpath.dirname(path))
        deps = parsed.get("deps") or []
        origin = {k: v for k, v in deps[0].items() if k != "files"} if deps else {}
        return Run(
            name=_inside(path, project),
            file=path,
            kind=Kind.IMPORT if deps else Kind.DATA,
            folder=folder,
            inputs=tuple(_files(deps, folder)),
            outputs=tuple(_files(parsed["outs"], folder)),
            origin=origin,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise Unreadable(f"it is not as DVC writes it ({error})") from None


def resolve(path: str, folder: str) -> str:
    """A path of DVC's files, relative to the root; addresses and absolute paths stay as they are."""
    if "://" in path or path.startswith("/"):
        return path
    joined = posixpath.normpath(posixpath.join(folder, path))
    return "" if joined == "." else joined


def _parameters(entries: Any, folder: str) -> dict[str, dict[str, Any]]:
    files = ((file, values or {}) for file, values in (entries or {}).items())
    return {resolve(file, folder): {str(key): value for key, value in values.items()} for file, values in files}


def _files(entries: Any, folder: str) -> Iterator[File]:
    for entry in entries or []:
        name = next((h for h in HASHES if h in entry), None)
        repo = entry.get("repo")
        algorithm = name or "md5"
        if name == "md5" and "hash" not in entry:
            algorithm = "md5-dos2unix"
        if repo:
            path = f"{repo['url']}://{entry['path']}"
        elif "db" in entry:  # of `dvc import-db`
            path = f"db://{entry['db'].get('connection')}/{entry['db'].get('table') or entry['db'].get('query')}"
        else:
            path = resolve(entry["path"], folder)
        given = entry[name] if name else (repo.get("rev_lock") if repo else None)
        digest = None if given is None else str(given)  # YAML takes one of digits only for a number
        if name == "md5" and MD5.fullmatch(digest or "") is None:  # it would be taken for a path in the cache
            raise Unreadable(f"{path} has the MD5 {digest!r}, which is none")
        if name not in (None, "md5") and not repo and not File(path).is_external:
            raise Unreadable(f"{path} has {name!r} for its hash, which only what lies elsewhere has")
        counts = [entry.get(count) for count in COUNTS]
        if not all(count is None or isinstance(count, int) for count in counts):
            raise Unreadable(f"{path} has the size or number of files {counts!r}, which is none")
        yield File(path, digest, algorithm if not repo else "git", *counts)
