"""What a stage is: a typed component that declares parameters, inputs and outputs, and the runner that enforces it.

A stage module defines one `Stage` and ends with `if __name__ == "__main__": STAGE.main()`. The declaration and
dvc.yaml must agree; a test compares them.
"""

import argparse
import gc
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, Self, TypeVar

import typer
from pydantic import BaseModel, ConfigDict

from artifacts.files import write_json
from artifacts.hashing import file_md5, path_hash
from artifacts.manifest import Environment, Manifest, Outside
from runner.imported import CODE, imported, runner_hash
from runner.lock import keep
from runner.parent import die_with_dvc
from runner.section import lookup, read_yaml, validate
from runner.store import Checkpoints, hold, location
from softmask.errors import InputError, Unavailable
from softmask.refused import refusal

MISTAKE, MAY_PASS = 2, os.EX_TEMPFAIL
"""Exit codes of a stage."""
PARAMS_FILE = Path("params.yaml")
GIVEN = ("data/texts", "data/chats", "data/snapshots", "models/import")
"""Inputs that no stage makes: a person puts them there."""


class StageParams(BaseModel):
    """The part of params.yaml that a stage reads. Each field is a top-level key, unless `keys` gives its dotted key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    keys: ClassVar[Mapping[str, str]] = {}
    whole_file: ClassVar[bool] = False
    """The stage reads every key there is, so that unknown ones are found."""

    @classmethod
    def tracked(cls, axes: Mapping[str, str]) -> dict[str, str]:
        """Field name -> dotted key in params.yaml, with the matrix values filled in."""
        return {name: cls.keys.get(name, name).format(**axes) for name in cls.model_fields}

    @classmethod
    def raw(cls, axes: Mapping[str, str], file: Path = PARAMS_FILE) -> dict[str, Any]:
        """What the file says of them, dotted key -> value.

        Raises:
            InputError: a key is missing, or the file can't be read.
        """
        raw = read_yaml(file)
        return raw if cls.whole_file else {key: lookup(raw, key, str(file)) for key in cls.tracked(axes).values()}

    @classmethod
    def of(cls, raw: Mapping[str, Any], axes: Mapping[str, str], file: Path = PARAMS_FILE) -> Self:
        """What the file says of them, validated.

        Raises:
            InputError: a key is unknown or wrong.
        """
        if cls.whole_file:
            return validate(cls, raw, str(file))
        tracked = cls.tracked(axes)
        return validate(cls, {name: raw[key] for name, key in tracked.items()}, str(file), prefix=tracked)

    @classmethod
    def read(cls, axes: Mapping[str, str], file: Path = PARAMS_FILE) -> Self:
        """These parameters; raises what `raw` and `of` do."""
        return cls.of(cls.raw(axes, file), axes, file)

    def recorded(self, axes: Mapping[str, str]) -> dict[str, Any]:
        """Dotted key in params.yaml -> value, as dvc.lock has them."""
        values = self.model_dump(mode="json")
        return {key: values[name] for name, key in self.tracked(axes).items()}


class _Read(NamedTuple):
    """What an instance is made from: parameters by dotted key, inputs and code by path with their hashes."""

    params: dict[str, Any]
    inputs: dict[str, Any]
    code: dict[str, str]

    def flat(self) -> dict[str, Any]:
        """All of it by the names that a person knows."""
        return {**{f"{PARAMS_FILE}: {key}": value for key, value in self.params.items()}, **self.inputs, **self.code}


P = TypeVar("P", bound=StageParams)


@dataclass(frozen=True)
class Context(Generic[P]):
    """What `run` gets: its parameters, the paths that it may read and write, its checkpoints, its counts."""

    params: P
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    axes: Mapping[str, str]
    checkpoints: Checkpoints
    counts: dict[str, Any] = field(default_factory=dict)
    """Filled by `run`: counts, token totals, forwards and FLOPs for manifest.json. Deterministic values only."""
    read: dict[str, Any] = field(default_factory=dict)
    """Filled by `run` for inputs that are `collections`: the files that were read, path -> hash."""
    sources: list[Outside] = field(default_factory=list)
    """Filled by `run` with what it read from outside the repository, so that audits end there."""

    def made(self) -> dict[str, Any]:
        """The hashes of all outputs but the manifest, by path."""
        return {str(path): path_hash(path) for name, path in self.outputs.items() if name != "manifest"}


@dataclass(frozen=True)
class Stage(Generic[P]):
    """The declaration of a stage.

    Args:
        name: its name in dvc.yaml.
        params: the model of what it reads from params.yaml.
        run: the work.
        inputs: name -> path, may hold `{axis}`. Code files are not listed: they are the import closure.
        outputs: name -> path, must hold `manifest`.
        axes: the matrix keys, in the order of dvc.yaml.
        collections: names of inputs that are folders of matrix outputs. `run` reads the instances that params name
            and says so in `Context.read`; what else lies there, such as a removed seed, is not this stage's.
    """

    name: str
    params: type[P]
    run: Callable[[Context[P]], None]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    axes: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()

    def instance(self, axes: Mapping[str, str]) -> str:
        """DVC's name of this instance, such as `arm@binary-1`."""
        return self.name + ("@" + "-".join(axes[a] for a in self.axes) if self.axes else "")

    def execute(self, axes: Mapping[str, str]) -> None:
        """Run the stage in the current folder: check, hold the checkpoints, work, write the manifests."""
        started = time.time()
        raw = self.params.raw(axes)
        params = self.params.of(raw, axes)  # what is wrong there is said before what is missing
        began = self._read(axes, raw)
        known = imported(began.code)
        _refuse_changes(known, {file: began.code[file] for file in known})
        record = {"stage": self.instance(axes), **began._asdict(), "params": params.recorded(axes)}
        key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        with hold(location(), self.instance(axes), key) as checkpoints:
            context = self._context(params, axes, checkpoints)
            for path in context.outputs.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            self._work(context)
            made = context.made()  # takes long where much was made, and an edit meanwhile is one, too
            now = self._read(axes, self.params.raw(axes))
            _refuse_changes(began.flat() | context.read, now.flat() | _hashes(context.read))
            write_manifests(record, context, made, started)
            checkpoints.clear()

    def _work(self, context: Context[P]) -> None:
        """Run; of an input that an earlier stage made and that can't be used, say how it is made again."""
        try:
            self.run(context)
        except InputError as error:
            made = tuple(path for path in map(str, context.inputs.values()) if path not in GIVEN)
            if error.todo or not error.where.startswith(made):
                raise
            again = "Make it again: dvc repro -f"
            raise type(error)(error.what, where=error.where, expected=error.expected, todo=again) from None

    def _read(self, axes: Mapping[str, str], params: dict[str, Any]) -> "_Read":
        """What this instance is made from, as it lies there now.

        Raises:
            InputError: an input or code is missing, or can't be read.
        """
        inputs = {name: Path(path.format(**axes)) for name, path in self.inputs.items()}
        for path in inputs.values():
            if not path.exists():
                raise InputError("the input is missing", where=str(path), todo="Make it first: dvc repro")
        try:
            return _Read(
                params=params,
                inputs={str(path): path_hash(path) for name, path in inputs.items() if name not in self.collections},
                code={path: file_md5(Path(path)) for path in declared_code(self.name)},
            )
        except OSError as error:  # such as code that another commit, checked out meanwhile, doesn't have
            raise InputError(f"can't be read ({error.strerror})", where=str(error.filename)) from None

    def main(self) -> None:
        """The command line `python -m stages.NAME [--axis VALUE ...]`; exit codes as `run_command` has them."""
        if "DVC_STAGE" in os.environ:  # DVC started it, and a `dvc repro` that was killed must leave no writer behind
            die_with_dvc()
            keep()
        run_command(self._command)

    def _command(self) -> None:
        about = sys.modules["__main__"].__doc__
        parser = argparse.ArgumentParser(prog=f"python -m stages.{self.name}", description=about)
        for axis in self.axes:
            parser.add_argument(f"--{axis}", required=True)
        parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # see runner/launch.py
        values = vars(parser.parse_args())
        worker = values.pop("worker")
        if worker is None:
            self.execute(values)
        else:
            self._work(self._context(self.params.read(values), values, Checkpoints(Path(worker[0]), worker[1])))

    def _context(self, params: P, axes: Mapping[str, str], checkpoints: Checkpoints) -> Context[P]:
        inputs = {name: Path(path.format(**axes)) for name, path in self.inputs.items()}
        outputs = {name: Path(path.format(**axes)) for name, path in self.outputs.items()}
        return Context(params, inputs, outputs, axes, checkpoints)


