"""A project's files at one moment: of a commit, of a kept record, or as they lie in the workspace.

Knows nothing of DVC's formats.
"""

import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import pygit2
from pathspec import GitIgnoreSpec

from lineage.checkout import NOT_HERE, Form, entries_under, entry_at, is_pointer, laid_out
from lineage.errors import AuditError, Missing, Unreadable
from lineage.model import File, Gap
from lineage.records import ARCHIVE, MAGIC, LeftOut, files_of, is_record, read_record, unpacked
from lineage.repository import WHOLE, WORKSPACE, Repository, relative

IGNORING = ".dvcignore"
MOST = 100_000
"""Files of DVC's in a commit."""
ALWAYS_IGNORED = (".git", ".dvc/", ".hg/", IGNORING)


class State(ABC):
    """What a commit, an experiment, a kept record or the workspace holds."""

    def __init__(self, repository: Repository, name: str, commit: str | None) -> None:
        self.repository = repository
        self.name = name
        self.commit = commit
        """The commit; of the workspace, the one that is checked out."""
        self._specs: dict[str, GitIgnoreSpec | None] = {}

    is_workspace = False
    kind = "commit"
    """What a person calls it."""
    gaps: tuple[Gap, ...] = ()
    """What of it can't be read."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """A file's bytes; None where there is no such file."""

    @abstractmethod
    def dvc_files(self) -> Iterator[str]:
        """Paths of the project's every dvc.yaml, dvc.lock and `.dvc` file; projects inside it are others."""

    def leads_out(self, path: str) -> bool:
        """Whether a path lies outside the repository, of which nothing is read."""
        return File(path).is_external

    def blob(self, path: str) -> str | None:
        """The id of a file's blob in the commit; None where the commit has no such file."""
        entry = self._entry(path)
        return str(entry.id) if isinstance(entry, pygit2.Blob) else None

    def identity(self, path: str) -> str | None:
        """What tells a file's bytes from others: git's id of them; None where there is no such file."""
        return self.blob(path)

    def committed(self, path: str, form: Form = Form.KEPT) -> bytes | None:
        """A file's bytes in the commit, as git lays them out."""
        entry = self._entry(path)
        if not isinstance(entry, pygit2.Blob):
            return None
        return laid_out(self.repository.git, self.commit, path, entry.data, form)

    def forms(self, path: str) -> Iterator[bytes]:
        """A file's bytes in every form that it may have here."""
        found = (self.committed(path, form) for form in Form)
        yield from (data for data in found if data is not None)

    def absent(self, path: str) -> str | None:
        """Why something that git keeps at a path, or below it, isn't here; None where all is."""
        entry = self._entry(path)
        found = [(path, entry)] if entry is not None and not isinstance(entry, pygit2.Tree) else [*self._under(path)]
        for file, each in found:
            if isinstance(each, pygit2.Commit):
                return f"the submodule {file}, whose commit {each.id} is not here (git submodule update --init)"
            if is_pointer(self.committed(file) or b""):
                return f"{file} is {NOT_HERE}"
        return None

    def keeps(self, path: str) -> bool:
        """Whether git keeps a file or folder at its own place; of an output, because it is a result."""
        return isinstance(self._entry(path), pygit2.Blob | pygit2.Tree)

    def history_of(self, path: str) -> tuple[str | None, tuple[str, ...]]:
        """The newest commit that may have a file as it is here, and the paths there of what may hold it."""
        return self.commit, (path,)

    def in_history(self, data: bytes, path: str) -> bytes:
        """A file as it was, from what git had where `history_of` says."""
        return data

    def committed_under(self, path: str) -> dict[str, str]:
        """(Path below a folder of the commit) -> blob id, without what DVC ignores."""
        length = len(path) + 1 if path else 0
        return {p[length:]: str(found.id) for p, found in self._under(path) if isinstance(found, pygit2.Blob)}

    def _under(self, path: str) -> Iterator[tuple[str, pygit2.Object]]:
        """(Path, blob) of all below a folder that DVC doesn't ignore; a submodule that isn't here is a commit."""
        entry = self._entry(path) if path else self.tree
        if self.tree is not None and isinstance(entry, pygit2.Tree):
            for below, found in entries_under(self.repository.git, self.tree, path, entry):
                name = f"{path}/{below}" if path else below
                if not self.ignores(name):
                    yield name, found

    def committed_names(self, path: str) -> list[str]:
        """The names in a folder of the commit."""
        entry = self._entry(path) if path else self.tree
        return sorted(e.name or "" for e in entry) if isinstance(entry, pygit2.Tree) else []

    def ignores(self, path: str) -> bool:
        """Whether DVC leaves a file out of folders: every .dvcignore from the project down to it, the nearest last."""
        folder, decided = self.repository.folder, False
        if folder and not path.startswith(folder + "/"):
            return False
        while True:
            below = path[len(folder) + 1 :] if folder else path
            if (spec := self._ignored(folder)) is not None:
                found = spec.check_file(below).include
                decided = decided if found is None else found
            name, deeper, rest = below.partition("/")
            if not name or not deeper or not rest:
                return decided
            folder = f"{folder}/{name}" if folder else name

    @cached_property
    def tree(self) -> pygit2.Tree | None:
        """The commit's tree; None before the first commit."""
        return None if self.commit is None else self.repository.git[self.commit].peel(pygit2.Tree)

    def _ignored(self, folder: str) -> GitIgnoreSpec | None:
        """What the .dvcignore of a folder says; None where there is none."""
        if folder not in self._specs:
            data = self.read(f"{folder}/{IGNORING}" if folder else IGNORING) or b""
            self._specs[folder] = _ignoring(data, folder == self.repository.folder)
        return self._specs[folder]

    def _entry(self, path: str) -> pygit2.Object | None:
        try:
            return entry_at(self.repository.git, self.tree, path)
        except ValueError:  # a path that none can be
            return None


