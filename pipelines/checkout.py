"""A commit of a repository in a folder of its own, where work leaves the repository's working tree as it is.

Under `.dvc/tmp` of the repository, whose DVC cache and checkpoint store it shares: what one has computed the other
takes from there.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pygit2
from dvc.dvcfile import LOCK_FILE, PROJECT_FILE
from dvc.exceptions import CheckoutError, DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from scmrepo.exceptions import SCMError
from scmrepo.git import Git

from commands.pipeline_file import edited
from runner.store import LOCAL_CONFIG, location
from softmask.errors import InputError

PLACE = Path(".dvc/tmp/retrain")
BRANCHES = "retrain"
"""What the branches' names begin with."""


class Checkout:
    """One of them, made anew."""

    def __init__(self, home: Path, name: str, revision: str) -> None:
        """Clone the repository and check the commit out.

        Args:
            home: the repository.
            name: of the folder.
            revision: the commit.

        Raises:
            InputError: it can't be cloned, or has no such commit.
        """
        self.home, self.root = home, home / PLACE / name
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        try:
            Git.clone(str(home), str(self.root), rev=revision).close()
        except SCMError as error:
            raise InputError(f"{revision} can't be checked out: {error}", where=str(home)) from None
        self._share()
        self.repo: Any = Repo(str(self.root), _wait_for_lock=True)
        self.revision: str = self.repo.scm.get_rev()

    def _share(self) -> None:
        """Have the repository's cache, remotes and checkpoint store."""
        own = self.home / ".dvc/config.local"
        if own.exists():
            shutil.copy(own, self.root / ".dvc/config.local")
        with Repo(str(self.home)) as repo:
            cache = repo.cache.local_cache_dir
        with Repo(str(self.root)) as repo, repo.config.edit("local") as config:
            config.setdefault("cache", {})["dir"] = cache
        with chdir(self.home):
            store = json.dumps(str(location().absolute()))  # a TOML string is written as a JSON one
        (self.root / LOCAL_CONFIG).write_text(f"[checkpoints]\npath = {store}\n", encoding="utf-8")

    def fetch(self, targets: Sequence[str]) -> None:
        """Have what dvc.lock says of some stages or files, from the cache or the DVC remote.

        Raises:
            InputError: it is in neither.
        """
        with chdir(self.root):
            try:
                self.repo.checkout(targets=list(targets), force=True)
            except CheckoutError as missing:
                try:
                    self.repo.pull(targets=list(targets), force=True)
                except DvcException:
                    raise InputError(
                        f"of {', '.join(targets)} at {self.revision[:12]} the DVC cache lacks {missing.target_infos}",
                        where=str(self.home),
                        todo="Restore the cache, or add a DVC remote that has it",
                    ) from None

    def add(self, folder: Path) -> None:
        """Have DVC track a folder of this checkout."""
        with chdir(self.root):
            self.repo.add(str(folder.relative_to(self.root)))

    def take(self, other: "Checkout", data: Path, frozen: str) -> None:
        """Begin with another checkout's record of what was made, and its data.

        Args:
            other: the checkout.
            data: a folder of what DVC tracks there.
            frozen: a stage whose outputs stay the other's, whatever becomes of its inputs, as `dvc freeze` does.
        """
        shutil.copy(other.root / LOCK_FILE, self.root / LOCK_FILE)
        tracked = [str(file.relative_to(other.root)) for file in sorted((other.root / data).glob("*.dvc"))]
        (self.root / data).mkdir(parents=True, exist_ok=True)
        for file in tracked:
            shutil.copy(other.root / file, self.root / file)
        self.fetch([*tracked, frozen])
        with edited(self.root / PROJECT_FILE) as pipeline:
            pipeline["stages"][frozen].insert(1, "frozen", True)

    def save(self, name: str, files: Sequence[str], message: str) -> str:
        """Make what is here a DVC experiment, and give it to the repository with a branch of its own.

        Not by `dvc exp save`, whose commits hold a pickle of its own arguments, and which records outputs that no run
        has made.

        Args:
            name: of the experiment, and after `retrain/` that of the branch.
            files: the new files that belong to it.
            message: of the commit.

        Returns:
            The commit.
        """
        experiment, scm = str(ExpRefInfo(self.revision, name)), self.repo.scm
        with chdir(self.root):
            scm.add([LOCK_FILE, PROJECT_FILE, *files], force=True)
            scm.commit(message)
            commit: str = scm.get_rev()
            scm.set_ref(experiment, commit)
        specs = [f"+{experiment}:{experiment}", f"+{experiment}:{_ref(name)}"]
        with Repo(str(self.home)) as repo:
            repo.scm.fetch_refspecs(str(self.root), specs, force=True)
        return commit


def branch(name: str) -> str:
    """The branch of an experiment."""
    return f"{BRANCHES}/{name}"


def tip(home: Path, name: str) -> str | None:
    """The commit of an experiment's branch, if there is one."""
    with Repo(str(home)) as repo:
        commit: str | None = repo.scm.get_ref(_ref(name))
        return commit


def read(home: Path, commit: str, file: Path) -> str:
    """A file's text in a commit."""
    with Repo(str(home)) as repo:
        text: str = repo.scm.get_fs(commit).read_text(str(file))
        return text


def has(home: Path, commit: str, file: Path) -> bool:
    """Whether a commit has a file."""
    return str(file) in pygit2.Repository(str(home))[commit].peel(pygit2.Tree)


def add_files(home: Path, name: str, commit: str, files: Mapping[Path, bytes], message: str) -> str:
    """A new commit with further files, to which an experiment and its branch move. No working tree is touched.

    Args:
        name: of the experiment.
        commit: its last one.

    Returns:
        The commit.
    """
    git = pygit2.Repository(str(home))
    parent = git[commit].peel(pygit2.Commit)
    index = pygit2.Index()
    index.read_tree(parent.tree)
    for file, data in files.items():
        index.add(pygit2.IndexEntry(str(file), git.create_blob(data), pygit2.enums.FileMode.BLOB))
    when = int(time.time())
    made, put = (pygit2.Signature(by.name, by.email, when, by.offset) for by in (parent.author, parent.committer))
    new = git.create_commit(None, made, put, message, index.write_tree(git), [parent.id])
    for ref in (str(ExpRefInfo(str(parent.parent_ids[0]), name)), _ref(name)):
        git.references.create(ref, new, force=True)
    return str(new)


def _ref(name: str) -> str:
    return f"refs/heads/{branch(name)}"
