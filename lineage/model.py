"""What the record consists of: files with hashes, runs that read and make them, and what is found wrong.

Paths are POSIX and relative to the repository's root; hashes are DVC's (MD5 in hex, a folder's ending in `.dir`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field


class Frozen(BaseModel):
    """A value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder as something recorded it."""

    path: str
    hash: str | None = None
    """None where nothing was recorded."""
    algorithm: str = "md5"
    """`md5`, `md5-dos2unix` (DVC before 3.0), or what an external source gives, such as `etag`."""
    size: int | None = None
    """Bytes."""
    files: int | None = None
    """How many files a folder has."""

    @property
    def is_folder(self) -> bool:
        """Whether the hash is a folder's."""
        return self.hash is not None and self.hash.endswith(".dir")

    @property
    def is_external(self) -> bool:
        """Whether it lies outside the project: an address, or an absolute path."""
        return "://" in self.path or self.path.startswith(("/", "../"))


class Kind(StrEnum):
    """Who made a run's outputs."""

    STAGE = "stage"
    """A command of dvc.yaml."""
    DATA = "data"
    """A person, with `dvc add`."""
    IMPORT = "import"
    """`dvc import`, `dvc import-url` or `dvc import-db`."""


@dataclass(frozen=True, slots=True)
class Run:
    """One stage as dvc.lock recorded it, or one `.dvc` file."""

    name: str
    """DVC's address: `train`, `arm@sm-1`, `sub/dvc.yaml:train`, `data/raw.csv.dvc`."""
    file: str
    """The dvc.lock or .dvc file that says so."""
    kind: Kind
    folder: str = ""
    """The working folder that the command ran in."""
    command: tuple[str, ...] = ()
    inputs: tuple[File, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameter file -> dotted key -> value."""
    outputs: tuple[File, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Of an import: where from, and which revision, as the .dvc file has it."""

    def settings(self) -> Iterator[tuple[str, str, Any]]:
        """(parameter file, dotted key, value) of every parameter."""
        for file, values in self.parameters.items():
            for key, value in values.items():
                yield file, key, value


class Gap(Frozen):
    """Something that could not be read, so that the answer is partial."""

    where: str
    what: str


class Commit(Frozen):
    """Who recorded something, and when."""

    id: str
    author: str
    email: str
    time: str
    """ISO 8601; empty where no calendar has it."""
    subject: str


class Pin(Frozen):
    """A raw source outside the repository, as parameters, a manifest or a .dvc file name it."""

    where: str
    """The parameter's or file's name."""
    source: str
    """Package, address, hub repository."""
    revision: str | None
    """The hash, commit or version that pins it."""
    fixed: bool
    """Whether that can't come to mean something else later (a branch's name can)."""
    runs: tuple[str, ...] = ()
    """The runs that read it."""


class Fault(StrEnum):
    """What verification finds."""

    OUTPUT = "output tampered"
    """The workspace's bytes aren't those of dvc.lock."""
    METRIC = "metric edited"
    """A result that git keeps isn't what the stage wrote."""
    CACHE = "cache corrupt"
    REMOTE = "remote corrupt"
    FORGED = "no run made it"
    """The lock has an output that the manifest of its own run disagrees with."""
    LOCK = "lock inconsistent"
    """A dependency's hash isn't its producer's, and no former run with what changed since explains it."""
    STALE = "stale"
    """What the run read was made anew since, and the run was not."""
    CODE = "code differs"
    """A code file isn't what the stage ran with."""
    UNCOMMITTED = "not committed yet"
    """A file that a stage reads isn't the commit's, or is in no commit, as after a run: it may still change."""
    PARAMETER = "parameter differs"
    COMMAND = "command differs"
    DECLARATION = "declaration differs"
    """By dvc.yaml, the stage reads or makes other files or parameters than its run did."""
    MANIFEST = "manifests disagree"
    REPORT = "report stale"
    """A number in a report isn't the metric's that it cites."""
    NUMBERS = "numbers disagree"
    """Files of one run state the same number, and not alike."""
    RECORD = "kept record edited"
    """A file of a kept record isn't what was kept, or is gone."""
    UNPINNED = "source unpinned"
    NEVER_RUN = "never run"
    LEFT_OVER = "left over"
    """A run of a stage that dvc.yaml no longer has."""
    MISSING = "missing"
    """Nowhere to be found; not corrupt."""
    UNREADABLE = "unreadable"
    UNCHECKED = "not checked"
    """It could not be checked, for the reason given."""


TOLERABLE = frozenset(
    {
        Fault.STALE,
        Fault.UNCOMMITTED,
        Fault.NEVER_RUN,
        Fault.LEFT_OVER,
        Fault.MISSING,
        Fault.UNREADABLE,
        Fault.UNCHECKED,
    }
)
"""What leaves an answer partial and proves nothing wrong."""


class Finding(Frozen):
    """One thing that verification found."""

    fault: Fault
    run: str | None
    """The stage, or None."""
    path: str
    what: str
    """One sentence, with what was expected and found."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def proves_wrong(self) -> bool:
        """Whether something is wrong, not only missing."""
        return self.fault not in TOLERABLE
