"""The pydantic models of `params.yaml`, one module a section. They import no torch, so that `check` is quick."""