class Committed(State):
    """A commit's files."""

    def read(self, path: str) -> bytes | None:
        """A file's bytes in the commit."""
        return self.committed(path)

    def dvc_files(self) -> Iterator[str]:
        """Paths of the project's every dvc.yaml, dvc.lock and `.dvc` file of the commit."""
        blobs = self.dvc_blobs()
        rules = {path for path in blobs if posixpath.basename(path) == IGNORING}
        key = (self.repository.folder, *(f"{path} {blob}" if path in rules else path for path, blob in blobs.items()))
        if key not in _listed:
            _listed[key] = tuple(path for path in blobs if path not in rules and not self.ignores(path))
        yield from _listed[key]

    def dvc_blobs(self) -> dict[str, str]:
        """Path -> blob id of all that `dvc_files` may give, and of every .dvcignore, which decides on it.

        None of folders that nobody makes, which are a gap.
        """
        folder = self.repository.folder
        tree = self._entry(folder) if folder else self.tree
        try:
            found = _dvc_files(tree) if isinstance(tree, pygit2.Tree) else ()
        except (Unreadable, RecursionError) as error:
            what = str(error) if isinstance(error, Unreadable) else "its folders are nested deeper than anybody's are"
            self.gaps, found = (Gap(where=f"commit {self.commit}", what=what),), ()
        return {f"{folder}/{path}" if folder else path: blob for path, blob in found}


