"""A small DVC project whose stages are run in this process, and recorded as DVC and the house's stages record them.

So a history of a hundred experiments costs seconds; a slow test holds it against real `dvc repro`. What was done
to it is known here without any code of `lineage`.
"""

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygit2
import yaml
from dvc.utils.serialize import dumps_yaml

from artifacts.manifest import Environment, Hash, Manifest

ME = pygit2.Signature("tests", "tests@example.org", 1_700_000_000, 0)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RAW, ROWS, PARTS, METRICS, REPORT = "data/raw.csv", "data/rows.txt", "data/parts", "metrics.json", "report.txt"
FILES = {
    RAW: "3\n1\n2\n",
    "code/prepare.py": "FACTOR = 2\n",
    "code/shared.py": "FACTOR = 3\n",
    "code/train.py": "FACTOR = 5\n",
    "code/evaluate.py": "FACTOR = 7\n",
    "params.yaml": yaml.safe_dump(
        {
            "prepare": {"limit": 50},
            "source": {"repo": "org/data", "revision": COMMIT},
            "train": {"rate": 2, "seed": 1},
        }
    ),
    "requirements.lock": "numpy==1.0\nscipy==2.0\n",
    ".gitignore": "/data/raw.csv\n/data/rows.txt\n/data/parts\n/models\n/meta\n/report.txt\n",
    ".dvc/config": "[core]\n    analytics = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
}
Made = dict[str, bytes | dict[str, bytes]]


@dataclass(frozen=True)
class Stage:
    """What dvc.yaml says of a stage, and its work."""

    command: str
    code: tuple[str, ...]
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    output: str
    run: Callable[["Project"], Made]
    cached: bool = True


def _prepare(project: "Project") -> Made:
    factor = project.factor("code/prepare.py") * project.factor("code/shared.py")
    params = project.params()
    rows = [int(line) * factor for line in project.text(RAW).split()]
    kept = [row for row in rows if row <= params["prepare"]["limit"]]
    return {ROWS: "".join(f"{row}\n" for row in kept).encode() + params["source"]["revision"][:4].encode() + b"\n"}


def _split(project: "Project") -> Made:
    rows = project.text(ROWS).splitlines()
    return {PARTS: {"a.txt": "\n".join(rows[:2]).encode(), "more/b.txt": "\n".join(rows[2:]).encode()}}


def _train(arm: str, part: str) -> Callable[["Project"], Made]:
    def run(project: "Project") -> Made:
        train, size = project.params()["train"], len(project.text(f"{PARTS}/{part}"))
        score = size * train["rate"] * project.factor("code/train.py") * project.factor("code/shared.py")
        return {f"models/{arm}.txt": f"{score} {train['seed']} numpy {project.numpy()}\n".encode()}

    return run


def _evaluate(project: "Project") -> Made:
    scores = {arm: int(project.text(f"models/{arm}.txt").split()[0]) for arm in ("a", "b")}
    seeds = int(project.text("models/a.txt").split()[1])
    words = hashlib.md5(project.text("models/a.txt").encode() + project.text("models/b.txt").encode()).hexdigest()
    total = sum(scores.values()) * project.factor("code/evaluate.py") + seeds
    return {METRICS: json.dumps({"score": total, "words": words}, indent=1).encode()}


def _report(project: "Project") -> Made:
    return {REPORT: f"the score is {project.text(METRICS)}, by {project.stages['report'].command}\n".encode()}


PARAMS = ("train.rate", "train.seed")
SHARED = "code/shared.py"
STAGES = {
    "prepare": Stage("prepare", ("code/prepare.py", SHARED), (RAW,), ("prepare.limit", "source"), ROWS, _prepare),
    "split": Stage("split", (), (ROWS,), (), PARTS, _split),
    "train@a-1": Stage("train a", ("code/train.py", SHARED), (PARTS,), PARAMS, "models/a.txt", _train("a", "a.txt")),
    "train@b-1": Stage(
        "train b", ("code/train.py", SHARED), (PARTS,), PARAMS, "models/b.txt", _train("b", "more/b.txt")
    ),
    "evaluate": Stage(
        "evaluate", ("code/evaluate.py",), ("models/a.txt", "models/b.txt"), (), METRICS, _evaluate, cached=False
    ),
    "report": Stage("report", (), (METRICS,), (), REPORT, _report),
}


