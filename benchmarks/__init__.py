"""Measurements of time and memory, which no test and no stage depends on."""
