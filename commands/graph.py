"""Holds dvc.yaml to the code: each stage's code dependencies are its true import closure, its declaration is `STAGE`.

`python -m commands.graph` prints what differs and exits with 1; `--write` rewrites the code dependencies in place.
It is a developer's tool: no stage depends on it, and it knows nothing of what the stages do.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import grimp
from ruamel.yaml.comments import CommentedSeq

from commands.pipeline_file import edited
from runner.imported import CODE, PACKAGES, VERSION
from runner.section import read_yaml
from runner.stage import run_command
from softmask.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = Path("dvc.yaml")
RUNNER = ("runner.", "softmask.errors.", "softmask.refused.")
"""Modules that run a stage or word what goes wrong."""
WITHOUT_DECLARATION = "check"
"""It stands above the others: it tracks the whole of params.yaml, and its output is what every `STAGE` starts from."""


def closure(module: str) -> list[str]:
    """The files of these packages that can change what a module makes, as sorted paths relative to the repository.

    Modules imported within functions count, imports for type checking don't. Each module brings the other files
    (templates and the like) in its package that it names in its source. In place of what runs a stage stands its
    version; a package's `__init__.py` holds nothing that counts.

    Raises:
        InputError: there is no such module.
    """
    graph = _import_graph()
    if module not in graph.modules:
        raise InputError(f"there is no module {module}", where=str(PIPELINE), expected="python -m stages.NAME as cmd")
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.find_modules_directly_imported_by(name)
    counted = {name for name in found if not f"{name}.".startswith(RUNNER)}
    sources = {path for path in map(_source, counted) if path.name != "__init__.py"}
    files = {VERSION} | {path.relative_to(ROOT).as_posix() for path in sources | _named_files(sources)}
    return sorted(files)


def data_files() -> set[Path]:
    """All files of the packages that are not Python, as absolute paths."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path for path in files if path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")}


@cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _named_files(sources: Iterable[Path]) -> set[Path]:
    """The data files of their packages that these sources name, and those that these name (a template's parts)."""
    named: set[Path] = set()
    readers = set(sources)
    while readers:
        texts = [(_package(path), path.read_text(encoding="utf-8")) for path in readers]
        readers = {
            file
            for file in data_files() - named
            if any(_package(file) == package and file.name in text for package, text in texts)
        }
        named |= readers
    return named


def _package(path: Path) -> Path:
    """The innermost package around a file."""
    return next(folder for folder in path.parents if (folder / "__init__.py").exists())


def differences(file: Path = PIPELINE) -> list[str]:
    """One line for everything in which dvc.yaml differs from the code; empty when they agree.

    Raises:
        InputError: dvc.yaml can't be read, or a cmd names no module.
    """
    stages = read_yaml(file)["stages"]
    lines = []
    for name, entry in stages.items():
        where = f"{file}: stages.{name}"
        module, values = _parse_command(entry["cmd"], where)
        code = [dep for dep in entry.get("deps", []) if _is_code(dep)]
        lines += _compare(f"{where}.deps", code, closure(module))
        if name != WITHOUT_DECLARATION:
            lines += _compare_declaration(where, name, entry, import_module(module).STAGE, values)
    return lines


def _parse_command(command: str, where: str) -> tuple[str, dict[str, str]]:
    """`python -m stages.arm --arm X --seed Y` -> module and the value of each axis, in order."""
    parts = shlex.split(command)
    flags, values = parts[3::2], parts[4::2]
    if parts[:2] != ["python", "-m"] or len(flags) != len(values) or not all(f.startswith("--") for f in flags):
        raise InputError(f"cmd is {command!r}", where=where, expected="python -m stages.NAME [--axis VALUE ...]")
    return parts[2], {flag.removeprefix("--"): value for flag, value in zip(flags, values, strict=True)}


def _compare_declaration(where: str, name: str, entry: Any, stage: Any, values: Mapping[str, str]) -> Iterator[str]:
    """Compare one stage of dvc.yaml with a `runner.stage.Stage`, parameter by parameter and path by path."""
    module = entry["cmd"].split()[2]
    if module != f"stages.{stage.name}" or not f"{name}_".startswith(f"{stage.name}_"):
        yield f"{where}: runs {module}, whose STAGE is called {stage.name!r}; expected one name for all three"
    if tuple(values) != stage.axes:
        yield f"{where}.cmd: gives the axes {list(values)}; {stage.name} declares {list(stage.axes)}"
        return
    items = re.findall(r"\$\{item\.(\w+)\}", entry["cmd"])
    if items != list(entry.get("matrix", {})):
        yield f"{where}.matrix: has the keys {list(entry.get('matrix', {}))}; cmd uses {items}"
    made = [_path(out) for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    read = [dep for dep in entry.get("deps", []) if not _is_code(dep)]
    yield from _compare(f"{where}.params", entry.get("params", []), stage.params.tracked(values).values())
    yield from _compare(f"{where}.deps", read, [path.format(**values) for path in stage.inputs.values()])
    yield from _compare(f"{where}.outs", made, [path.format(**values) for path in stage.outputs.values()])


def _compare(where: str, has: Iterable[str], expected: Iterable[str]) -> list[str]:
    listed, wanted = list(has), set(expected)
    twice = sorted({item for item in listed if listed.count(item) > 1})
    return (
        [f"{where}: lacks {item}" for item in sorted(wanted - set(listed))]
        + [f"{where}: has {item}, which the code does not" for item in sorted(set(listed) - wanted)]
        + [f"{where}: has {item} twice" for item in twice]
    )


def _is_code(dep: str) -> bool:
    return dep.startswith(CODE)


def _path(out: Any) -> str:
    return out if isinstance(out, str) else next(iter(out))


def write(file: Path = PIPELINE) -> bool:
    """Make the code dependencies of every stage its closure; order, comments and all else stay. True if it changed."""
    before = file.read_bytes()
    with edited(file) as pipeline:
        for name, entry in pipeline["stages"].items():
            module, _ = _parse_command(entry["cmd"], f"{file}: stages.{name}")
            _replace_code(entry["deps"], closure(module))
    return file.read_bytes() != before


def _replace_code(deps: CommentedSeq, code: list[str]) -> None:
    """Code first and sorted, then the other dependencies as they were; only what differs is touched."""
    for index in reversed(range(len(deps))):
        if _is_code(deps[index]) and deps[index] not in code:
            del deps[index]
    for index, path in enumerate(code):
        if path not in deps:
            deps.insert(index, path)


def _command() -> None:
    parser = argparse.ArgumentParser(prog="python -m commands.graph", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the code dependencies in dvc.yaml")
    if parser.parse_args().write:
        print(f"{PIPELINE} {'rewritten' if write() else 'is up to date'}")
    lines = differences()
    print("\n".join(lines or [f"{PIPELINE} agrees with the code"]))
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    run_command(_command)
