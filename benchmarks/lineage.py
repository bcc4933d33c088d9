"""How long `python -m lineage` takes on many experiments, and on many bytes: whole commands, their start included.

Projects of five stages are written under a temporary folder as DVC writes them: git commits, locks, a cache. The
artifacts of the last part are sparse files, which hash as slowly as any.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pygit2
import yaml

from benchmarks.table import Cost, Measured
from lineage.hashing import bytes_hash, file_hash

EXPERIMENTS = (10, 100, 1000)
STAGES = ("prepare", "split", "train@a", "train@b", "evaluate")
ABOVE = {"split": ["prepare"], "train@a": ["split"], "train@b": ["split"], "evaluate": ["train@a", "train@b"]}
CODE = b"print()\n"
METRIC = "metrics.json:accuracy"
GIB = 1 << 30
LARGE = 10
"""Artifacts of one GiB each in the last part."""
ME = pygit2.Signature("benchmark", "benchmark@example.org", 1_700_000_000, 0)


@dataclass(frozen=True)
class Project:
    """A git repository with DVC's files, and experiments under DVC's own references."""

    root: Path
    git: pygit2.Repository
    baseline: pygit2.Oid

    @classmethod
    def new(cls, root: Path) -> "Project":
        """An empty project with one commit."""
        git = pygit2.init_repository(str(root), initial_head="main")
        config = root / ".dvc/config"
        config.parent.mkdir()
        config.write_text("[core]\n    analytics = false\n")
        (root / "code.py").write_bytes(CODE)
        git.index.add_all([".dvc/config", "code.py"])
        return cls(root, git, git.create_commit("refs/heads/main", ME, ME, "baseline", git.index.write_tree(), []))

    def experiment(self, number: int, lock: dict[str, object], files: dict[str, bytes]) -> None:
        """One experiment: a commit on the baseline with its lock and small files."""
        tree = self.git.TreeBuilder(self.git[self.baseline].peel(pygit2.Tree))
        text = yaml.safe_dump({"schema": "2.0", "stages": lock}, sort_keys=False)
        for name, data in {**files, "dvc.lock": text.encode()}.items():
            tree.insert(name, self.git.create_blob(data), pygit2.enums.FileMode.BLOB)
        when = pygit2.Signature(ME.name, ME.email, ME.time + number, 0)
        commit = self.git.create_commit(None, when, when, f"experiment {number}", tree.write(), [self.baseline])
        base = str(self.baseline)
        self.git.references.create(f"refs/exps/{base[:2]}/{base[2:]}/exp-{number}", commit)

    def kept(self, data: bytes) -> str:
        """Put bytes into DVC's cache; their hash."""
        digest = bytes_hash(data)
        self.place(digest).write_bytes(data)
        return digest

    def place(self, digest: str) -> Path:
        """Where DVC's cache has an object."""
        folder = self.root / ".dvc/cache/files/md5" / digest[:2]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / digest[2:]


def measure() -> list[Measured]:
    """Every command at every size, against the smallest; and on many bytes."""
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = {n: _many(folder / f"many-{n}", n) for n in EXPERIMENTS}
        fewest = EXPERIMENTS[0]
        for command, least in seconds[fewest].items():
            for n in EXPERIMENTS:
                cost = Cost(seconds[n][command])
                rows.append(Measured(f"{command}, {n:,} experiments", cost, f"{fewest} experiments", Cost(least)))
        rows += _large(folder / "large")
    return rows


def _many(root: Path, count: int) -> dict[str, float]:
    """Seconds of each command in a project of `count` experiments."""
    project = Project.new(root)
    for number in range(count):
        hashes = {stage: project.kept(f"{stage} {number}".encode()) for stage in STAGES[:-1]}
        project.experiment(number, *_record(hashes, number))
    a, b = "exp-0", f"exp-{count - 1}"
    commands = {
        "trace": ["trace", METRIC, "--rev", b],
        "diff": ["diff", a, b],
        "verify": ["verify", b],
        "history, first time": ["history", METRIC],
        "history, again": ["history", METRIC],
    }
    return {name: _seconds(root, arguments) for name, arguments in commands.items()}


