"""Work that clones of one repository share through git and the DVC remote: revisions, outputs, and the runs themselves.

A run in DVC's run cache is found by its command and the hashes of its inputs and parameters. So what one clone has
computed, another takes from there, outputs and entry in dvc.lock, without computing anything.
"""

from collections.abc import Sequence
from typing import Any

from dulwich.errors import NotGitRepository
from dvc.config import RemoteConfigError
from dvc.dvcfile import LOCK_FILE
from dvc.exceptions import DvcException, UploadError
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import load_yaml
from scmrepo.exceptions import SCMError

from pipelines.workspace import Step, Workspace
from softmask.errors import InputError, Unavailable


class Shared:
    """One clone's side of it."""

    def __init__(self, workspace: Workspace) -> None:
        """Find the remote.

        Raises:
            InputError: DVC has no default remote here.
        """
        self._workspace = workspace
        self._repo: Any = workspace.repo
        try:
            self._runs: Any = self._repo.cloud.get_remote_odb(None, "fetch --run-cache", hash_name="md5-dos2unix")
        except RemoteConfigError:
            raise InputError(
                "DVC has no default remote", where=str(workspace.root), todo="dvc remote add --default NAME URL"
            ) from None

    def revision(self) -> str:
        """The commit that is checked out, which others can run.

        Raises:
            InputError: code, params or dvc.yaml differ from it.
        """
        self._nothing_changed("Commit it and push, so that workers can check it out")
        revision: str = self._repo.scm.get_rev()
        return revision

    def check_out(self, revision: str) -> None:
        """Have a commit in the working tree, fetched if it isn't here.

        Raises:
            InputError: somebody has changed files here; there is no such commit.
        """
        scm = self._repo.scm
        self._nothing_changed("A worker's clone is for its worker alone: commit or discard it")
        if scm.get_rev() == revision:
            return
        try:
            scm.fetch()
            scm.checkout(revision, force=True)
        except (SCMError, NotGitRepository) as error:  # the second where there is no remote
            raise InputError(
                f"{revision} can't be checked out: {error}", where=str(self._workspace.root), todo="Push it"
            ) from None

    def fetch_runs(self) -> None:
        """Learn of the runs that others have pushed."""
        self._repo.stage_cache.transfer(self._runs, self._repo.cache.legacy, force=False)

    def restore(self, stage: str) -> bool:
        """Bring a stage up to date with what was computed somewhere, or data with what was added; compute nothing.

        Returns:
            Whether it is up to date now.
        """
        with self._workspace.locked():
            (found,) = self._repo.stage.collect(stage)
            if not found.changed():
                return True
            if found.is_data_source:
                return self._pull(stage)
            if _not_kept(found):
                return self._pull(stage) and not found.changed()
            found.remove_outs()
            try:
                self._repo.stage_cache.restore(found, pull=True)
            except RunCacheNotFoundError:
                return False
            found.save_outs()  # its inputs are those that the run was found by, whatever lies there by now
            found.commit()
            found.dump(update_pipeline=False)
            return True

    def check_plan(self, plan: Sequence[Step]) -> None:
        """See that what a plan needs can come from workers, before any of it runs.

        Raises:
            InputError: a stage would run whose runs DVC doesn't keep.
        """
        for step in plan:
            try:
                self.check_kept(step.name)
            except InputError:
                # where something is above it, what that becomes decides whether it runs
                if not (self._committed(step.name) and (step.upstream or self.restore(step.name))):
                    raise

    def check_kept(self, stage: str) -> None:
        """See that what workers make of a stage can come from them, or data from the remote.

        Raises:
            InputError: DVC doesn't keep its runs, or the data is not what was added.
        """
        with self._workspace.locked():
            (found,) = self._repo.stage.collect(stage)
            if found.is_data_source:
                _check_added(found)
            elif why := _not_kept(found):
                raise InputError(
                    f"workers can't share {stage}, since DVC's run cache keeps no runs of it: {why}",
                    where="dvc.yaml",
                    todo=f"Change that; or run it here (dvc repro --single-item {stage}), push it (dvc push {stage}), "
                    "and commit and push dvc.lock",
                )

    def _committed(self, stage: str) -> bool:
        """Whether the last commit records of a stage what is recorded here."""
        scm, here = self._repo.scm, self._workspace.root / LOCK_FILE
        commit = scm.get_fs(scm.get_rev())
        if not here.exists() or not commit.exists(LOCK_FILE):
            return False
        mine, theirs = (
            lock.get("stages", {}).get(stage) for lock in (load_yaml(here), load_yaml(LOCK_FILE, fs=commit))
        )
        return mine is not None and mine == theirs

    def _pull(self, data: str) -> bool:
        try:
            self._repo.pull(targets=[data])
        except DvcException:
            return False
        return True

    def push(self, stage: str) -> None:
        """Give a stage's outputs and its run to the others.

        Raises:
            Unavailable: the remote can't be written.
        """
        try:
            self._repo.push(targets=[stage], run_cache=True)
            (found,) = self._repo.stage.collect(stage)
            # metrics and plots that git tracks: a run needs them, and `push` leaves them out
            if failed := self._repo.cloud.push({out.hash_info for out in found.outs if not out.use_cache}).failed:
                raise UploadError(len(failed))
        except DvcException as error:
            raise Unavailable(f"{stage} can't be pushed: {error}", where=str(self._workspace.root)) from None

    def _nothing_changed(self, todo: str) -> None:
        """See that nothing differs from the commit but what DVC writes itself."""
        staged, unstaged, _ = self._repo.scm.status(untracked_files="no")
        changed = {path for paths in staged.values() for path in paths} | set(unstaged)
        foreign = sorted(changed - self._workspace.written())
        if foreign:
            raise InputError(
                f"{', '.join(foreign)} changed since the last commit", where=str(self._workspace.root), todo=todo
            )


def _not_kept(stage: Any) -> str | None:
    """Why DVC's run cache doesn't keep a stage's runs, if it doesn't: what dvc.stage.cache and Stage.run ask for."""
    if stage.frozen or stage.is_callback or stage.always_changed:
        return "it is frozen" if stage.frozen else "it always runs"
    if not stage.deps or not stage.outs:
        return "it has no dependencies" if not stage.deps else "it has no outputs"
    for file in (*stage.deps, *stage.outs):
        if file.protocol != "local" or not file.def_path:
            return f"{file} lies elsewhere"
    for out in stage.outs:
        if not out.is_in_repo:
            return f"its output {out} lies outside the project"
        if out.persist or not (out.use_cache or out.is_metric or out.is_plot):
            return f"its output {out} has {'persist: true' if out.persist else 'cache: false'}"
    return None


def _check_added(data: Any) -> None:
    for out in data.outs:
        if out.exists and out.workspace_status():
            raise InputError(
                "it was changed since it was added, so workers have another",
                where=out.def_path,
                todo=f"dvc add {out.def_path}; then dvc push, commit and git push",
            )
