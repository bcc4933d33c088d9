"""The flows that a worker runs: one stage of the pipeline, or one of the commands beside it.

Deployed once for each pool; `reproduce` and `retrain` start them.
"""

import os
import platform
import signal
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from pipelines.alone import LOCK, NOT_HERE, somebody
from pipelines.flows import MAY_PASS_STATE, NOT_HERE_STATE
from pipelines.follow import follow
from pipelines.forked import start
from runner.parent import die_with_parent
from runner.stage import MAY_PASS

SHOWN = 3
"""Lines of a command that failed and named no error."""


@flow(name="stage", flow_run_name="{name}", persist_result=False)
def stage(name: str, workspace: str, revision: str | None = None) -> State[None]:
    """Bring one stage up to date, as `dvc repro --single-item NAME` does. Its output goes to the run's log.

    If the worker dies, this process is told to end at once; so is the stage, whose work is kept.

    Args:
        name: DVC's name of the stage, such as `arm@binary-1`.
        workspace: folder of the DVC project; relative to the worker's.
        revision: the commit to check out, in a clone that is the worker's own; what the stage needs and makes goes
            through the DVC remote. None in a workspace that workers share.
    """
    logger = get_run_logger()
    die_with_parent(os.getppid(), signal.SIGTERM)  # Prefect turns it into a crash of this run
    if revision is None and not somebody(Path(workspace) / LOCK):
        return _not_here(f"no flow is at work in a {workspace} there")
    arguments = [name, str(os.getpid()), *([] if revision is None else [revision])]
    return ended(*follow(start("pipelines.once", arguments, Path(workspace)), logger.info))


@flow(name="command", flow_run_name="{name}", persist_result=False)
def command(name: str, arguments: list[str], workspace: str) -> State[None]:
    """Run `python -m commands.NAME ARGUMENTS`, whose output goes to the run's log; it ends as `stage` does.

    Args:
        name: one of commands/, such as `promotion`.
        arguments: of its command line.
        workspace: where it runs; relative to the worker's folder.
    """
    logger = get_run_logger()
    die_with_parent(os.getppid(), signal.SIGTERM)
    if not Path(workspace).is_dir():
        return _not_here(f"there is no {workspace} there")
    line = [str(os.getpid()), f"commands.{name}", *arguments]
    return ended(*follow(start("runner.parent", line, Path(workspace)), logger.info))


def ended(code: int, last: Sequence[str]) -> State[None]:
    """The last state of a run whose process has ended, by its exit code and its last lines."""
    if code == 0:
        return Completed()
    if code == NOT_HERE:
        return _not_here(_own_words(last).removeprefix("error: "))
    message = f"{_own_words(last)} (exit code {code})"
    if code == MAY_PASS or code >= 128:  # lack of something, or killed, for want of memory say
        return Failed(name=MAY_PASS_STATE, message=message)
    return Failed(message=message)


def _own_words(last: Sequence[str]) -> str:
    """Of a command's last lines those that say why it failed: its error with what follows, or just the last."""
    errors = [number for number, line in enumerate(last) if line.startswith("error: ")]
    return "\n".join(last[errors[-1] :] if errors else last[-SHOWN:]) or "it said nothing"


def _not_here(why: str) -> State[None]:
    worker = f"worker {os.environ.get('PREFECT__WORKER_NAME')!r} in {Path.cwd()} on {platform.node()}"
    return Failed(name=NOT_HERE_STATE, message=f"{worker} can't run it: {why}")
