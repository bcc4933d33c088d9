"""`verify`: is the record true?"""

from collections import Counter
from typing import Annotated

import typer

from lineage.commands.common import AsJson, answer, end, escape, hashing, here, out
from lineage.model import Finding
from lineage.render.grouped import Said, grouped
from lineage.verify import Verification, verify


def verify_command(
    revision: Annotated[
        str | None,
        typer.Argument(
            help="A commit, branch, tag, experiment or a kept record's folder; without it, the workspace.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Check only what is upstream of this artifact or stage.", show_default=False)
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(help="Also read every object of this DVC remote ('' is the default one).", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash every file anew, and hold lock, commit, parameters, manifests and reports against each other.

    Exit code 1: something is wrong. 3: nothing is, but not all could be checked, or it isn't committed yet.
    """
    with hashing() as progress:
        found = verify(here(), revision, target, remote, progress)
    if as_json:
        answer(found.model_dump_json(indent=2))
    else:
        _print(found)
    end(wrong=not found.holds, partial=not found.complete)


def _print(found: Verification) -> None:
    name = escape(f"{found.revision} ({found.commit.id[:10]})" if found.commit else found.revision)
    wrong = [finding for finding in found.findings if finding.proves_wrong]
    partial = [finding for finding in found.findings if not finding.proves_wrong]
    if wrong:
        out.print(f"[red]{name}: {len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong")
        _list(wrong)
    if partial:
        out.print("[yellow]Can't be vouched for:")
        _list(partial)
    if not wrong:
        out.print(f"{name}: {'[green]what could be checked holds' if partial else '[green]holds'}")
    if found.by_hash:
        outputs = "output is" if found.by_hash == 1 else "outputs are"
        size = f"{found.by_hash_bytes / 1e6:,.1f} MB"
        out.print(f"{found.by_hash} {outputs} known only by hash ({size}): neither kept in the record nor in the cache")
    counted = ", ".join(f"{count} {fault}" for fault, count in Counter(f.fault.value for f in found.findings).items())
    out.print(f"[dim]{found.runs} runs, {found.bytes / 1e6:,.1f} MB hashed{': ' + counted if counted else ''}")


def _list(findings: list[Finding]) -> None:
    for line in grouped(Said(f.fault.value, f.path, f.what, f.run) for f in findings):
        out.print(escape(line))
