"""The command line: `dvc-lineage COMMAND` from any folder of a DVC project; of this checkout, `python -m lineage`, too.

Python imports nothing from the folder where `dvc-lineage` is started. `python -m` does, so that a project could answer
in lineage's place.

Exit codes: 0, 1 where something is found wrong, 2 for a mistake of the user, 3 where an answer is partial.
"""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lineage.commands.attest import attest_command, check_command, keygen_command
from lineage.commands.card import card_command
from lineage.commands.cited import cited_command
from lineage.commands.common import Exit
from lineage.commands.diff import diff_command
from lineage.commands.export import export_command
from lineage.commands.find import find_command
from lineage.commands.history import history_command
from lineage.commands.keep import keep_command
from lineage.commands.rederive import rederive_command
from lineage.commands.trace import trace_command
from lineage.commands.used import used_command
from lineage.commands.verify import verify_command
from lineage.errors import AuditError, Missing, Unreadable, Wrong
from lineage.text import visible

LONGEST = 4000
"""Characters of a message."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("trace")(trace_command)
app.command("used")(used_command)
app.command("find")(find_command)
app.command("diff")(diff_command)
app.command("verify")(verify_command)
app.command("rederive")(rederive_command)
app.command("keep")(keep_command)
app.command("history")(history_command)
app.command("keygen")(keygen_command)
app.command("attest")(attest_command)
app.command("check")(check_command)
app.command("export")(export_command)
app.command("card")(card_command)
app.command("cited")(cited_command)


@app.callback()
def options(
    folder: Annotated[
        Path | None,
        typer.Option("-C", help="Answer as if started in this folder.", show_default=False, metavar="DIR"),
    ] = None,
) -> None:
    """Where a number came from, how two experiments differ, and whether the bytes are what the lock says."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise AuditError(f"it can't be entered: {error.strerror}", where=str(folder)) from None


def main() -> None:
    """Run a command; what goes wrong is one plain message, and never ends with the code of what is found wrong."""
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        app()
    except AuditError as error:
        codes = {Wrong: Exit.WRONG, Missing: Exit.PARTIAL}
        _end(str(error), next((code for kind, code in codes.items() if isinstance(error, kind)), Exit.MISTAKE))
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:  # typer's 1 where whoever read the answer has gone
        sys.exit(Exit.PARTIAL if isinstance(error.__context__, BrokenPipeError) else error.code)
    except Unreadable as error:
        _end(str(error), Exit.PARTIAL)
    except RecursionError:
        _end("folders or values of the project are nested deeper than anybody's are", Exit.PARTIAL)
    except MemoryError:
        _end("a file of the project needs more memory than there is", Exit.PARTIAL)
    except Exception as error:  # a project may hold what nobody has thought of, and libraries raise whatever they do
        _end(f"no answer, by a mistake in lineage: {_place(error)}: {type(error).__name__}: {error}", Exit.PARTIAL)


def _end(message: str, code: Exit) -> NoReturn:
    typer.secho(f"error: {visible(message[:LONGEST])}", fg="red", err=True)
    sys.exit(code)


def _place(error: Exception) -> str:
    """File and line of lineage's own where an error passed last."""
    own = [
        f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(Path(__file__).parent)
    ]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"
