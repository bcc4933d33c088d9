"""The simulator is honest: what it records and keeps is what real DVC does with the same stages, byte by byte."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lineage.simulated import FILES, METRICS, RAW, Project
from tests.lineage.test_kinds_of_change import RUNS, forged
from tests.pipeline.clones import environment, run

TESTS = Path(__file__).parents[1]
COMMANDS = ("prepare", "split", "train", "evaluate", "report")
SCRIPT = """#!{python}
import sys, tests  # which another distribution has, too
tests.__path__.insert(0, {tests!r})
from tests.lineage.test_simulated import work
work(" ".join([{command!r}, *sys.argv[1:]]))
"""


class Worker(Project):
    """Does a stage's work and leaves its manifest; what is recorded and kept is DVC's."""

    def keep(self, data: bytes, suffix: str = "") -> str:
        """The hash alone."""
        return hashlib.md5(data).hexdigest() + suffix


class Real(Project):
    """The same project, of which DVC tracks the data and runs the stages, whose commands lie in a folder beside it."""

    def track(self) -> None:
        """`dvc add` of the raw data."""
        run(["dvc", "add", "--quiet", RAW], self.root)

    def run(self, force: Iterable[str] = ()) -> None:
        """`dvc repro`, after a forced one of some stages."""
        self.write_pipeline()
        path = f"{self.root.parent / 'commands'}{os.pathsep}{environment()['PATH']}"
        for name in force:
            run(["dvc", "repro", "--quiet", "--force", "--single-item", name], self.root, PATH=path)
        run(["dvc", "repro", "--quiet"], self.root, PATH=path)


def work(command: str) -> None:
    """What a stage's command does."""
    worker, name = Worker(Path.cwd()), os.environ["DVC_STAGE"]
    stage = replace(worker.stages[name], command=command)
    worker.stages[name] = stage
    worker._made(name, stage, worker._read(stage))


@pytest.fixture
def real(tmp_path: Path) -> Real:
    """A project, run once by DVC."""
    (tmp_path / "commands").mkdir()
    for name in COMMANDS:
        script = tmp_path / "commands" / name
        script.write_text(SCRIPT.format(python=sys.executable, tests=str(TESTS), command=name))
        script.chmod(0o755)
    project = Real(tmp_path / "real")
    for path, text in FILES.items():
        project.write(path, text.encode())
    run(["git", "init", "--quiet"], project.root)
    project.track()
    project.run()
    return project


def objects(project: Project) -> dict[str, tuple[bytes, int]]:
    """Every object of the cache: its bytes and mode."""
    cache = project.root / ".dvc/cache/files/md5"
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {f.relative_to(cache).as_posix(): (f.read_bytes(), stat.S_IMODE(f.stat().st_mode)) for f in files}


def assert_same(real: Project, simulated: Project, after: str) -> None:
    """Both recorded, kept and made the same."""
    for path in ("dvc.yaml", f"{RAW}.dvc", METRICS):
        assert real.text(path) == simulated.text(path), f"{path} after {after}"
    assert real.lock() == simulated.lock(), after
    assert objects(real) == objects(simulated), after
    for path in (out["path"] for entry in real.lock().values() for out in entry["outs"]):
        assert real._entry(path) == simulated._entry(path), after


@pytest.mark.slow
def test_what_is_simulated_is_what_dvc_does(real: Real, tmp_path: Path) -> None:
    simulated = Project.new(tmp_path / "simulated")
    assert_same(real, simulated, "the first run")
    assert real.text("dvc.lock") == simulated.text("dvc.lock")
    for kind in RUNS:
        for project in (real, simulated):
            kind(project)
        assert_same(real, simulated, kind.__name__)


@pytest.mark.slow
def test_a_simulated_forgery_is_dvc_commit(real: Real, tmp_path: Path) -> None:
    simulated = Project.new(tmp_path / "simulated")
    forged(simulated)
    real.write("models/a.txt", (simulated.root / "models/a.txt").read_bytes())
    run(["dvc", "commit", "--quiet", "--force", "train@a-1"], real.root)
    real.run()
    assert_same(real, simulated, "dvc commit -f")
