"""Bring one stage of the DVC project in the current folder up to date, as `dvc repro --single-item` does.

    python -m pipelines.once STAGE PARENT [REVISION]

With a revision the folder is a worker's own clone: the revision is checked out, what the stage needs comes from the DVC
remote, and what it makes goes there. A process of its own, so that it can be interrupted like a terminal's, and ends
when its parent does. Exit codes: that of the stage's command if it failed; 75 if something isn't there that may be
later; 78 if this folder is no clone of the project, or isn't free, and another worker's may be; 2 for what a person has
to mend.
"""

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.stage.exceptions import StageCmdFailedError

from pipelines.alone import LOCK, NOT_HERE, after_others, alone
from pipelines.shared import Shared
from pipelines.workspace import Workspace
from runner.parent import die_with_parent
from runner.stage import MAY_PASS, MISTAKE, run_command
from softmask.errors import InputError, Unavailable

STAGES = Path(".dvc/tmp/stages")


def main(stage: str, parent: int, revision: str | None = None) -> None:
    """Run it.

    Raises:
        SystemExit: it failed.
        Unavailable: what is needed isn't in the remote.
        InputError: from `shared` or `workspace`.
    """
    die_with_parent(parent)
    if revision is None:
        workspace = Workspace(Path.cwd())
        with after_others(STAGES / f"{quote(stage, safe='@')}.lock", stage):
            _reproduce(workspace, stage, workspace.frozen(stage))
        return
    with _clone(stage, revision) as (workspace, shared):
        shared.fetch_runs()
        *above, _ = workspace.plan([stage])
        for step in above:
            if not shared.restore(step.name):
                raise Unavailable(f"nobody has pushed {step.name}, which {stage} needs")
        _reproduce(workspace, stage, None)  # the commit says what it is made from
        shared.push(stage)


@contextmanager
def _clone(stage: str, revision: str) -> Iterator[tuple[Workspace, Shared]]:
    """This folder at the revision, for this stage alone.

    Raises:
        SystemExit: that can't be had here, and may be elsewhere.
    """
    with ExitStack() as held:
        try:
            workspace = Workspace(Path.cwd())
            held.enter_context(alone(LOCK, f"the stage {stage}", "A worker needs a clone of its own, and --limit 1"))
            shared = Shared(workspace)
            shared.check_out(revision)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(NOT_HERE)
        yield workspace, shared


def _reproduce(workspace: Workspace, stage: str, began: Mapping[str, str] | None) -> None:
    try:
        workspace.reproduce(stage, began)
    except DvcException as error:
        causes = list(_causes(error))
        if not any(isinstance(cause, StageCmdFailedError) for cause in causes):  # which says its error itself
            print(f"error: {': '.join(str(cause) for cause in causes)}", file=sys.stderr, flush=True)
        sys.exit(next((code for cause in causes if (code := _code(cause)) is not None), MISTAKE))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _code(error: BaseException) -> int | None:
    if isinstance(error, LockError):
        return MAY_PASS
    if isinstance(error, StageCmdFailedError) and (found := re.search(r"exited with (-?\d+)$", str(error))):
        code = int(found[1])
        return code if code >= 0 else 128 - code  # by a signal, as shells say it
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs' children ignore it
    run_command(lambda: main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
