"""The names of the formats, apart from what makes them, which takes a second to import."""

from enum import StrEnum


class Format(StrEnum):
    """A format of another tool."""

    OPENLINEAGE = "openlineage"
    """Run events, one JSON document a line."""
    PROV = "prov"
    """W3C's PROV-JSON."""
    CYCLONEDX = "cyclonedx"
    """A CycloneDX 1.6 bill of materials for machine learning."""
