"""The commands of `python -m lineage`: what a person types, and what is printed."""
