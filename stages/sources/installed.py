"""Files of a pinned installed package. Knows nothing of what is in them."""

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from softmask.errors import InputError


def installed(package: str, version: str, where: str) -> Distribution:
    """An installed distribution of exactly this version.

    Args:
        where: the params key that names it.

    Raises:
        InputError: it isn't installed, or another version is.
    """
    todo = "Install the environment from the lock file"
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise InputError(f"{package} isn't installed", where=where, expected=f"version {version}", todo=todo) from None
    if found.version != version:
        raise InputError(
            f"{package} {found.version} is installed", where=where, expected=f"version {version}", todo=todo
        )
    return found


def digest_of(files: Mapping[str, Path]) -> str:
    """SHA-256 over names and bytes of files, in the order of their names."""
    digest = sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def files_of(package: Distribution, where: str) -> dict[str, Path]:
    """Relative POSIX path -> absolute path of a distribution's files, sorted.

    Raises:
        InputError: the installer has kept no list of them.
    """
    if package.files is None:
        raise InputError(
            f"the installation of {package.name} has no list of its files (RECORD)",
            where=where,
            todo="Install it again with pip or uv",
        )
    return {name.as_posix(): Path(str(package.locate_file(name))) for name in sorted(package.files)}
