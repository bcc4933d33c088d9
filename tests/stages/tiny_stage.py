"""A small real stage in a folder of its own: three units of work, each noted in a log, so that tests see what ran."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner.stage import Stage

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Three units of work."""

import time
from pathlib import Path

from runner.stage import Context, Stage, StageParams
from artifacts.files import write_json

while Path("importing").exists():  # as a heavy library would
    Path("begun").touch()
    time.sleep(0.01)


class Params(StageParams):
    """What the units depend on."""

    start: int


def compute(context: Context[Params], number: int) -> int:
    """Note the unit, wait while the folder has a file `hold`, and give a number."""
    with Path("log.txt").open("a") as log:
        log.write(str(number))
    while number == 1 and Path("hold").exists():
        time.sleep(0.01)
    return context.params.start + number


def run(context: Context[Params]) -> None:
    """Write three numbers; each is a unit."""
    unit = context.checkpoints.unit
    values = [unit(str(number), lambda number=number: compute(context, number)) for number in range(3)]
    write_json(context.outputs["values"], values)
    context.counts["units"] = len(values)


STAGE = Stage(
    name="tiny",
    params=Params,
    run=run,
    inputs={"text": "text"},
    outputs={"values": "out/values.json", "manifest": "out/manifest.json"},
)

if __name__ == "__main__":
    STAGE.main()
'''


def make(folder: Path) -> Path:
    """The stage's folder: its code, dvc.yaml, params.yaml and its input."""
    for name, text in {
        "text/a.txt": "a",
        "text/deep/b.txt": "b",
        "tiny.py": SOURCE,
        "stages/tiny_code.py": "# code\n",
        "dvc.yaml": "stages: {tiny: {deps: [stages/tiny_code.py, text]}}\n",
        "params.yaml": "start: 10\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def stage(folder: Path) -> Stage[Any]:
    """The stage, to be run in this process."""
    spec = importlib.util.spec_from_file_location("tiny", folder / "tiny.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Stage[Any] = module.STAGE
    return found


def start(folder: Path) -> "subprocess.Popen[str]":
    """The stage's command line, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "tiny.py"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def log(folder: Path) -> str:
    """The units that were computed, in order, over all runs."""
    file = folder / "log.txt"
    return file.read_text(encoding="utf-8") if file.exists() else ""
