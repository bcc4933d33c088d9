"""`base`: where the model that the arms start from comes from."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from stages.params.section import Section
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
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit of `repo`, 40 hexadecimal digits."""
    filename: str | None
    """File in `repo` (lightning)."""


class BaseParams(Section):
    """The base model."""

    source: BaseSource
    """`train` from scratch, import a `checkpoint`, or `initialise` only (the arms then train from scratch)."""
    seed: int = Field(ge=0)
    """Seed of initialisation, data order, noise and dropout."""
    weights: Weights
    """Averaged or raw weights, of the training or of the checkpoint."""
    training: TrainingParams
    """Used where source is train."""
    checkpoint: CheckpointParams
    """Used where source is checkpoint."""
