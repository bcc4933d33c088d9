"""A DVC project as the flows see it: which stages there are, which are out of date, and the order of its lock file.

DVC's own API does all of it. DVC deletes nothing and runs nothing from here; `pipelines/once.py` does that.
Names and targets are those of the current folder, which has to be the project's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.dvcfile import LOCK_FILE, PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.utils.serialize import load_yaml, modify_yaml

from softmask.errors import InputError, Unavailable


@dataclass(frozen=True)
class Step:
    """A stage of the plan.

    Args:
        name: DVC's name, such as `arm@binary-1`.
        upstream: names of the stages that make its inputs.
        recorded: it is in dvc.lock; if not, it is out of date whatever becomes of its upstream.
        stale: it was out of date when the plan was made.
    """

    name: str
    upstream: tuple[str, ...]
    recorded: bool
    stale: bool


class Workspace:
    """The project in a folder."""

    def __init__(self, root: Path) -> None:
        """Open it.

        Raises:
            InputError: there is no DVC project in this folder.
        """
        self.root = root
        try:
            self.repo: Any = Repo(str(root), _wait_for_lock=True)
        except DvcException as error:
            raise InputError(str(error), where=str(root), expected="the root of a DVC project") from None

    def plan(self, targets: Sequence[str]) -> list[Step]:
        """What `dvc repro TARGETS` would look at, in its order; everything without targets.

        Raises:
            InputError: dvc.yaml or dvc.lock can't be read, or there is no such target.
            Unavailable: another process works on the stages' files.
        """
        recorded = set(self.recorded())
        with self.locked():
            graph = get_active_graph(self.repo.index.graph)
            order = plan_repro(graph, collect_stages(self.repo, targets or [PROJECT_FILE]))
            return [
                Step(
                    name=stage.addressing,
                    upstream=tuple(sorted(above.addressing for above in graph.successors(stage))),
                    recorded=stage.addressing in recorded,
                    stale=bool(stage.status()),
                )
                for stage in order
            ]

    def stale(self, name: str) -> bool:
        """Whether a stage's command, dependencies or outputs differ from dvc.lock as it is now.

        Raises:
            Unavailable: another process works on its files.
        """
        with self.locked():
            return any(stage.status() for stage in self.repo.stage.collect(name))

    def written(self) -> set[str]:
        """The files that git may know and DVC writes: dvc.lock, and outputs that are not in its cache."""
        outputs = {out.def_path for stage in self.repo.index.stages for out in stage.outs if not out.use_cache}
        return {LOCK_FILE, *outputs}

    def recorded(self) -> list[str]:
        """The stages in dvc.lock, in its order."""
        path = self.root / LOCK_FILE
        return list(load_yaml(path).get("stages", {})) if path.exists() else []

    def arrange_lock(self, first: Sequence[str], then: Sequence[str]) -> None:
        """Put the entries of dvc.lock in the order that `dvc repro` would have left.

        DVC appends a stage when it completes and leaves those that are there where they are.

        Args:
            first: the stages that were recorded before the run.
            then: the plan, for those that are new.
        """
        recorded = self.recorded()
        order = [name for name in dict.fromkeys([*first, *then, *recorded]) if name in recorded]
        if order != recorded:
            with self.locked(), modify_yaml(self.root / LOCK_FILE) as data:
                entries = dict(data["stages"])
                data["stages"].clear()
                data["stages"].update({name: entries[name] for name in order})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold DVC's lock, with what it knows read anew."""
        try:
            with lock_repo(self.repo):
                yield
        except LockError as error:
            raise Unavailable(str(error), where=str(self.root)) from None
        except DvcException as error:
            raise InputError(str(error), where=str(self.root)) from None
