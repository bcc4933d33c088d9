"""The command line: `python -m lineage COMMAND` from any folder of a DVC project.

Exit codes: 0, 1 where something is found wrong, 2 for a mistake of the user, 3 where an answer is partial.
"""

import logging
import sys

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
from lineage.errors import AuditError, Missing

app = typer.Typer(
    help="Where a number came from, how two experiments differ, and whether the bytes are what the lock says.",
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


def main() -> None:
    """Run a command; a mistake of the user is one plain message."""
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        app()
    except AuditError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(Exit.PARTIAL if isinstance(error, Missing) else Exit.MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)
