"""What every section of `params.yaml` shares: strict types, no unknown keys, and errors that name the key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from softmask.errors import InputError

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A section of params.yaml: immutable, strictly typed, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file is missing, is no valid YAML, or holds no mapping.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path), todo="Run from the repository's root") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first_line = " ".join(str(error).split())
        raise InputError(f"not valid YAML: {first_line}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise InputError(f"holds {type(raw).__name__}", where=str(path), expected="a mapping of sections")
    return raw


def lookup(raw: Mapping[str, Any], dotted: str, where: str) -> Any:
    """The value at a dotted key, such as `arms.settings.binary`.

    Raises:
        InputError: no such key.
    """
    value: Any = raw
    for depth, part in enumerate(dotted.split(".")):
        if not isinstance(value, Mapping) or part not in value:
            missing = ".".join(dotted.split(".")[: depth + 1])
            raise InputError(f"{missing} is missing", where=where, expected=f"the key {dotted}")
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
    try:
        return model.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        lines = [_describe(dict(item), prefix or {}) for item in error.errors()]
        raise InputError("\n".join(f"{where}: {line}" for line in lines)) from None
    except TypeError as error:  # YAML dates and the like have no place in params
        raise InputError(f"a value has a type that params can't hold ({error})", where=where) from None


def _describe(error: dict[str, Any], prefix: Mapping[str, str]) -> str:
    loc = [str(part) for part in error["loc"]]
    if loc and loc[0] in prefix:
        loc[0] = prefix[loc[0]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key (value {error['input']!r}); expected one of the documented keys: check the spelling"
    if error["type"] == "missing":
        return f"{key}: missing; expected a value"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {error['input']!r} is wrong; expected {message}"
