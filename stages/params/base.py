"""`base`: where the model that the arms start from comes from."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

from runner.section import Commit, Section, Seed
from stages.params.training import TrainingParams


class BaseSource(StrEnum):
    """Where the base comes from."""

    TRAIN = "train"
    CHECKPOINT = "checkpoint"
    INITIALISE = "initialise"


class Weights(StrEnum):
    """Which weights of a training run are used."""

    EMA = "ema"
    RAW = "raw"


class CheckpointParams(Section):
    """A published MDLM checkpoint."""

    layout: Literal["lightning", "hub"]
    """`lightning`: the public mdlm.ckpt; `hub`: a folder or repository like kuleshov-group/mdlm-owt."""
    path: str | None
    """A local file (lightning) or folder (hub); null: fetched from `repo`."""
    repo: str | None
    """Hub repository, where path is null."""
    revision: Commit | None
    """Commit of `repo`, 40 hexadecimal digits."""
    filename: str | None
    """File in `repo` (lightning); null for a hub repository, which is fetched by its own file names."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.path is not None and self.repo is not None:
            yield f"path {self.path!r} with repo {self.repo!r} is impossible; expected one of them to be null"
        if self.repo is None and (self.revision is not None or self.filename is not None):
            yield (
                f"revision {self.revision!r} and filename {self.filename!r} with repo null are impossible; "
                "expected a repo, or null for them too"
            )
        if self.repo is not None and self.revision is None:
            yield f"repo {self.repo!r} with revision null is impossible; expected the commit's 40 digits"
        if self.layout == "hub" and self.filename is not None:
            yield f"filename {self.filename!r} with layout 'hub' is impossible; expected null"
        if self.layout == "lightning" and self.repo is not None and self.filename is None:
            yield f"repo {self.repo!r} with filename null is impossible; expected the checkpoint's file in it"


class BaseParams(Section):
    """The base model."""

    source: BaseSource
    """`train` from scratch, import a `checkpoint`, or `initialise` only (the arms then train from scratch)."""
    seed: Seed
    """Seed of initialisation, data order, noise and dropout."""
    weights: Weights
    """Averaged or raw weights, of the training or of the checkpoint."""
    training: TrainingParams
    """Used where source is train."""
    checkpoint: CheckpointParams
    """Used where source is checkpoint."""

    def problems(self) -> Iterator[str]:
        """Values that can't be together."""
        if self.source is not BaseSource.CHECKPOINT:
            return
        if self.checkpoint.path is None and self.checkpoint.repo is None:
            yield (
                "source 'checkpoint' with checkpoint.path null and checkpoint.repo null is impossible; "
                "expected one of them"
            )
        if self.checkpoint.layout == "hub" and self.weights is not Weights.EMA:
            yield (
                "weights 'raw' with checkpoint.layout 'hub' is impossible, it has the EMA weights only; expected ema"
            )
