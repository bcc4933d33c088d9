"""How long each stage took when it last ran here, from the run.json that it leaves."""

from pathlib import Path

from artifacts.files import read_json
from benchmarks.table import Cost, Measured

FOLDERS = ("data", "models", "reports")


def measure() -> list[Measured]:
    """Seconds of every stage instance, in the order of their files."""
    files = [file for folder in FOLDERS for file in sorted(Path(folder).glob("**/run.json"))]
    return [Measured(run["stage"], Cost(run["seconds"]), note=run["started"]) for run in map(read_json, files)]