class Kept(Committed):
    """A kept record: its files over those of the commit whose code made it.

    Args:
        name: what a person calls the folder.
        folder: of the record.

    Raises:
        AuditError: its record.json, or its archive, can't be read.
        Missing: a file of it is a link.
    """

    kind = "record"

    def __init__(self, repository: Repository, name: str, folder: Path) -> None:
        self._home, self.folder = folder.resolve(), files_of(folder).resolve()
        record = read_record(self.folder)
        here = repository.has_commit(record.commit)
        super().__init__(repository, name, record.commit if here else None)
        self.files = {self._placed(path): digest for path, digest in record.files.items()}
        """Path from git's root -> MD5 of all that was kept."""
        for place in map(self.place, self.files):
            if os.path.realpath(place) != str(place):
                raise Missing("it is a link, which no record has", where=str(place), expected="what `keep` wrote")
        self.left_out: dict[str, LeftOut] = {self._placed(out.path): out for out in record.left_out}
        if not here:
            what = f"commit {record.commit}, whose code made it, is not here, so its code was not compared"
            self.gaps = (Gap(where=name, what=f"{what} (git fetch --unshallow)"),)

    def place(self, path: str) -> Path:
        """Where the record has a file, or would have it."""
        project = self.repository.folder
        return self.folder / (path[len(project) + 1 :] if project else path)

    def files_under(self, path: str) -> dict[str, Path]:
        """(Path below a folder, `` for all) -> file of the record. A file is its own entry, ``."""
        if path in self.files:
            return {"": self.place(path)} if self.place(path).is_file() else {}
        folder = f"{path}/" if path else ""
        inside = (p for p in self.files if p.startswith(folder) and self.place(p).is_file())
        return {p[len(folder) :]: self.place(p) for p in inside}

    def leaves_out(self, path: str) -> bool:
        """Whether the record left out an output that a path is or lies in, or the list of its files with it."""
        return any(f"{path}/".startswith(f"{out}/") for out in self.left_out)

    def listing(self, path: str) -> dict[str, str]:
        """(Path below a folder) -> hash that the record says, whether or not it has the files."""
        if path in self.left_out:
            return self.left_out[path].files or {}
        return {p[len(path) + 1 :]: digest for p, digest in self.files.items() if p.startswith(path + "/")}

    def keeps(self, path: str) -> bool:
        """Whether the commit has the file at its own place."""
        return self.commit is not None and self.repository.blob(self.commit, path) is not None

    def history_of(self, path: str) -> tuple[str | None, tuple[str, ...]]:
        """What is checked out, and the paths of the record's archive and of its file, as it once was kept."""
        if not self._home.is_relative_to(self.repository.root):
            return None, ()
        inside = relative(self.place(path), self.folder)
        return self.repository.head(), tuple(
            relative(self._home / name, self.repository.root) for name in (ARCHIVE, inside)
        )

    def in_history(self, data: bytes, path: str) -> bytes:
        """A file as it was, from what git had where `history_of` says."""
        if not data.startswith(MAGIC):
            return data
        try:
            then = unpacked(data, self.name) / relative(self.place(path), self.folder)
        except AuditError:  # another archive lay there then
            return b""
        return then.read_bytes() if then.is_file() else b""

    @cached_property
    def tree(self) -> pygit2.Tree | None:
        """The commit's tree with the record's files in it, and without what the record hasn't."""
        files = self.files_under("")
        others = [] if self.commit is None else Committed(self.repository, self.name, self.commit).dvc_files()
        return self.repository.imagined_tree(self.commit, [*others, *self.left_out], files)

    def _placed(self, path: str) -> str:
        return f"{self.repository.folder}/{path}" if self.repository.folder else path


