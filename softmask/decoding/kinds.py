"""The choices of decoding, without torch, so that parameters can be checked quickly."""

from enum import StrEnum


class Sampler(StrEnum):
    """Samplers of MDLM."""

    MDLM = "mdlm"
    """Ancestral: what is unmasked stays."""
    REMDM_CAP = "remdm-cap"
    """ReMDM with the remasking probability capped at eta."""
    REMDM_LOOP = "remdm-loop"
    """ReMDM that remasks at constant alpha_on while t_off < t <= t_on."""
    MDLM_TWO_PASS = "mdlm_two_pass"
    """Ancestral, with a fresh first pass before each step's soft-masked pass: two forwards a step."""

    @property
    def remasks(self) -> bool:
        """Whether unmasked positions can be masked again."""
        return self in (Sampler.REMDM_CAP, Sampler.REMDM_LOOP)


class Refresh(StrEnum):
    """When a forward pass is made."""

    ON_CHANGE = "on_change"
    """Only where a sequence has changed since its last one, as in the paper: real NFE <= nominal."""
    ALWAYS = "always"
    """At every step."""


class RemaskFeedback(StrEnum):
    """What feeds a position that has just been masked again."""

    PREVIOUS_TOKEN = "previous_token"
    """Its token, as a certain guess (official code: SUBS gives unmasked positions a one-hot distribution)."""
    MASK = "mask"
    """Nothing: the plain mask until the next forward."""
