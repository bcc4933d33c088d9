"""The networks: the diffusion transformer of MDLM, and the import of published checkpoints."""
