"""The parameters that a plan is for: those of params.yaml, or a profile of conf/ composed as `make params` does."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides, compose_and_dump
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from runner.section import read_yaml, validate
from runner.stage import PARAMS_FILE
from softmask.errors import InputError
from stages.params.root import RootParams

CONF, PROFILES = Path("conf"), Path("conf/profile")


def composed(profile: str | None, overrides: Sequence[str]) -> tuple[dict[str, Any], RootParams]:
    """Parameters as a mapping and validated.

    Args:
        profile: name of a profile; None: what params.yaml has.
        overrides: `KEY=VALUE`, as `dvc exp run -S` takes them.

    Raises:
        InputError: there is no such profile, an override is none or names no key, or values are wrong.
    """
    where = str(PARAMS_FILE) if profile is None else f"profile {profile}"
    with TemporaryDirectory() as folder:
        file = Path(folder) / PARAMS_FILE.name
        try:
            if profile is None:
                _change(file, overrides)
            else:
                _compose(file, profile, overrides)
        except (HydraException, OmegaConfBaseException, InvalidArgumentError) as error:
            cause = error.__cause__ if isinstance(error, InvalidArgumentError) else error
            first_line = next(iter(str(cause).splitlines()), repr(cause))
            raise InputError(f"can't be composed: {first_line}", where=where, todo="Look at --set") from None
        raw = read_yaml(file)
    return raw, validate(RootParams, raw, where)


def _compose(file: Path, profile: str, overrides: Sequence[str]) -> None:
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if profile not in known:
        raise InputError(
            f"there is no profile {profile!r}",
            where=str(PROFILES),
            expected=f"one of {', '.join(known)}" if known else "profiles",
            todo="" if known else "Run from the repository's root",
        )
    compose_and_dump(
        str(file), str(CONF.resolve()), None, "config", "hydra_plugins", [f"profile={profile}", *overrides]
    )


def _change(file: Path, overrides: Sequence[str]) -> None:
    read_yaml(PARAMS_FILE)  # says what is wrong with it, under its own name
    shutil.copyfile(PARAMS_FILE, file)
    if overrides:
        apply_overrides(str(file), overrides)
