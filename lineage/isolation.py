"""A clean clone to run stages again in: the files of one state, raw sources with checked hashes, an empty cache.

Everything that is written lies in one folder, DVC's cache and state included. Knows nothing of what is compared.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pygit2
from dvc.config import Config

from lineage.contents import Contents, listed
from lineage.errors import AuditError, Missing
from lineage.graph import Graph
from lineage.hashing import file_hash, folder_hash
from lineage.model import File, Run
from lineage.repository import Repository
from lineage.running import Listener, run_streaming
from lineage.states import Kept, State, Workspace

GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
"""Variables that a git hook has, and that would lead git from the clone to the user's repository."""
DVC = (sys.executable, "-P", "-m", "dvc")
"""Without the folder that it works in on Python's path: a project may have a `yaml.py`."""
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|TMPDIR|LANG|LANGUAGE|LC_\w+|LD_LIBRARY_PATH|VIRTUAL_ENV"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR)_NUM_THREADS|CUDA_VISIBLE_DEVICES|XDG_(CONFIG|CACHE)_HOME|DVC_(GLOBAL|SYSTEM)_CONFIG_DIR"
)
"""Variables that commands get unasked: what a shell and its programs need to run here. Keys and tokens have others."""


class Isolated:
    """A clone of a state in a folder of its own.

    Args:
        state: whose files it gets. Of the workspace: what git would commit of it now, that is the commit that is
            checked out with what was changed, added and removed since, but nothing that git ignores.
        folder: an empty folder.
        variables: names of what commands in it see of this process's environment, besides what any needs.
    """

    def __init__(self, state: State, folder: Path, variables: Iterable[str] = ()) -> None:
        self._state = state
        self._variables = frozenset(variables)
        self._source = Workspace(state.repository)
        self.root = folder / "clone"
        self._site = folder / "site"
        self.project = self.root / state.repository.folder
        self._clone(state.commit)
        if state.is_workspace:
            self._overlay()
        if isinstance(state, Kept):
            for path, place in state.files_under("").items():
                _copy(place, self._place(File(path)))
        with Config(str(self.project / ".dvc")).edit("local") as local:
            local["core"] = {"analytics": False, "site_cache_dir": str(self._site)}
            local["cache"] = {"dir": str(folder / "cache")}

    @property
    def environment(self) -> dict[str, str]:
        """What commands see of this process's, with the Python that runs now first, and DVC's state in the folder."""
        seen = {n: v for n, v in os.environ.items() if PASSED.fullmatch(n) or n in self._variables}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {**seen, "PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self._site)}

    def _clone(self, commit: str | None) -> None:
        _git("init", "--quiet", str(self.root), folder=self.root.parent)
        if commit is None:
            return
        # by its id, since no branch need hold it (experiments are under refs/exps); protocol 2 gives any id
        source = str(self._state.repository.root)
        fetch = ("-c", "protocol.version=2", "fetch", "--quiet", "--no-tags", "--update-shallow", source, commit)
        _git(*fetch, folder=self.root)
        _git("checkout", "--quiet", "--detach", commit, folder=self.root)

    def _overlay(self) -> None:
        root, paths = self._state.repository.root, uncommitted(self._state.repository)
        for path in paths:
            _remove(self.root / path)
        for path in paths:
            here, there = root / path, self.root / path
            is_behind_link = here.parent.resolve() != here.parent
            if not is_behind_link and (here.is_symlink() or here.is_file()):
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here, there, follow_symlinks=False)

    def forget(self, outputs: Iterable[File]) -> None:
        """Remove what git keeps of outputs, and every dvc.lock: what is there afterwards was made.

        Raises:
            AuditError: an output lies behind a symbolic link that leads out of the clone.
        """
        for file in outputs:
            _remove(self._place(file))
        for lock in self.project.rglob("dvc.lock"):
            lock.unlink()

    def _place(self, file: File) -> Path:
        place = self.root / file.path
        if not place.parent.resolve().is_relative_to(self.root):
            raise AuditError(
                "it lies behind a symbolic link that leads out of the repository",
                where=file.path,
                expected="a place in the repository: nothing of yours must be overwritten",
            )
        return place

    def provide(
        self, graph: Graph, stages: Iterable[Run], given: Iterable[Run], listener: Listener | None = None
    ) -> None:
        """Copy what no command makes: outputs of data, imports and frozen stages, and inputs that git doesn't keep.

        What a `.dvc` file or a frozen stage recorded and isn't here is fetched by `dvc pull` in the clone.

        Args:
            stages: what is run again.
            given: whose outputs are taken as they are.
            listener: is told what DVC writes.

        Raises:
            AuditError: something isn't here, or isn't what was recorded; it names all of it.
        """
        contents = Contents(self._state)
        problems = {file.path: self._put(file, contents) for run in given for file in run.outputs}
        lacking = [run for run in given if any(problems[file.path] is not None for file in run.outputs)]
        if lacking:
            self._pull(lacking, problems, listener)
        for run in stages:
            for file in graph.own_inputs(run):
                if file.path not in problems:
                    problems[file.path] = self._own(file, contents)
            for path in run.parameters:
                self._parameters(path)
        wrong = [f"{path}: {problem}" for path, problem in problems.items() if problem is not None]
        if wrong:
            raise Missing(
                "what no command makes isn't here as it was recorded",
                where=self._state.name,
                expected="the recorded bytes in the workspace or in DVC's cache:\n    " + "\n    ".join(wrong),
                todo="Fetch it (dvc pull), or put it back",
            )

    def _pull(self, runs: Sequence[Run], problems: dict[str, str | None], listener: Listener | None) -> None:
        """Lets DVC fetch outputs from their sources or a remote; those that came as recorded are no problem."""
        command = [*DVC, "pull", "--", *(run.name for run in runs)]
        run_streaming(command, self.project, self.environment, listener)
        clone = Workspace(Repository(self.project))
        for file in (file for run in runs for file in run.outputs):
            if _hash_of(self.root / file.path, clone.files_under(file.path), file) == file.hash:
                problems[file.path] = None

    def _own(self, file: File, contents: Contents) -> str | None:
        """Sees to an input that no run makes: what is wrong with it, or None."""
        if "://" in file.path or file.hash is None:
            return None
        if file.path.startswith("../"):
            return "it lies beside the repository, where the clone doesn't see it"
        if file.path.startswith("/"):
            return None  # where it isn't what was recorded, the lock of the run says so
        if self._state.blob(file.path) is not None or (self._state.is_workspace and (self.root / file.path).is_file()):
            return None  # git has it; whether it is what was recorded is seen when the stage has run
        if self._state.committed_under(file.path) or (self.root / file.path).is_dir():
            self._complete(file)
            return None
        return self._put(file, contents)

    def _complete(self, file: File) -> None:
        """Adds what git ignores of a folder that git keeps in part, if the workspace has the recorded whole."""
        here = {p: file_hash(place, file.algorithm) for p, place in self._source.files_under(file.path).items()}
        if folder_hash(here.items()) == file.hash:
            for path in here:
                if not (self.root / file.path / path).exists():
                    _copy(self._source.repository.root / file.path / path, self.root / file.path / path)

    def _parameters(self, path: str) -> None:
        here, there = self._source.place(path), self.root / path
        if here is not None and here.is_file() and not there.exists():
            _copy(here, self._place(File(path)))

    def _put(self, file: File, contents: Contents) -> str | None:
        """Copies recorded bytes from the workspace or the cache, and hashes the copy; what is wrong, or None."""
        if file.is_external or file.hash is None:
            return None
        there = self._place(file)
        kept = contents.object(file.hash, file.algorithm).path
        candidates = [self._source.files_under(file.path)]
        candidates += [self._state.files_under(file.path)] if isinstance(self._state, Kept) else []
        candidates += [_cached_folder(kept, file, contents) if file.is_folder else {"": kept}]
        found = False
        for places in candidates:
            if not places or not all(place.is_file() for place in places.values()):
                continue
            found = True
            _remove(there)
            for path, place in places.items():
                _copy(place, there / path if path else there)
            if _hash_of(there, places, file) == file.hash:
                return None
        return f"its bytes aren't those recorded ({file.hash})" if found else f"{file.hash} is nowhere here"


