"""The conductor: Prefect flows over the DVC graph. Knows when and where stages run, and nothing of what they do."""