class Workspace(State):
    """The files as they lie in the folder now."""

    is_workspace = True
    kind = "workspace"

    def __init__(self, repository: Repository) -> None:
        super().__init__(repository, WORKSPACE, repository.head())

    def read(self, path: str) -> bytes | None:
        """A file's bytes in the folder."""
        file = self.place(path)
        return file.read_bytes() if file is not None and file.is_file() else None

    def place(self, path: str) -> Path | None:
        """Where a file or folder is, or would be; None where that isn't the repository's, or no path can be so."""
        here = self.repository.root / path
        try:
            here.exists()  # which raises where no file can be called so
            return here if self.repository.owns(here) else None
        except (OSError, ValueError):
            return None

    def leads_out(self, path: str) -> bool:
        """Whether a path lies outside the repository, of which nothing is read, or is a link that leads there."""
        return super().leads_out(path) or self.place(path) is None

    def forms(self, path: str) -> Iterator[bytes]:
        """A file's bytes as they lie there."""
        data = self.read(path)
        yield from () if data is None else (data,)

    def identity(self, path: str) -> str | None:
        """Git's id of what lies there now."""
        data = self.read(path)
        return None if data is None else str(pygit2.hash(data))

    def dvc_files(self) -> Iterator[str]:
        """Paths of every dvc.yaml, dvc.lock and `.dvc` file that DVC doesn't ignore."""
        root = str(self.repository.root)
        for folder, folders, files in os.walk(self.repository.root / self.repository.folder):
            here = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if here == "." else here + "/"
            folders[:] = sorted(
                f for f in folders if not self.ignores(f"{prefix}{f}/") and not self._is_elsewhere(prefix + f)
            )
            for name in sorted(files):
                if is_dvc_file(name) and not self.ignores(prefix + name):
                    yield prefix + name

    def _is_elsewhere(self, folder: str) -> bool:
        """Whether a folder is another project, or git ignores it: outputs, environments, caches."""
        another = (self.repository.root / folder / ".dvc").is_dir()
        return another or self.repository.git.path_is_ignored(folder + "/")

    def files_under(self, path: str) -> dict[str, Path]:
        """(Path below a folder) -> file, as they lie there, without what DVC ignores. A file is its own entry, ``."""
        if (here := self.place(path)) is None:
            return {}
        if here.is_file():
            return {"": here}
        found = (p for p in here.rglob("*") if p.is_file() and (not p.is_symlink() or self.repository.owns(p)))
        below = {p.relative_to(here).as_posix(): p for p in found}
        return {p: file for p, file in sorted(below.items()) if not self.ignores(f"{path}/{p}")}


def open_state(repository: Repository, name: str | None) -> State:
    """The workspace for None or `workspace`, else the kept record in this folder, else what has this name.

    Raises:
        AuditError: nothing has this name, or several things have, or it is the folder of no kept record.
    """
    if name is None or name == WORKSPACE:
        return Workspace(repository)
    if is_record(Path(name)) and not WHOLE.fullmatch(name):
        if repository.names(name):
            raise AuditError(
                f"{name!r} names a revision, and a kept record's folder here",
                todo=f"Say ./{name} for the folder, or the commit's whole hash",
            )
        return Kept(repository, name.rstrip("/"), Path(name))
    found = repository.resolve(name)
    return Committed(repository, found.name, found.commit)


@cache
def _ignoring(dvcignore: bytes, is_top: bool) -> GitIgnoreSpec | None:
    """What a .dvcignore says, that of the project's folder with what DVC always leaves out; revisions share most."""
    lines = dvcignore.decode(errors="replace").splitlines()
    return GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *lines] if is_top else lines) if lines or is_top else None


def is_dvc_file(name: str) -> bool:
    """Whether a file is one of DVC's, by its name."""
    return name in ("dvc.yaml", "dvc.lock") or (name.endswith(".dvc") and name != ".dvc")


_found: dict[pygit2.Oid, tuple[tuple[str, str], ...]] = {}
"""Tree -> (path, blob) of its DVC files: revisions share most folders."""
_listed: dict[tuple[str, ...], tuple[str, ...]] = {}
"""DVC files, and every .dvcignore with its blob -> those that aren't ignored: most revisions have the same."""


def _dvc_files(tree: pygit2.Tree) -> tuple[tuple[str, str], ...]:
    known = _found.get(tree.id)
    if known is None:
        found: list[tuple[str, str]] = []
        for entry in tree:
            if isinstance(entry, pygit2.Tree):
                if entry.name != ".dvc" and ".dvc" not in entry:
                    found += [(f"{entry.name}/{path}", blob) for path, blob in _dvc_files(entry)]
            elif entry.name is not None and (entry.name == IGNORING or is_dvc_file(entry.name)):
                found.append((entry.name, str(entry.id)))
            if len(found) > MOST:  # folders that hold one another many times make billions of a few
                raise Unreadable(f"git has more than {MOST:,} files of DVC's there")
        known = _found[tree.id] = tuple(found)
    return known
