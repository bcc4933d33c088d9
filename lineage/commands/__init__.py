"""The commands of `dvc-lineage`: what a person types, and what is printed."""
