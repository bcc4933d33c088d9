"""The sections of params.yaml under `code`: one module a section, none of which imports a model library."""
