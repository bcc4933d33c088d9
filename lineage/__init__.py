"""The record: where a number came from, how two experiments differ, and whether the bytes are what the lock says.

Reads dvc.yaml, dvc.lock, manifests and git of any revision of any DVC project. Knows nothing of models, stages and
flows, and writes nothing into the project but a record that it is told to keep.
"""
