"""Where something published lies: a folder on this machine, or a repository of the hub at a pinned commit."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field

from runner.section import Commit, Section


class Source(StrEnum):
    """Where a family's tokenizer or base comes from."""

    TRAIN = "train"
    PATH = "path"
    HUB = "hub"


class PublishedParams(Section):
    """A published model or tokenizer; `source` beside it says whether `path` or `repo` and `revision` are used."""

    path: str | None = Field(min_length=1)
    """A folder in the published layout, such as models/import/Dream-v0-Instruct-7B."""
    repo: str | None = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Hub repository, `owner/name`."""
    revision: Commit | None
    """Commit of `repo`, 40 hexadecimal digits: the hub shows it under "Files and versions", "History"."""

    def lacking(self, source: Source) -> Iterator[str]:
        """What `source` needs and is null, one line each."""
        if source is Source.PATH and self.path is None:
            yield "source 'path' with published.path null is impossible; expected a folder"
        if source is Source.HUB and self.repo is None:
            yield "source 'hub' with published.repo null is impossible; expected owner/name"
        if source is Source.HUB and self.revision is None:
            yield (
                "source 'hub' with published.revision null is impossible; expected the commit's 40 digits, which the "
                "hub shows under Files and versions, History"
            )
