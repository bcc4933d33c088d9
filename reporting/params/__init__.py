"""The pydantic models of what compares and reports."""
