"""Whether a document is what its official schema says. Reads the schemas that lie in lineage/schemas."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft4Validator, Draft202012Validator

SCHEMAS = Path(__file__).parents[1] / "schemas"


class InvalidExport(Exception):
    """An export that its schema doesn't allow: a mistake in this tool, never the user's."""


def validate_openlineage(event: Any) -> None:
    """Hold an event against OpenLineage's schema, formats too.

    Raises:
        InvalidExport: it doesn't fit; says where.
    """
    _validate(event, "OpenLineage-2-0-2.schema.json", Draft202012Validator)


def validate_prov(document: Any) -> None:
    """Hold a document against the schema of PROV-JSON, formats too.

    Raises:
        InvalidExport: it doesn't fit; says where.
    """
    _validate(document, "prov-json.schema.json", Draft4Validator)


def validate_cyclonedx(document: str) -> None:
    """Hold a BOM against the strict schema of CycloneDX 1.6.

    Raises:
        InvalidExport: it doesn't fit; says where.
    """
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    if error is not None:
        raise _invalid("CycloneDX 1.6", error.data)


@cache
def _validator(schema: str, kind: Any) -> Any:
    return kind(json.loads((SCHEMAS / schema).read_text()), format_checker=kind.FORMAT_CHECKER)


def _validate(document: Any, schema: str, kind: Any) -> None:
    for error in _validator(schema, kind).iter_errors(document):
        raise _invalid(schema, error)


def _invalid(schema: str, error: Any) -> InvalidExport:
    return InvalidExport(f"a mistake in lineage.export: {error.json_path} doesn't fit {schema}: {error.message[:300]}")
