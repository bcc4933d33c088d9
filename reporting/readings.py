"""Reads what the comparison is made from: metrics, NLL arrays and training histories of exactly the named models.

Knows no statistics. A file that is missing, torn, or about different text is the user's to mend.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from artifacts.files import read_json
from artifacts.hashing import file_md5
from artifacts.manifest import Environment, Manifest
from reporting.schema import BASE, ModelMetrics, NllPath, Record, ReferenceMetrics
from softmask.errors import InputError

R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=BaseModel)

NLL_AGREEMENT = 1e-4
"""Relative: metrics.json and nll.safetensors of one evaluation agree far better than this."""


@dataclass(frozen=True)
class Instance:
    """A model that params name: `base`, or an arm and a seed."""

    name: str
    arm: str
    seed: int | None


@dataclass(frozen=True)
class NllArrays:
    """`nll.safetensors`: summed nats of each Monte Carlo draw and unit."""

    nll: dict[NllPath, NDArray[np.float64]]
    """float64 [D, U] on each path."""
    tokens: NDArray[np.float64]
    """float64 [U], whole numbers."""
    bytes: NDArray[np.float64]
    """float64 [U], whole numbers."""
    unit_kind: str


@dataclass(frozen=True)
class Reading:
    """All that is read about one model."""

    instance: Instance
    metrics: ModelMetrics
    arrays: NllArrays
    environment: Environment
    history: list[dict[str, Any]]


class Reader:
    """Reads files and keeps their MD5s, so that the result can cite exactly what it was made from."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}

    def json(self, path: Path) -> Any:
        """The value in a JSON file.

        Raises:
            InputError: the file is missing or no JSON.
        """
        value = read_json(path)
        self.note(path)
        return value

    def note(self, path: Path) -> None:
        """Keep a file's MD5."""
        self.hashes[path.as_posix()] = file_md5(path)

    def record(self, path: Path, model: type[M]) -> M:
        """A JSON file as a typed record.

        Raises:
            InputError: the file is missing, no JSON, or a field is missing or wrong.
        """
        return parse(self.json(path), model, path)

    def cited(self, path: Path, model: type[R]) -> R:
        """A JSON file as a typed record that knows it was read there.

        Raises:
            InputError: the file is missing, no JSON, or a field is missing or wrong.
        """
        return self.record(path, model).read_from(f"{path.as_posix()}:")

    def counts(self, path: Path, model: type[R]) -> R:
        """The counts in a manifest as a typed record that knows it was read there.

        Raises:
            InputError: the file is missing or no manifest, or a field is missing or wrong.
        """
        return parse(self.record(path, Manifest).counts, model, path).read_from(f"{path.as_posix()}:counts")


def parse(value: Any, model: type[M], path: Path) -> M:
    """Validate a value read from `path`.

    Raises:
        InputError: names the first field that is missing or wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{field}: {first['msg']}", where=str(path)) from None


def instances(arms: Sequence[str], seeds: Sequence[int]) -> list[Instance]:
    """The base, then every arm with every seed, in the order of params."""
    return [Instance(BASE, BASE, None)] + [Instance(f"{arm}-{seed}", arm, seed) for arm in arms for seed in seeds]


def read_model(reader: Reader, instance: Instance, evaluation: Path, models: Path) -> Reading:
    """Metrics, NLLs, environment and history of one model.

    Args:
        evaluation: the folder with `{model}/metrics.json` and so on.
        models: the folder with `{model}/history.json`.

    Raises:
        InputError: a file is missing or torn, or files of one evaluation disagree.
    """
    folder = evaluation / instance.name
    metrics = reader.record(folder / "metrics.json", ModelMetrics)
    if metrics.model != instance.name:
        raise InputError(f"model is {metrics.model!r}", where=str(folder / "metrics.json"), expected=instance.name)
    arrays = read_nll(reader, folder / "nll.safetensors", metrics)
    environment = reader.record(folder / "manifest.json", Manifest).environment
    history = reader.json(models / instance.name / "history.json")
    return Reading(instance, metrics, arrays, environment, history)


def read_nll(reader: Reader, path: Path, metrics: ModelMetrics) -> NllArrays:
    """The NLL arrays, checked against the metrics that were written beside them.

    Raises:
        InputError: missing, no safetensors, an array is missing or misshapen, or its mean isn't the metrics' NLL.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            arrays = {name: np.asarray(file.get_tensor(name), dtype=np.float64) for name in names}
            unit_kind = (file.metadata() or {}).get("unit_kind", "units")
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path)) from None
    except SafetensorError as error:
        raise InputError(f"no readable safetensors ({error})", where=str(path)) from None
    reader.note(path)
    wanted = {"tokens", "bytes", *metrics.paths}
    if missing := sorted(wanted - names):
        raise InputError(f"lacks {', '.join(missing)}", where=str(path), expected=", ".join(sorted(wanted)))
    units = len(arrays["tokens"])
    for nll_path in metrics.paths:
        _check_nll(arrays[nll_path], arrays["tokens"], metrics, nll_path, path)
    if units == 0 or arrays["bytes"].shape != (units,):
        raise InputError(f"bytes has shape {arrays['bytes'].shape}", where=str(path), expected=f"[{units}], not empty")
    return NllArrays({p: arrays[p] for p in metrics.paths}, arrays["tokens"], arrays["bytes"], unit_kind)


def _check_nll(
    nll: NDArray[np.float64], tokens: NDArray[np.float64], metrics: ModelMetrics, nll_path: NllPath, file: Path
) -> None:
    if nll.ndim != 2 or nll.shape[1:] != tokens.shape:
        raise InputError(f"{nll_path} has shape {nll.shape}", where=str(file), expected=f"[draws, {len(tokens)}]")
    stated = metrics.perplexity[nll_path]
    found = float(nll.mean(axis=0).sum() / tokens.sum())
    if stated is None or not np.isclose(found, stated.nll, rtol=NLL_AGREEMENT):
        raise InputError(
            f"{nll_path} has {found:.6f} nats a token, metrics.json says {stated and stated.nll}",
            where=str(file),
            expected="files of one and the same evaluation",
            todo=f"Run it again: dvc repro -f, evaluation of {metrics.model}",
        )


def check_same_text(readings: Sequence[Reading]) -> None:
    """Hold all models to the same evaluated units and draws, without which no difference is paired.

    Raises:
        InputError: names the first model that was evaluated on something else than the first one.
    """
    first = readings[0].arrays
    for reading in readings[1:]:
        other = reading.arrays
        same = (
            np.array_equal(first.tokens, other.tokens)
            and np.array_equal(first.bytes, other.bytes)
            and first.unit_kind == other.unit_kind
            and all(nll.shape == first.nll[NllPath.BINARY].shape for nll in other.nll.values())
        )
        if not same:
            raise InputError(
                f"{reading.instance.name} was evaluated on other units or draws than {readings[0].instance.name}",
                where="nll.safetensors",
                expected="the same validation text for every model",
                todo="Evaluate them again: dvc repro",
            )


def distinct(environments: Iterable[Environment]) -> list[Environment]:
    """The environments without repetitions, in their order."""
    found: list[Environment] = []
    for environment in environments:
        if environment not in found:
            found.append(environment)
    return found


def read_references(reader: Reader, path: Path) -> ReferenceMetrics:
    """The real-text row and the judge's own perplexity.

    Raises:
        InputError: the file is missing or wrong.
    """
    return reader.record(path, ReferenceMetrics)
