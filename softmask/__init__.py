"""Soft-masked diffusion language models: tensors and models in, tensors and models out.

The package knows no DVC, no Prefect, no `params.yaml` and no project paths. Nothing is re-exported
here, so that the import closure of a stage is exactly the code that it uses.
"""
