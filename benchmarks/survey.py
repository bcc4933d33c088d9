"""Every question of the audit, asked of every DVC project in a folder: `python -m benchmarks.survey FOLDER [NAME...]`.

Prints a table of exit codes and seconds, then every refusal. A traceback, a signal, or minutes without an answer are
mistakes of ours: it ends with 1. Works on copies; `rederive`, which runs the projects' own commands, is left out.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lineage.contents import Contents
from lineage.graph import Graph
from lineage.model import File
from lineage.repository import Repository
from lineage.results import numbers_in
from lineage.states import Committed

PATIENCE = 600
"""Seconds that a command may take."""
OURS = ("Traceback (most recent call last)", "by a mistake in lineage")
"""What is said where nobody has thought of something."""


@dataclass(frozen=True)
class Answer:
    """What became of a command."""

    words: Sequence[str]
    code: int | None
    """None where there was no answer in time; of a signal, its negative number."""
    seconds: float
    size: int
    """Bytes of stdout."""
    said: str
    """What it wrote to stderr."""

    @property
    def is_ours(self) -> bool:
        """Whether it failed by a mistake of ours."""
        return self.code not in (0, 1, 2, 3) or any(words in self.said for words in OURS)

    def __str__(self) -> str:
        if self.code is None:
            return f"**no answer in {PATIENCE} s**"
        return f"{self.code}, {self.seconds:.1f} s, {self.size / 1000:,.0f} kB{' **failed**' * self.is_ours}"


def main(
    folder: Annotated[Path, typer.Argument(help="Its folders are clones of DVC projects.", exists=True)],
    names: Annotated[list[str] | None, typer.Argument(help="Only these.", show_default=False)] = None,
) -> None:
    """Ask every question of every project in FOLDER."""
    found: dict[str, dict[str, Answer]] = {}
    for clone in sorted(folder.iterdir()):
        if (clone / ".dvc").is_dir() and (not names or clone.name in names):
            with tempfile.TemporaryDirectory() as scratch:
                root = Path(shutil.copytree(clone, Path(scratch) / clone.name, symlinks=True))
                for command, answer in survey(root, Path(scratch)):
                    found.setdefault(clone.name, {})[command] = answer
                    print(f"{clone.name}: {command}: {answer}", file=sys.stderr, flush=True)
    print(table(found))
    answers = [(project, answer) for project, row in found.items() for answer in row.values()]
    for project, answer in answers:
        if answer.is_ours or answer.code == 2:
            print(f"\n{project}: {' '.join(answer.words)}: {answer.code}\n{answer.said.strip()}")
    ours = sum(answer.is_ours for _, answer in answers)
    print(f"\n{len(answers)} commands in {len(found)} projects, {ours} failed")
    sys.exit(ours > 0)


def table(found: Mapping[str, Mapping[str, Answer]]) -> str:
    """Markdown, a project a column."""
    commands = dict.fromkeys(command for row in found.values() for command in row)
    lines = [["exit code, time, answer", *found], ["---"] * (1 + len(found))]
    lines += [[command, *(str(row.get(command, "")) for row in found.values())] for command in commands]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def survey(root: Path, scratch: Path) -> Iterator[tuple[str, Answer]]:
    """Every command in one project, by name.

    Args:
        scratch: a folder for what the commands write.
    """
    output, metric, page = targets(Repository(root))
    target, is_here = output.path, (root / output.path).exists()
    log = ["git", "rev-list", "--reverse", "HEAD", "--", "*dvc.lock", "*.dvc"]
    first = subprocess.run(log, cwd=root, capture_output=True, text=True, check=True).stdout.partition("\n")[0]
    key, signed = str(scratch / "key"), scratch / "signed.json"
    rev = ["--rev", "HEAD"]
    questions = {
        "trace": ["trace", target],
        "trace of a number": ["trace", metric or "", *rev],
        "trace --html": ["trace", target, *rev, "--html", str(scratch / "trace.html")],
        "trace --json": ["trace", target, *rev, "--json"],
        "diff with the first": ["diff", first or "HEAD", "HEAD"],
        "diff": ["diff", "HEAD", "workspace"],
        "verify": ["verify"],
        "verify HEAD": ["verify", "HEAD"],
        "verify the first": ["verify", first or "HEAD"],
        "history": ["history", metric or ""],
        "used": ["used", target],
        "find": ["find", target if is_here else output.hash or ""],
        **{f"export {f}": ["export", target, *rev, "--format", f] for f in ("openlineage", "prov", "cyclonedx")},
        "card": ["card", target, *rev],
        "cited": ["cited", page or "", *rev, "--html", str(scratch / "cited.html")],
        "keep": ["keep", str(scratch / "record"), "HEAD"],
        "keygen": ["keygen", key],
        "attest": ["attest", target, *rev, "--key", key, "--output", str(signed)],
        "check": ["check", str(signed), *rev, "--key", f"{key}.pub"],
        "check a file": ["check", target if is_here else "", "--statement", str(signed), "--key", f"{key}.pub"],
    }
    for command, words in questions.items():
        if all(words) and (not command.startswith("check") or signed.is_file()):
            yield command, ask(root, words)


def targets(repository: Repository) -> tuple[File, str | None, str | None]:
    """The last output of a project's newest commit, a number that git keeps, and an HTML file; None for none."""
    state = Committed(repository, "HEAD", repository.head() or "")
    graph = Graph(state)
    runs = graph.stages() or [*graph.runs.values()]  # a registry has only data
    outputs = [file for run in runs for file in run.outputs] or [File("nothing")]
    files = [File(f"{f.path}/{p}") for f in outputs for p in state.committed_under(f.path)] + outputs
    contents = Contents(state)
    data = (f for f in files if state.keeps(f.path) and f.path.endswith((".json", ".yaml", ".yml")))
    numbers = (f"{file.path}:{key}" for file in data for key, _ in numbers_in(contents.value(file)))
    pages = (file.path for file in files if file.path.endswith(".html"))
    return outputs[-1], next(numbers, None), next(pages, None)


def ask(root: Path, words: Sequence[str]) -> Answer:
    """Ask as a person in the project's folder does, whose modules are no part of the audit."""
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "lineage", *words]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Answer(words, None, PATIENCE, 0, f"no answer in {PATIENCE} s")
    seconds = time.perf_counter() - started
    return Answer(words, done.returncode, seconds, len(done.stdout), done.stderr.decode(errors="replace"))


if __name__ == "__main__":
    typer.run(main)
