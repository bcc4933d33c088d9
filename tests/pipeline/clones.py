"""A clone of the repository that tests run the real pipeline in: `dvc`, stages and git as subprocesses, its hashes.

Knows nothing of what the stages do.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import yaml
from dvc.utils.hydra import compose_and_dump

ROOT = Path(__file__).parents[2]
LIMIT = 1800
"""Seconds after which any single command counts as hung."""
POLL = 0.002
NOT_DETERMINISTIC = ("speed",)
"""Stages whose outputs differ from run to run: times."""


def instance_of(stage: str) -> str:
    """What a stage of dvc.yaml calls itself: `generate_base` is `generate@base`, or `code_score@micro-base`."""
    name, _, keys = stage.partition("@")
    if stage == "code_score_nearest":
        return "code_score@nearest-train"
    if name.endswith("_base") and name != "dream_base":
        return f"{name.removesuffix('_base')}@{f'{keys}-base' if keys else 'base'}"
    return stage


def environment() -> dict[str, str]:
    """This process's environment, with the running Python's tools first and a name for git."""
    who = {f"GIT_{role}_{field}": "tests" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    return {**os.environ, **who, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(command: Sequence[str], cwd: Path, **variables: str) -> str:
    """Run a command to its good end and return its output; a failure shows all it said."""
    done = attempt(command, cwd, **variables)
    ended = f"{' '.join(command)} in {cwd} ended with {done.returncode}"
    assert done.returncode == 0, f"{ended}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def attempt(command: Sequence[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail."""
    env = {**environment(), **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=LIMIT)


def snapshot(folder: Path) -> Path:
    """The checkout as it is, uncommitted and new files included, as a repository with one commit."""
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():  # a file that was deleted and not committed is still listed
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    run(["git", "init", "--quiet", "--initial-branch=main"], folder)
    run(["git", "add", "--all", "--force"], folder)
    run(["git", "commit", "--quiet", "--message=snapshot"], folder)
    return folder


@dataclass(frozen=True)
class Clone:
    """One clone."""

    root: Path

    @classmethod
    def of(cls, origin: Path, root: Path, *overrides: str) -> "Clone":
        """A fresh `git clone` with params.yaml composed for smoke and `overrides`."""
        run(["git", "clone", "--quiet", str(origin), str(root)], origin)
        clone = cls(root)
        clone.compose(*overrides)
        return clone

    def copy(self, root: Path) -> "Clone":
        """A copy with all artifacts and DVC's cache, free to be changed."""
        shutil.copytree(self.root, root, symlinks=True)
        return Clone(root)

    def compose(self, *overrides: str) -> None:
        """Write params.yaml: the smoke profile with `overrides`, composed as DVC does."""
        output, conf = str(self.root / "params.yaml"), str(self.root / "conf")
        compose_and_dump(output, conf, None, "config", "hydra_plugins", ["profile=smoke", *overrides])

    def run(self, *command: str, **variables: str) -> str:
        """Run a command in the clone to its good end."""
        return run(command, self.root, **variables)

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that it really ran."""
        return set(re.findall(r"^Running stage '(.+)':$", self.run("dvc", "repro", *arguments), re.MULTILINE))

    def stages(self) -> dict[str, Any]:
        """The stages in dvc.lock."""
        return _parsed_lock((self.root / "dvc.lock").read_text(encoding="utf-8"))

    def deterministic_stages(self) -> dict[str, Any]:
        """Those of dvc.lock whose outputs are the same in every run."""
        return {name: entry for name, entry in self.stages().items() if name not in NOT_DETERMINISTIC}

    def command(self, stage: str) -> list[str]:
        """The command line of a stage instance, as dvc.lock has it."""
        command: str = self.stages()[stage]["cmd"]
        return command.split()

    def outputs(self, stage: str) -> list[str]:
        """The declared outputs of a stage instance."""
        return [out["path"] for out in self.stages()[stage]["outs"]]

    def content(self, stage: str) -> dict[str, bytes]:
        """Every file of a stage's declared outputs; run.json, which holds times, is declared by none."""
        roots = [self.root / path for path in self.outputs(stage)]
        files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*")) if file.is_file()]
        return {file.relative_to(self.root).as_posix(): file.read_bytes() for file in files}

    def remove(self, stage: str) -> None:
        """Remove a stage's outputs, as DVC does before it runs the stage."""
        for path in (self.root / path for path in self.outputs(stage)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def start(self, *command: str, **variables: str) -> "Running":
        """Start a command in a process group of its own."""
        return Running(self, list(command), variables)

    def store(self, stage: str, root: Path | None = None) -> Path:
        """The checkpoint folder of a stage instance; it may not exist (yet)."""
        found = [path for path in (root or self.root / ".checkpoints").glob(f"{instance_of(stage)}-*") if path.is_dir()]
        assert len(found) <= 1, found
        return found[0] if found else Path("/nowhere")

    def progress(self, stage: str) -> int:
        """How far an unfinished stage has come: the step of its newest checkpoint, or its finished units."""
        store = self.store(stage)
        steps = [int(path.name.partition("-")[2]) for path in store.glob("training/checkpoint-*")]
        return max(steps, default=0) or len(list(store.glob("units/*.json")))

    def survivors(self) -> list[list[str]]:
        """The command lines of processes that still work in the clone, a moment after they should have ended."""
        deadline = time.monotonic() + 2
        while alive := [process.cmdline() for process in psutil.process_iter() if _works_in(process, self.root)]:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        return alive

    def unfinished(self) -> list[str]:
        """What is left in the checkpoint store, beside locks."""
        return sorted(path.name for path in (self.root / ".checkpoints").iterdir() if path.suffix != ".lock")


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended, or is another user's
        return False


@lru_cache(maxsize=8)
def _parsed_lock(text: str) -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load(text)["stages"]
    return stages


class Running:
    """A command that runs in a process group of its own, so that all of it can be signalled as a terminal does."""

    def __init__(self, clone: Clone, command: list[str], variables: dict[str, str]) -> None:
        self.output = clone.root.with_name(f"{clone.root.name}.{time.monotonic_ns()}.output")
        env = {**environment(), **variables}
        with self.output.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                command,
                cwd=clone.root,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # as a terminal's: a background job's children ignore Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def said(self) -> str:
        """All of the output so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def signal_when(
        self, condition: Callable[[], bool], delay: float, number: signal.Signals, limit: float = LIMIT
    ) -> int:
        """Send a signal to the whole group `delay` seconds after `condition` holds; the exit code by `limit` s.

        The command must still be at work when it comes: otherwise the test would show nothing.
        """
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"it ended before it could be interrupted:\n{self.said()[-4000:]}"
            assert time.monotonic() < deadline, self.said()[-4000:]
            time.sleep(POLL)
        time.sleep(delay)
        assert self.process.poll() is None, f"it ended before it could be interrupted:\n{self.said()[-4000:]}"
        os.killpg(self.process.pid, number)
        return self.process.wait(timeout=limit)
