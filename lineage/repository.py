"""The repository that is asked: names of revisions, experiments and the workspace, DVC's cache and remote.

Git is read with pygit2; experiment names, cache and remote come through DVC, which writes nothing then.
"""

import base64
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pygit2
from dvc.config import Config
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem, LocalFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.refs import ITER_SKIP_NAMESPACES, STASHES, ExpRefInfo
from dvc.scm import SCM

from lineage.errors import AuditError
from lineage.model import Commit

WORKSPACE = "workspace"
"""The name of what lies in the folder now, committed or not."""
OBJECT = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")
"""A file of DVC's cache, from the cache's folder."""
QUEUE = ".dvc/tmp/exps/celery/broker/in"
"""Where DVC has the messages of its queue, from the project's folder."""
REFERENCES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")
"""Where git looks for a name."""
WHOLE, BEGINNING = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{4,39}")
"""A commit's hash, which means nothing else, and what may be the beginning of one."""
FIRST = 10
"""The priority of a place for objects that comes before git's own, which have 1 and 2."""


@dataclass(frozen=True)
class Named:
    """A revision under the name that a person knows it by."""

    name: str
    commit: str
    baseline: str | None = None
    """Of an experiment: the commit that it was started from."""
    queued: bool = False


class Repository:
    """A git repository with a DVC project in it.

    Args:
        folder: any folder of the project.

    Raises:
        AuditError: there is no git repository or no DVC project there.
    """

    def __init__(self, folder: Path) -> None:
        found = pygit2.discover_repository(str(folder))
        if found is None:
            raise AuditError(
                "there is no git repository here", where=str(folder), todo="Run it from a DVC project's folder"
            )
        self.git = pygit2.Repository(found)
        if self.git.workdir is None:
            raise AuditError(
                "the repository is bare", where=str(folder), expected="a clone with files", todo="Clone it first"
            )
        self.root = Path(self.git.workdir).resolve()
        try:
            self.project: str = Repo.find_root(str(folder))
        except NotDvcRepoError:
            raise AuditError(
                "there is no DVC project here", where=str(folder), expected="a folder below one with .dvc"
            ) from None

    @cached_property
    def folder(self) -> str:
        """The DVC project's folder, relative to git's root; empty where they are the same."""
        return relative(Path(self.project).resolve(), self.root)

    @cached_property
    def dvc(self) -> Any:
        """DVC's own object for the project, at the commit that is checked out: so it has no lock and writes nothing.

        Raises:
            AuditError: its configuration can't be read.
        """
        head = self.head()
        try:
            return self.dvc_at(head) if head is not None else self._dvc_nowhere()
        except NotDvcRepoError:  # `dvc init` is not committed yet
            return self._dvc_nowhere()
        except DvcException as error:
            raise AuditError(f"DVC can't open the project: {error}", where=self.project) from None

    def _dvc_nowhere(self) -> Any:
        """DVC's own object without a project, for one that no commit has: of a folder it would make others in it."""
        self._config["cache"].setdefault("dir", str(Path(self.project) / ".dvc" / "cache"))
        return Repo(os.devnull, uninitialized=True, fs=LocalFileSystem(), scm=SCM(str(self.root)), config=self._config)

    def dvc_at(self, commit: str) -> Any:
        """DVC's own object for the project at a commit, with the cache and remotes that are configured here.

        Raises:
            DvcException: the commit has no DVC project there, or its configuration can't be read.
        """
        scm = SCM(str(self.root))
        folder = "/" + relative(Path(self.project), self.root)
        return Repo(folder, fs=GitFileSystem(scm=scm, rev=commit), scm=scm, config=self._config)

    @cached_property
    def _config(self) -> Config:
        """What is configured here, in .dvc and on this machine."""
        return Config(str(Path(self.project) / ".dvc"), validate=False)

    def owns(self, place: Path) -> bool:
        """Whether a file or folder, links followed, lies in the repository, or is an object of DVC's cache.

        Nothing else is read: whoever wrote the repository could name any file of the reader's.
        """
        there = Path(os.path.realpath(place))
        if there.is_relative_to(self.root):
            return True
        cache = Path(os.path.realpath(self.dvc.cache.legacy.path))
        return there.is_relative_to(cache) and OBJECT.fullmatch(there.relative_to(cache).as_posix()) is not None

    def resolve(self, name: str) -> Named:
        """The commit of a branch, tag, hash, experiment or queued experiment.

        Raises:
            AuditError: nothing has this name, or several things have.
        """
        experiments = [each for each in self.experiments(queued=False) if each.name == name]
        if len({*self._meanings(name).values()}) > 1:
            known = ", ".join(f"{full} ({commit[:10]})" for full, commit in self._meanings(name).items())
            raise AuditError(f"{name!r} names several revisions: {known}", todo="Name the one by its whole hash")
        if experiments:
            return experiments[0]
        try:
            commit = self.git.revparse_single(name).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError, pygit2.InvalidSpecError) as error:
            for queued in self.queued():
                if name == queued.name or (len(name) >= 7 and queued.commit.startswith(name)):
                    return queued
            problem = "names several revisions" if "ambiguous" in str(error) else "names no revision and no experiment"
            raise AuditError(f"{name!r} {problem}", todo="See `git log`, `dvc exp list --all-commits`") from None
        return Named(name, str(commit.id))

    def names(self, name: str) -> bool:
        """Whether a name means a commit, branch, tag or experiment."""
        return bool(self._meanings(name))

    def _meanings(self, name: str) -> dict[str, str]:
        """All that a name may mean, in full -> its commit. Git takes the first of several, and who writes a repository
        chooses their names.

        Args:
            name: also with what leads on from it, such as `main~1`.
        """
        base = re.split(r"[~^@:]", name)[0]
        if WHOLE.fullmatch(base):
            return {base: base} if self.has_commit(base) else {}
        found = {f"experiment {e.name}": e.commit for e in self.experiments(queued=False) if e.name == base}
        for full in (place.format(base) for place in REFERENCES if base):
            with suppress(KeyError, ValueError, pygit2.GitError):
                found[full] = str(self.git.references[full].peel(pygit2.Commit).id)
        if BEGINNING.fullmatch(base):
            with suppress(KeyError, ValueError, pygit2.GitError):
                found["commit"] = str(self.git[base].peel(pygit2.Commit).id)
        return found

    def experiments(self, queued: bool = True) -> Iterator[Named]:
        """DVC's experiments, in the order of their names, then the queued ones."""
        for name in sorted(self.git.references):
            if not name.startswith("refs/exps/") or name in STASHES or name.startswith(tuple(ITER_SKIP_NAMESPACES)):
                continue
            info = ExpRefInfo.from_ref(name)
            if info.name:
                target = self.git.references[name].peel(pygit2.Commit)
                yield Named(info.name, str(target.id), info.baseline_sha)
        if queued:
            yield from self.queued()

    def queued(self) -> list[Named]:
        """Experiments that wait in DVC's queue: commits of DVC's stash, without a run's outputs."""
        if not any(name in self.git.references for name in STASHES):
            return []
        place = Path(os.path.realpath(Path(self.project) / QUEUE))  # DVC's own reader would make folders there
        files = sorted(place.glob("*.msg")) if place.is_relative_to(self.root) else []
        entries = (_queued(file) for file in files if self.owns(file))
        return [each for each in entries if each is not None and self.has_commit(each.commit)]

    def commit(self, commit: str) -> Commit:
        """Who made a commit, and when."""
        found = self.git[commit]
        assert isinstance(found, pygit2.Commit)
        author, subject = found.author, found.raw_message.partition(b"\n")[0]
        name, email, said = (text.decode(errors="replace") for text in (author.raw_name, author.raw_email, subject))
        return Commit(id=commit, author=name, email=email, time=_when(author.time, author.offset), subject=said)

    def history(self, start: str) -> Iterator[str]:
        """A commit and its first parents, newest first, as far as they are here."""
        current: pygit2.Commit | None = self.git[start].peel(pygit2.Commit)
        while current is not None:
            yield str(current.id)
            parents = current.parent_ids
            above = self.git.get(parents[0]) if parents else None
            current = above if isinstance(above, pygit2.Commit) else None

    def has_commit(self, commit: str) -> bool:
        """Whether a commit, by its full id, is here."""
        try:
            return isinstance(self.git.get(commit), pygit2.Commit)
        except ValueError:
            return False

    def imagined_tree(self, commit: str | None, without: Iterable[str], files: Mapping[str, Path]) -> pygit2.Tree:
        """The tree that a commit would have without some paths and with some files. The repository doesn't get it.

        Args:
            commit: None for an empty one.
            without: files and folders.
            files: path from the root -> where its bytes are now.
        """
        self._imagined  # noqa: B018  from here on, objects are written there
        index = pygit2.Index()
        if commit is not None:
            index.read_tree(self.git[commit].peel(pygit2.Tree))
        gone = tuple(without)
        below = tuple(f"{path}/" for path in gone)
        for path in [entry.path for entry in index]:
            if path in gone or path.startswith(below):
                index.remove(path)
        for path, place in files.items():
            blob = self.git.create_blob(place.read_bytes())
            index.add(pygit2.IndexEntry(path, blob, pygit2.enums.FileMode.BLOB))
        tree = self.git[index.write_tree(self.git)]
        assert isinstance(tree, pygit2.Tree)
        return tree

    @cached_property
    def _imagined(self) -> Path:
        """Where git writes objects from now on: a temporary folder, before all that the repository has."""
        folder = tempfile.mkdtemp(prefix="lineage-objects-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.git.odb.add_backend(pygit2.OdbBackendLoose(folder, -1, False), FIRST)
        return Path(folder)

    def parents(self, commit: str) -> list[str]:
        """The commits that a commit was made on."""
        found = self.git[commit]
        assert isinstance(found, pygit2.Commit)
        return [str(parent) for parent in found.parent_ids]

    def blob(self, commit: str, path: str) -> str | None:
        """The id of a file's blob in a commit."""
        try:
            return str(self.git[commit].peel(pygit2.Tree)[path].id)
        except KeyError:
            return None

    @property
    def is_shallow(self) -> bool:
        """Whether git has left out older commits."""
        return bool(self.git.is_shallow)

    def head(self) -> str | None:
        """The commit that is checked out, or None in a repository without commits."""
        return None if self.git.head_is_unborn else str(self.git.head.peel(pygit2.Commit).id)

    def tips(self) -> dict[str, str]:
        """The name of every branch and tag -> its commit."""
        found: dict[str, str] = {}
        for name in sorted(self.git.references):
            if name.startswith(("refs/heads/", "refs/tags/", "refs/remotes/")):
                reference = self.git.references[name]
                found[reference.shorthand] = str(reference.peel(pygit2.Commit).id)
        return found

    def all_commits(self, more: Iterable[str] = ()) -> Iterator[str]:
        """Every commit of every branch and tag, newest first.

        Args:
            more: commits that are taken in with all that is below them.
        """
        starts = [*self.tips().values(), *more]
        if not starts:
            return
        walker = self.git.walk(None, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME)
        for start in starts:
            walker.push(start)
        for commit in walker:
            yield str(commit.id)


def _queued(message: Path) -> Named | None:
    """The experiment that a message of DVC's queue asks for; None where it is no such message."""
    try:
        (entry, *_), named, _ = json.loads(base64.b64decode(json.loads(message.read_bytes())["body"]))
        entry = named.get("entry_dict", entry)
        commit, baseline, name = (entry[key] for key in ("stash_rev", "baseline_rev", "name"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not (isinstance(commit, str) and WHOLE.fullmatch(commit) and isinstance(baseline, str)):
        return None
    return Named(str(name or commit[:7]), commit, baseline, queued=True)


def relative(path: Path, root: Path) -> str:
    """A path below the root as the record writes it."""
    text = path.relative_to(root).as_posix()
    return "" if text == "." else text


def _when(time: int, offset: int) -> str:
    """A commit's time in ISO 8601; empty where no calendar has it, such as one after the year 9999.

    Args:
        time: seconds since 1970.
        offset: minutes from UTC.
    """
    try:
        return datetime.fromtimestamp(time, timezone(timedelta(minutes=offset))).isoformat()
    except (OverflowError, ValueError, OSError):
        return ""
