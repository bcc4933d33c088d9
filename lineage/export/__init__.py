"""A closure in the words of other tools: OpenLineage, PROV-JSON, CycloneDX. Each is validated; none is sent."""
