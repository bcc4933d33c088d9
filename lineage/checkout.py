"""What git lays into a folder for what a commit holds: behind symbolic links, in submodules, by .gitattributes, by LFS.

The run read that, and DVC hashed it. Knows no state and no record; what lies outside the repository is never followed.
"""

import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import pygit2
from pygit2.enums import AttrCheck, FileMode

POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\nsize \d+\n")
NOT_HERE = "kept by Git LFS, and its file is not here (git lfs pull)"
LONGEST = 1024
"""Bytes of a pointer, by LFS's specification."""
LINKS = 40
"""Symbolic links that one path may go through, as on Linux."""


class Form(StrEnum):
    """How a text file is laid out."""

    KEPT = "as git keeps it"
    HERE = "with the line ends that .gitattributes name"
    WINDOWS = "with CRLF, as on Windows, where .gitattributes call it text"


def entry_at(git: pygit2.Repository, tree: pygit2.Tree | None, path: str) -> pygit2.Object | None:
    """The blob or folder at a path of a tree, behind links; a submodule that isn't here is a commit."""
    with suppress(KeyError):
        if tree is not None and (direct := tree[path]).filemode not in (FileMode.LINK, FileMode.COMMIT):
            return direct
    for _ in range(LINKS):
        found, place, rest = _first(git, tree, path)
        if found is None or found.filemode != FileMode.LINK:
            return None if rest else found
        assert isinstance(found, pygit2.Blob)
        target = posixpath.join(posixpath.dirname(place), found.data.decode(errors="replace"), rest)
        path = posixpath.normpath(target)
        if path.startswith(("/", "../")) or path == "..":
            return None
        if path == ".":
            return tree
    return None


def _first(git: pygit2.Repository, tree: pygit2.Object | None, path: str) -> tuple[pygit2.Object | None, str, str]:
    """What lies at a path, or the first link on the way: itself, its own path, and what is left of the path."""
    found, names = tree, path.split("/")
    for done, name in enumerate(names):
        if not isinstance(found, pygit2.Tree) or name not in found:
            return None, path, ""
        found, place = found[name], "/".join(names[: done + 1])
        if found.filemode == FileMode.LINK:
            return found, place, "/".join(names[done + 1 :])
        if isinstance(found, pygit2.Commit):
            found = _submodule(git, place, found)
            if isinstance(found, pygit2.Commit):
                return found, place, ""
    return found, path, ""


def _submodule(git: pygit2.Repository, path: str, pinned: pygit2.Commit) -> pygit2.Tree | pygit2.Commit:
    """The folder of a submodule's commit, whose objects git can read from then on; the commit where it isn't here."""
    root = Path(git.workdir).resolve()
    if pinned.id not in git and (root / path / ".git").exists():
        objects = (Path(pygit2.Repository(str(root / path)).path) / "objects").resolve()
        if objects.is_relative_to(root):
            git.odb.add_disk_alternate(str(objects))
    found = git.get(pinned.id)
    return found.tree if isinstance(found, pygit2.Commit) else pinned


def entries_under(
    git: pygit2.Repository, top: pygit2.Tree, folder: str, tree: pygit2.Tree
) -> Iterator[tuple[str, pygit2.Object]]:
    """(Path below a folder, blob) of what DVC finds there: it follows links to files, and not those to folders.

    A submodule that isn't here is one entry, a commit.

    Args:
        top: the commit's tree.
        folder, tree: the folder's path, and itself.
    """
    for entry in tree:
        path = f"{folder}/{entry.name}" if folder else str(entry.name)
        is_plain = entry.filemode not in (FileMode.LINK, FileMode.COMMIT)
        found = entry if is_plain else entry_at(git, top, path)
        if isinstance(found, pygit2.Tree):
            if entry.filemode != FileMode.LINK:
                yield from ((f"{entry.name}/{p}", below) for p, below in entries_under(git, top, path, found))
        elif found is not None:
            yield str(entry.name), found


def laid_out(git: pygit2.Repository, commit: str | None, path: str, data: bytes, form: Form) -> bytes:
    """A file's bytes as git lays them out, from those that it keeps; a pointer of LFS where its file isn't here."""
    if (pointer := POINTER.fullmatch(data)) is not None:
        digest = pointer[1].decode()
        file = Path(git.path) / "lfs/objects" / digest[:2] / digest[2:4] / digest
        return file.read_bytes() if file.is_file() else data
    if form is Form.KEPT or b"\0" in data or b"\r" in data:
        return data
    flags = AttrCheck.INDEX_ONLY | AttrCheck.INCLUDE_COMMIT if commit else AttrCheck.INDEX_THEN_FILE
    text, ends = (git.get_attr(path, name, flags, commit) for name in ("text", "eol"))
    is_text = text in (True, "auto") or (text is None and ends is not None)
    wanted = ends == "crlf" or (form is Form.WINDOWS and ends != "lf")
    return data.replace(b"\n", b"\r\n") if is_text and wanted else data


def is_pointer(file: bytes | Path) -> bool:
    """Whether a file only stands for one that Git LFS has."""
    if isinstance(file, Path):
        file = file.read_bytes() if file.stat().st_size < LONGEST else b""
    return POINTER.fullmatch(file) is not None
