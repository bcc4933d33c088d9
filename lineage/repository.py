"""The repository that is asked: names of revisions, experiments and the workspace, DVC's cache and remote.

Git is read with pygit2; experiment names, queue, cache and remote come through DVC.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pygit2
from dvc.config import Config
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.fs import GitFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.refs import ITER_SKIP_NAMESPACES, STASHES, ExpRefInfo
from dvc.scm import SCM, SCMError

from lineage.errors import AuditError
from lineage.model import Commit

WORKSPACE = "workspace"
"""The name of what lies in the folder now, committed or not."""
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
            return self.dvc_at(head) if head is not None else Repo(self.project)
        except NotDvcRepoError:  # `dvc init` is not committed yet
            return Repo(self.project)
        except DvcException as error:
            raise AuditError(f"DVC can't open the project: {error}", where=self.project) from None

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

    def resolve(self, name: str) -> Named:
        """The commit of a branch, tag, hash, experiment or queued experiment.

        Raises:
            AuditError: nothing has this name, or several things have.
        """
        for experiment in self.experiments(queued=False):
            if experiment.name == name:
                return experiment
        try:
            commit = self.git.revparse_single(name).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError, pygit2.InvalidSpecError) as error:
            for queued in self.queued():
                if name == queued.name or (len(name) >= 7 and queued.commit.startswith(name)):
                    return queued
            problem = "names several revisions" if "ambiguous" in str(error) else "names no revision and no experiment"
            raise AuditError(f"{name!r} {problem}", todo="See `git log`, `dvc exp list --all-commits`") from None
        return Named(name, str(commit.id))

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
        try:
            entries = [*Repo(self.project).experiments.celery_queue.iter_queued()]
        except (DvcException, SCMError):
            return []
        return [Named(e.name or e.stash_rev[:7], e.stash_rev, e.baseline_rev, queued=True) for e in entries]

    def commit(self, commit: str) -> Commit:
        """Who made a commit, and when."""
        found = self.git[commit]
        assert isinstance(found, pygit2.Commit)
        author = found.author
        when = datetime.fromtimestamp(author.time, timezone(timedelta(minutes=author.offset)))
        subject = found.message.split("\n", 1)[0]
        return Commit(id=commit, author=author.name, email=author.email, time=when.isoformat(), subject=subject)

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

    def all_commits(self) -> Iterator[str]:
        """Every commit of every branch and tag, newest first."""
        tips = [r for r in self.git.references if r.startswith(("refs/heads/", "refs/tags/", "refs/remotes/"))]
        if not tips:
            return
        walker = self.git.walk(None, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.TIME)
        for tip in tips:
            walker.push(self.git.references[tip].peel(pygit2.Commit).id)
        for commit in walker:
            yield str(commit.id)


def relative(path: Path, root: Path) -> str:
    """A path below the root as the record writes it."""
    text = path.relative_to(root).as_posix()
    return "" if text == "." else text
