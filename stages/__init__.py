"""The work: one typed component a stage. A stage reads `params.yaml` and files, calls `softmask`, writes files."""
