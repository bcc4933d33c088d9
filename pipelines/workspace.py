"""A DVC project as the flows see it: which stages there are, which are out of date, and the order of its lock file.

DVC's own API does all of it. DVC deletes nothing and runs nothing from here; `pipelines/once.py` does that.
Names and targets are those of the current folder, which has to be the project's.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dvc import dvcfile
from dvc.dependency.param import ParamsDependency, read_param_file
from dvc.dvcfile import LOCK_FILE, PROJECT_FILE
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

from artifacts.files import read_json, write_json, write_text
from runner.lock import require_whole
from runner.section import lookup
from softmask.errors import InputError, Unavailable

FROZEN = Path(".dvc/tmp/frozen.json")
"""What the stages of the flow at work here are made from."""
TO_COME = "to come"
"""In place of a hash: DVC may still have to fetch the file."""


@contextmanager
def modify_whole(path: str | Path, fs: Any = None) -> Iterator[Any]:
    """DVC's `modify_yaml`, but that a reader, or a kill, sees the old file or the whole new one."""
    file = Path(path)
    data = parse_yaml_for_update(file.read_text(encoding="utf-8"), file) if file.exists() else {}
    yield data
    write_text(file, dumps_yaml(data))


dvcfile.modify_yaml = modify_whole  # what DVC does in this process is ours


@dataclass(frozen=True)
class Step:
    """A stage of the plan.

    Args:
        name: DVC's name, such as `arm@binary-1`.
        upstream: names of the stages that make its inputs.
        recorded: it is in dvc.lock; if not, it is out of date whatever becomes of its upstream.
        stale: it was out of date when the plan was made.
        own: what it was made from then, beside what other stages make.
    """

    name: str
    upstream: tuple[str, ...]
    recorded: bool
    stale: bool
    own: Mapping[str, str]


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
                    own=own,
                )
                for stage, own in zip(order, self._own(order), strict=True)
            ]

    def freeze(self, plan: Sequence[Step]) -> None:
        """Hold the runs in this folder to what the stages of a plan are made from now, until the next flow."""
        write_json(self.root / FROZEN, {step.name: step.own for step in plan})

    def frozen(self, name: str) -> Mapping[str, str] | None:
        """What the flow at work here has found a stage to be made from; None where there is none."""
        path = self.root / FROZEN
        return read_json(path).get(name) if path.exists() else None

    def reproduce(self, name: str, began: Mapping[str, str] | None) -> None:
        """`dvc repro --single-item NAME`.

        Args:
            name: of the stage.
            began: what it has to be made from; None: what lies there now.

        Raises:
            DvcException: it failed; because of an InputError if it was edited since.
        """

        def run(stage: Any, **options: Any) -> Any:
            held = next(self._own([stage])) if began is None else began
            self._check_unedited(stage, held)
            save = stage.save

            def save_unedited(**how: Any) -> None:
                self._check_unedited(stage, held)  # once more: DVC records what lies there when the command has ended
                save(**how)

            stage.save = save_unedited
            if done := stage.reproduce(**options):
                stage.dump(update_pipeline=False)
            return done

        self.repo.reproduce(targets=[name], single_item=True, repro_fn=run)

    def _check_unedited(self, stage: Any, began: Mapping[str, str]) -> None:
        (now,) = self._own([stage])
        names = [name for name in {**now, **began} if began.get(name) != TO_COME]
        if edited := [name for name in names if began.get(name) != now.get(name)]:
            raise InputError(
                "it was edited meanwhile, and the edit waits for the next run",
                where=f"{stage.addressing}: {', '.join(edited)}",
            )

    def _own(self, stages: Sequence[Any]) -> Iterator[dict[str, str]]:
        """What each is made from and no other stage makes: its command, parameters, code and data."""
        made = {out.fs_path for other in self.repo.index.stages if other.cmd for out in other.outs}
        around = {folder for path in made for folder in _above(path)}
        read = cache(partial(read_param_file, self.repo.fs))  # DVC itself reads the file once for each stage
        for stage in stages:
            own = {"its command": str(stage.cmd)}
            for dep in stage.deps:
                if isinstance(dep, ParamsDependency):
                    own |= {f"{dep.def_path}: {key}": repr(value) for key, value in _values(dep, read(dep.fs_path))}
                elif dep.fs_path not in made | around and made.isdisjoint(_above(dep.fs_path)):
                    own[dep.def_path] = str(dep.get_hash().value) if dep.exists else TO_COME
            yield own

    def stale(self, step: Step) -> bool:
        """Whether a stage's command, dependencies or outputs differ from dvc.lock as it is now.

        Raises:
            Unavailable: another process works on its files.
            InputError: what it is made from is not what it was when the plan was made.
        """
        with self.locked():
            (stage,) = self.repo.stage.collect(step.name)
            self._check_unedited(stage, step.own)
            return not step.recorded or bool(stage.status())

    def written(self) -> set[str]:
        """The files that git may know and DVC writes: dvc.lock, and outputs that are not in its cache."""
        outputs = {out.def_path for stage in self.repo.index.stages for out in stage.outs if not out.use_cache}
        return {LOCK_FILE, *outputs}

    def recorded(self) -> list[str]:
        """The stages in dvc.lock, in its order.

        Raises:
            InputError: it is torn.
        """
        return require_whole(self.root)

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
            with self.locked(), modify_whole(self.root / LOCK_FILE) as data:
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


def _values(dep: ParamsDependency, content: Any) -> Iterator[tuple[str, Any]]:
    """The parameters that a stage reads from a file; all of it if it names none. One that isn't there is left out."""
    for key in dep.params or content:
        with suppress(InputError):
            yield key, lookup(content, key, dep.def_path)


def _above(path: str) -> Iterator[str]:
    """The folders around a path."""
    while (folder := os.path.dirname(path)) != path:  # noqa: PTH120, DVC's paths are strings
        yield folder
        path = folder