def uncommitted(repository: Repository) -> list[str]:
    """Files of the workspace that git would commit: changed, new or gone, but not what it ignores."""
    status = repository.git.status(untracked_files="all")
    return sorted(path for path, flags in status.items() if not flags & pygit2.enums.FileStatus.IGNORED)


def _cached_folder(kept: Path, file: File, contents: Contents) -> dict[str, Path]:
    listing = listed(kept.read_bytes(), file.hash or "") if kept.is_file() else None
    if any(".." in path.split("/") or path.startswith("/") for path in listing or {}):
        return {}  # no folder that DVC has listed: it would be written outside the clone
    return {path: contents.object(digest, file.algorithm).path for path, digest in (listing or {}).items()}


def _hash_of(there: Path, places: Iterable[str], file: File) -> str:
    if not file.is_folder:
        return file_hash(there, file.algorithm) if there.is_file() else ""
    if there.is_file():
        return ""
    return folder_hash((path, file_hash(there / path, file.algorithm)) for path in places)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copies bytes, never links: what runs in the clone may write to its files."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in GIT_PLACES}


def _git(*arguments: str, folder: Path) -> None:
    command, environment = ["git", *arguments], _environment()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AuditError(f"git could not make a clone: {done.stderr.strip()}", where=arguments[-1])