@dataclass
class Project:
    """The project in a folder, and what was done to it."""

    root: Path
    manifests: bool = True
    stages: dict[str, Stage] = field(default_factory=lambda: dict(STAGES))
    environments: dict[str, str] = field(default_factory=dict)
    """Stage -> numpy's version when it last ran."""

    @classmethod
    def new(cls, root: Path, manifests: bool = True) -> "Project":
        """The project, run once and committed."""
        project = cls(root, manifests)
        pygit2.init_repository(str(root), initial_head="main")
        for path, text in FILES.items():
            project.write(path, text.encode())
        project.track()
        project.run()
        project.commit("first")
        return project

    def copied(self, root: Path) -> "Project":
        """The same in another folder."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root, self.manifests, dict(self.stages), dict(self.environments))

    # Files

    def write(self, path: str, data: bytes) -> None:
        """Write a file, a new one in place of an old one."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(data)

    def text(self, path: str) -> str:
        """A file's text."""
        return (self.root / path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        """Change a text file."""
        assert old in self.text(path)
        self.write(path, self.text(path).replace(old, new).encode())

    def params(self) -> Any:
        """params.yaml."""
        return yaml.safe_load(self.text("params.yaml"))

    def factor(self, path: str) -> int:
        """What a code file computes with."""
        found = re.search(r"^FACTOR = (\d+)", self.text(path), re.MULTILINE)
        assert found is not None
        return int(found.group(1))

    def numpy(self) -> str:
        """The installed version, as the environment lock has it."""
        return self.text("requirements.lock").split()[0].removeprefix("numpy==")

    # DVC

    def place(self, digest: str) -> Path:
        """Where the cache has an object."""
        return self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]

    def keep(self, data: bytes, suffix: str = "") -> str:
        """Put bytes into the cache; their hash."""
        digest = hashlib.md5(data).hexdigest() + suffix
        if not self.place(digest).exists():
            self.place(digest).parent.mkdir(parents=True, exist_ok=True)
            self.place(digest).write_bytes(data)
            self.place(digest).chmod(0o444)
        return digest

    def track(self) -> None:
        """`dvc add` of the raw data."""
        data = (self.root / RAW).read_bytes()
        out = {"md5": self.keep(data), "size": len(data), "hash": "md5", "path": "raw.csv"}
        self.write(f"{RAW}.dvc", yaml.safe_dump({"outs": [out]}, sort_keys=False).encode())

    def lock(self) -> dict[str, Any]:
        """The stages of dvc.lock."""
        file = self.root / "dvc.lock"
        return yaml.safe_load(file.read_text())["stages"] if file.exists() else {}

    def write_lock(self, stages: Mapping[str, Any]) -> None:
        """Write dvc.lock as DVC does."""
        self.write("dvc.lock", dumps_yaml(copy.deepcopy({"schema": "2.0", "stages": dict(stages)})).encode())

    def write_pipeline(self) -> None:
        """Write dvc.yaml; the two trainings are one matrix there."""
        stages = {name: self._declared(name) for name in self.stages if name != "train@b-1"}
        text = json.dumps(stages.pop("train@a-1")).replace("train a", "train ${item.arm}")
        text = text.replace("models/a", "models/${item.arm}").replace("train@a-1", "train@${item.arm}-1")
        stages["train"] = {"matrix": {"arm": ["a", "b"], "seed": [1]}, **json.loads(text)}
        self.write("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False).encode())

    def _declared(self, name: str) -> dict[str, Any]:
        stage = self.stages[name]
        outs: list[Any] = [stage.output if stage.cached else {stage.output: {"cache": False}}]
        outs += [f"meta/{name}/manifest.json"] if self.manifests else []
        params = {"params": [*stage.params]} if stage.params else {}
        return {"cmd": stage.command, "deps": [*stage.code, *stage.inputs], **params, "outs": outs}

    def run(self, force: Collection[str] = (), only: Collection[str] | None = None) -> None:
        """`dvc repro`: run what is out of date, or forced, and record it; with `only`, `--single-item` of these."""
        self.write_pipeline()
        lock = self.lock()
        for name, stage in self.stages.items():
            if only is not None and name not in only:
                continue
            now = self._read(stage)
            before = {key: lock.get(name, {}).get(key) for key in now}
            if name in force or before != now or any("md5" not in out for out in lock.get(name, {}).get("outs", [{}])):
                lock[name] = {**now, "outs": self._made(name, stage, now)}
        self.write_lock(lock)

    def _read(self, stage: Stage) -> dict[str, Any]:
        deps = [self._entry(path) for path in sorted((*stage.code, *stage.inputs))]
        read: dict[str, Any] = {"cmd": stage.command, "deps": deps}
        if stage.params:
            values = {key: _at(self.params(), key) for key in sorted(stage.params)}
            read["params"] = {"params.yaml": values}
        return read

    def _entry(self, path: str) -> dict[str, Any]:
        place = self.root / path
        if place.is_file():
            data = place.read_bytes()
            return {"path": path, "hash": "md5", "md5": hashlib.md5(data).hexdigest(), "size": len(data)}
        inside = {p.relative_to(place): p for p in sorted(place.rglob("*")) if p.is_file()}
        files = {p.as_posix(): file.read_bytes() for p, file in inside.items() if ".git" not in p.parts}
        size = sum(map(len, files.values()))
        return {"path": path, "hash": "md5", "md5": _folder(files)[1], "size": size, "nfiles": len(files)}

    def _made(self, name: str, stage: Stage, read: Mapping[str, Any]) -> list[dict[str, Any]]:
        made = stage.run(self)
        for path, data in made.items():
            self.put(path, data, stage.cached)
        self.environments[name] = self.numpy()
        outs = [self._entry(path) for path in made]
        if self.manifests:
            path = f"meta/{name}/manifest.json"
            self.put(path, self._manifest(name, stage, read, outs), True)
            outs.append(self._entry(path))
        return sorted(outs, key=lambda out: str(out["path"]))

    def put(self, path: str, data: bytes | dict[str, bytes], cached: bool) -> None:
        """Have an output in the workspace and in the cache."""
        if isinstance(data, bytes):
            self.write(path, data)
            if cached:
                self.keep(data)
            return
        shutil.rmtree(self.root / path, ignore_errors=True)
        for name, content in data.items():
            self.write(f"{path}/{name}", content)
            if cached:
                self.keep(content)
        if cached:
            self.keep(_folder(data)[0], ".dir")

    def _manifest(self, name: str, stage: Stage, read: Mapping[str, Any], outs: Iterable[Mapping[str, Any]]) -> bytes:
        hashes = {dep["path"]: Hash(md5=dep["md5"], size=dep["size"]) for dep in read["deps"]}
        said = Manifest(
            stage=name,
            params=read.get("params", {}).get("params.yaml", {}),
            inputs={path: hashes[path] for path in stage.inputs},
            code={path: hashes[path].md5 for path in stage.code},
            outputs={out["path"]: Hash(md5=out["md5"], size=out["size"]) for out in outs},
            counts={},
            environment=Environment(locks={}, python="3.11.0", versions={"numpy": self.numpy()}),
            sources=[],
        )
        return said.text().encode()

    # Git

    def commit(self, message: str) -> str:
        """Commit all that git doesn't ignore."""
        git = pygit2.Repository(str(self.root))
        git.index.add_all()
        git.index.write()
        parents = [] if git.head_is_unborn else [git.head.target]
        return str(git.create_commit("HEAD", ME, ME, message, git.index.write_tree(), parents))

    def experiment(self, name: str) -> str:
        """Commit all as one of DVC's experiments; the branch stays where it is."""
        git = pygit2.Repository(str(self.root))
        base = git.head.target
        commit = self.commit(name)
        git.references.create(f"refs/exps/{str(base)[:2]}/{str(base)[2:]}/{name}", commit, force=True)
        git.set_head(git.head.name)
        git.references["refs/heads/main"].set_target(base)
        return commit


def flip(path: Path, bit: int = 0) -> None:
    """Flip one bit in place; size, mode and time are put back."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _folder(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    listed = [{"md5": hashlib.md5(files[path]).hexdigest(), "relpath": path} for path in sorted(files)]
    data = json.dumps(listed, sort_keys=True).encode()
    return data, hashlib.md5(data).hexdigest() + ".dir"


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        value = value[part]
    return value
