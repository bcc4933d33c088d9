"""What runs a stage: its declaration, the store of unfinished work, processes, progress, messages."""
