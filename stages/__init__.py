"""The work: one typed component a stage. A stage reads `params.yaml` and files, calls `softmask`, writes files."""

import gc

import runner.imported  # noqa: F401, before all else

# What imports make, stays: looking for garbage in it takes a third of a stage's start. run_command undoes this.
gc.set_threshold(50_000, 50, 1000)