def run_command(command: Callable[[], None]) -> None:
    """Run a command line's body; what goes wrong by a person's mistake or for lack of something is a plain message.

    Exit codes: 2 for a mistake, 75 (EX_TEMPFAIL) for what may pass by itself, 130 after Ctrl-C.
    """
    gc.freeze()  # the imported modules: no later collection, nor that of the interpreter's end, walks them
    gc.set_threshold(700, 10, 10)
    try:
        command()
    except InputError as error:
        _end(error)
    except KeyboardInterrupt:
        typer.secho("interrupted: finished work is kept, run again to go on", fg="yellow", err=True)
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
            _end(Unavailable(f"the GPU's memory is full: {error}"))
        elif (refused := refusal(error)) is None:
            raise
        else:
            _end(refused)


def _end(error: InputError) -> NoReturn:
    if "tqdm" in sys.modules:
        for bar in list(getattr(sys.modules["tqdm"].tqdm, "_instances", ())):
            bar.close()  # so that the message has a line of its own
    typer.secho(f"error: {error}", fg="red", err=True)
    sys.exit(MAY_PASS if isinstance(error, Unavailable) else MISTAKE)


def _refuse_changes(began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Hold a stage to what it began with: DVC records what lies there when the stage has ended.

    Raises:
        InputError: something is another now.
    """
    for name in {**began, **now}:
        if began.get(name) != now.get(name):
            raise InputError(
                "it was changed while the stage ran, so nothing is recorded",
                where=name,
                expected="what the stage began with",
                todo="The work is kept: put it back and run again to go on from it, or run again with the change",
            )


def _hashes(read: Mapping[str, Any]) -> dict[str, Any]:
    """What lies there now, as `Context.read` says it."""
    now = {path: path_hash(Path(path)) for path in read}
    return {path: {key: now[path][key] for key in said} for path, said in read.items()}


def seed_of(text: str) -> int:
    """The seed that the command line gives.

    Raises:
        InputError: it is no seed.
    """
    if not re.fullmatch(r"\d{1,9}", text):
        raise InputError(f"{text!r} is no seed", where="--seed", expected="a whole number, one of params.yaml: seeds")
    return int(text)


def declared_stages(file: Path = Path("dvc.yaml")) -> dict[str, Any]:
    """The stages of dvc.yaml by name, a matrix as one.

    Raises:
        InputError: the file isn't there, or is no pipeline.
    """
    stages: dict[str, Any] = lookup(read_yaml(file), "stages", str(file))
    return stages


def declared_code(stage: str) -> list[str]:
    """The code files that dvc.yaml declares for a stage: its import closure, which a test holds to be exact.

    Raises:
        InputError: it declares no such stage, perhaps any more.
    """
    deps = lookup({"stages": declared_stages()}, f"stages.{stage}.deps", "dvc.yaml") or ()
    return sorted(dep for dep in deps if dep.startswith(CODE))


def write_manifests(record: Mapping[str, Any], context: Context[Any], made: Mapping[str, Any], started: float) -> None:
    """Write manifest.json, and run.json beside it.

    The latter holds what may differ from run to run, and the runner's hash and the commit that was checked out.

    Args:
        record: stage, params, inputs and code, as its manifest says them.
        made: the hashes of its outputs, `Context.made`.
        started: when, in seconds since 1970.
    """
    manifest = context.outputs["manifest"]
    read = {**record["inputs"], **context.read}
    rest = {"inputs": read, "outputs": made, "counts": context.counts, "sources": context.sources}
    Manifest(**{**record, **rest}, environment=Environment.here()).write(manifest)
    write_json(
        manifest.with_name("run.json"),
        {
            "stage": record["stage"],
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 3),
            "host": platform.node(),
            "machine": platform.platform(),
            "runner": runner_hash(),
            "commit": _commit(),
        },
    )


def _commit() -> str | None:
    """What is checked out; None outside git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
