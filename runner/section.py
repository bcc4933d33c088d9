"""What every section of `params.yaml` shares: strict types, no unknown keys, and errors that name the key."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runner.wording import COMMIT, Describer, dotted, guess, shown
from runner.yaml12 import LARGEST, Loader, TooDeep
from softmask.errors import InputError
from softmask.plain_json import read_bytes

M = TypeVar("M", bound=BaseModel)

Commit = Annotated[str, Field(pattern=COMMIT)]
"""A commit of a hub repository."""
Seed = Annotated[int, Field(ge=0, le=10**9)]
"""A seed that every generator takes: some hold 32 bits with a sign, and some libraries add to it."""


class Section(BaseModel):
    """A section of params.yaml: immutable, strictly typed, unknown keys are errors, no number is NaN or infinite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def problems(self) -> Iterator[str]:
        """Values of this section that can't be together, one line each: `FIELD VALUE with ... ; expected ...`."""
        yield from ()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if found := list(self.problems()):
            raise ValueError("\n".join(found))
        return self


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file is missing, is no valid YAML, has a key twice, or holds no mapping.
    """
    try:
        content = read_bytes(path, missing="Run from the repository's root")
        if len(content) > LARGEST:
            raise InputError(f"the file has {len(content)} bytes", where=str(path), expected=f"at most {LARGEST}")
        raw = yaml.load(content.decode("utf-8"), Loader=Loader)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"not UTF-8 (byte 0x{error.object[error.start]:02x})",
            where=f"{path}, line {line}",
            todo="Save the file as UTF-8",
        ) from None
    except yaml.YAMLError as error:
        raise _no_yaml(error, path) from None
    except (RecursionError, TooDeep):
        raise InputError("nested too deeply", where=str(path), expected="a mapping of sections") from None
    if raw is None:
        raise InputError("the file is empty", where=str(path), expected="a mapping of sections")
    if not isinstance(raw, dict):
        kind = "a list" if isinstance(raw, list) else f"one value, {shown(raw)}"
        raise InputError(f"it holds {kind}", where=str(path), expected="a mapping of sections")
    return raw


def _no_yaml(error: yaml.YAMLError, path: Path) -> InputError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return InputError(f"not valid YAML: {' '.join(str(error).split())}", where=str(path))
    mark = error.problem_mark
    problem = ": ".join(part for part in (error.context, error.problem) if part)
    todo = "Indent with spaces, not with tabs" if r"'\t'" in problem else ""
    where = f"{path}, line {mark.line + 1}, column {mark.column + 1}"
    return InputError(f"not valid YAML: {problem}", where=where, todo=todo)


def lookup(raw: Mapping[str, Any], path: str, where: str) -> Any:
    """The value at a dotted key, such as `arms.settings.binary`.

    Raises:
        InputError: no such key.
    """
    value: Any = raw
    parts = path.split(".")
    for depth, part in enumerate(parts):
        key = ".".join(parts[: depth + 1])
        if not isinstance(value, Mapping):
            above = ".".join(parts[:depth])
            raise InputError(f"{above}: {shown(value)} is wrong", where=where, expected=f"a section with {part}")
        if part not in value:
            names = sorted(map(str, value))
            raise InputError(
                f"{key}: missing", where=where, expected=f"it beside {', '.join(names)}", todo=guess(part, names)
            )
        value = value[part]
    return value


def validate(model: type[M], raw: Any, where: str, prefix: Mapping[str, str] | None = None) -> M:
    """Validate `raw` against `model`; the first error becomes one clear line, the others follow it.

    Args:
        where: the file that the values come from.
        prefix: for a model put together from several keys, the dotted key of each of its fields.

    Raises:
        InputError: names key, value and what was expected for every field that is wrong.
    """
    lines = [dotted(loc, prefix or {}) + text for loc, text in _foreign(raw, ())]
    if not lines:
        try:
            return model.model_validate_json(json.dumps(raw))
        except ValidationError as error:
            lines = list(Describer(model, raw, prefix or {}).lines(error.errors()))
    raise InputError("\n".join(f"{where}: {line}" for line in lines))


def _foreign(value: Any, loc: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Places whose values YAML has a type for and JSON hasn't, such as a date."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _foreign(inner, (*loc, key))
            if not isinstance(key, str | int | float | bool | None):
                yield loc, f"{'.' if loc else ''}{key}: a key that is a {type(key).__name__}; expected text"
            elif isinstance(key, str) and (wrong := _unfit(key)):
                yield loc, f": the key {shown(key)} {wrong}"
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _foreign(inner, (*loc, number))
    elif isinstance(value, str):
        if wrong := _unfit(value):
            yield loc, f": {shown(value)} {wrong}"
    elif not isinstance(value, int | float | bool | None):
        kind = type(value).__name__
        yield (
            loc,
            f": {value} is a {kind}; expected a number, true, false, null or text. Put it in quotes if it is text",
        )


def _unfit(text: str) -> str | None:
    """What is wrong with a text that can be no name and no path."""
    if "\0" in text:
        return "has NUL; expected text"
    return None if text.isascii() or text.encode("utf-8", "ignore").decode() == text else "is no Unicode; expected text"