def _record(hashes: dict[str, str], number: int) -> tuple[dict[str, object], dict[str, bytes]]:
    """An experiment's lock, and the files that git keeps."""
    metrics = json.dumps({"accuracy": number / 1000}).encode()
    params = f"rate: {number}\n".encode()
    made = {**hashes, "evaluate": bytes_hash(metrics)}
    lock: dict[str, object] = {}
    declared: dict[str, dict[str, object]] = {}
    for stage in STAGES:
        above = [{"path": f"{s}.bin", "hash": "md5", "md5": made[s]} for s in ABOVE.get(stage, [])]
        code = {"path": "code.py", "hash": "md5", "md5": bytes_hash(CODE)}
        out = "metrics.json" if stage == "evaluate" else f"{stage}.bin"
        entry: dict[str, object] = {"cmd": f"python code.py {stage}", "deps": [code, *above]}
        if stage != "evaluate":
            entry["params"] = {"params.yaml": {"rate": number}}
        lock[stage] = {**entry, "outs": [{"path": out, "hash": "md5", "md5": made[stage]}]}
        if stage == "train@b":
            continue  # declared with train@a, as a matrix
        template, artifact = (part.replace("@a", "@${item.arm}") for part in (stage, out))
        declared[stage.partition("@")[0]] = {
            **({"matrix": {"arm": ["a", "b"]}} if "@" in stage else {}),
            **({"params": ["rate"]} if "params" in entry else {}),
            "cmd": f"python code.py {template}",
            "deps": ["code.py", *(f"{s}.bin" for s in ABOVE.get(stage, []))],
            "outs": [artifact],
        }
    pipeline = yaml.safe_dump({"stages": declared})
    return lock, {"metrics.json": metrics, "params.yaml": params, "dvc.yaml": pipeline.encode()}


def _large(root: Path) -> list[Measured]:
    """Two experiments whose artifacts have ten GiB, against reading those bytes once."""
    project = Project.new(root)
    lock: dict[str, object] = {}
    code = {"path": "code.py", "hash": "md5", "md5": bytes_hash(CODE)}
    places: list[Path] = []
    for number in range(LARGE):
        file = root / "sparse"
        with file.open("wb") as sparse:
            sparse.truncate(GIB + number)
        digest = file_hash(file)
        places.append(project.place(digest))
        file.replace(places[-1])
        outs = [{"path": f"{number}.bin", "hash": "md5", "md5": digest}]
        lock[f"make-{number}"] = {"cmd": "python code.py", "deps": [dict(code)], "outs": outs}
    declared = {"cmd": "python code.py", "deps": ["code.py"]}
    pipeline = {"stages": {f"make-{n}": {**declared, "outs": [f"{n}.bin"]} for n in range(LARGE)}}
    for number in range(2):
        project.experiment(number, lock, {"dvc.yaml": yaml.safe_dump(pipeline).encode(), "n": str(number).encode()})
    started = time.perf_counter()
    for place in places:
        file_hash(place)
    plain = time.perf_counter() - started
    note = f"{LARGE} sparse files of 1 GiB"
    commands = {
        "trace": ["trace", "0.bin", "--rev", "exp-1"],
        "diff": ["diff", "exp-0", "exp-1"],
        "diff --no-hash": ["diff", "exp-0", "exp-1", "--no-hash"],
        "verify": ["verify", "exp-1"],
    }
    return [
        Measured(f"{name}, 10 GiB", Cost(_seconds(root, args)), "hashing them one by one", Cost(plain), note=note)
        for name, args in commands.items()
    ]


def _seconds(root: Path, arguments: Sequence[str]) -> float:
    """Wall time of a command; its answers are checked elsewhere, but a failure is no measurement."""
    started = time.perf_counter()
    environment = os.environ | {"LINEAGE_CACHE_DIR": str(root / ".git/lineage"), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-m", "lineage", *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        )
    return time.perf_counter() - started
